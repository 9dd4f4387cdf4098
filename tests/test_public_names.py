"""The public names: all there, documented, and imported without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import diffmiczoo


def test_import_is_light() -> None:
    code = (
        "import sys, diffmiczoo; assert 'torch' not in sys.modules; diffmiczoo.list_models(); "
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules; "
        "assert set(diffmiczoo.__all__) <= set(dir(diffmiczoo))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_type_checkers_see_the_same_public_names() -> None:
    tree = ast.parse(Path(diffmiczoo.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names if alias.asname == alias.name}
    assert seen == diffmiczoo._HOME and set(diffmiczoo.__all__) == {*seen, "__version__"}


def test_every_public_name_exists_and_is_documented() -> None:
    for name in diffmiczoo.__all__:
        value = getattr(diffmiczoo, name)
        assert name == "__version__" or (value.__doc__ and len(value.__doc__) > 30), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        diffmiczoo.nothing  # noqa: B018
