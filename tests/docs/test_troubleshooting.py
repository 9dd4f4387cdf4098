"""Messages that docs/troubleshooting.md explains are messages of the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import diffmiczoo

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"

#: What the page shows of other programs.
FOREIGN = ("diffmiczoo: command not found", "No space left on device", "CUDA out of memory")


def messages() -> list[str]:
    """The first cells of the page's tables that are a message, from the first word to the last."""
    cells = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text("utf-8"), re.M)
    return [cell for cell in cells if cell not in FOREIGN]


@pytest.fixture(scope="module")
def texts() -> str:
    """All texts in the package's source, with "…" for what is filled in."""
    found = []
    for path in Path(diffmiczoo.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_page_has_messages() -> None:
    assert len(messages()) >= 30


@pytest.mark.parametrize("message", messages())
def test_a_message_is_one_of_the_package(message: str, texts: str) -> None:
    parts = [part.strip() for part in message.split("…")]
    assert re.search(".{0,9}?".join(map(re.escape, filter(None, parts))), texts), f"no message reads {message!r}"


def test_a_message_that_does_not_exist_is_noticed(texts: str) -> None:
    assert "is not a picture of a cat" not in texts
