"""The public names: all there, documented, and imported without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import diffmiczoo


def test_import_is_light() -> None:
    code = (
        "import sys, diffmiczoo; assert 'torch' not in sys.modules; diffmiczoo.list_models(); "
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules; "
        "assert set(diffmiczoo.__all__) <= set(dir(diffmiczoo))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_public_name_exists_and_is_documented() -> None:
    for name in diffmiczoo.__all__:
        value = getattr(diffmiczoo, name)
        assert name == "__version__" or (value.__doc__ and len(value.__doc__) > 30), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        diffmiczoo.nothing  # noqa: B018
