"""README's table of weights is made from what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = ROOT / "tools" / "weights_table.py"
    return subprocess.run([sys.executable, str(tool), *arguments], check=False, capture_output=True, text=True)


def test_readme_shows_what_metrics_json_holds() -> None:
    found = run_tool("--check")
    assert found.returncode == 0, found.stderr


def test_a_table_that_differs_is_found_and_written_anew(tmp_path: Path) -> None:
    text, copy = (ROOT / "README.md").read_text(encoding="utf-8"), tmp_path / "README.md"
    changed = re.sub(r"\| model \| 0\.\d+ \|", "| model | 0.907 |", text, count=1)
    assert changed != text
    copy.write_text(changed, encoding="utf-8")
    found = run_tool("--check", "--readme", str(copy))
    assert found.returncode == 1 and "the table of weights differs" in found.stderr
    assert run_tool("--readme", str(copy)).returncode == 0
    assert copy.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("comments", [0, 2])
def test_a_readme_without_its_comments_is_refused(tmp_path: Path, comments: int) -> None:
    copy = tmp_path / "README.md"
    copy.write_text("<!-- weights table: written by tools/weights_table.py -->\n" * comments, encoding="utf-8")
    found = run_tool("--readme", str(copy))
    assert found.returncode == 1 and "once each" in found.stderr
