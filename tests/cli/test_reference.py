"""docs/cli.md is what the commands say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from diffmiczoo.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "tools" / "cli_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool) -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == tool.reference(), "run: python tools/cli_reference.py"


def test_the_page_has_every_command_and_option(tool) -> None:
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", tool.reference(), re.MULTILINE | re.DOTALL))
    assert list(sections) == list(main.commands)
    for name, command in main.commands.items():
        rows = re.findall(r"^\| `(--[\w-]+)", sections[name], re.MULTILINE)
        assert rows == [option.opts[0] for option in command.params if option.opts[0].startswith("--")]
    assert "Also `diffmiczoo train`" in sections["fit"]
