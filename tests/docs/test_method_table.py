"""docs/method.md's table of equations, and the files and names that pages mention, against the code."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import diffmiczoo

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(diffmiczoo.__file__).parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "experiments" not in path.parts),
]


def rows() -> list[tuple[str, str, list[str]]]:
    """(item of the paper, file, names in it) of each file in each row of the table."""
    text = (ROOT / "docs" / "method.md").read_text("utf-8")
    table = text.split("## Where each equation lives")[1].split("\n\n")[1]
    found = []
    for line in table.splitlines()[2:]:
        item, _, code = [cell.strip() for cell in line.strip("|").split("|")]
        for token in re.findall(r"`([^`]+)`", code):
            if token.endswith(".py"):
                found.append((item, token, []))
            else:
                found[-1][2].append(token)
    return found


def numbers(text: str) -> set[str]:
    """The equations, algorithms and sections that a text names: "eq. 4-5 and 7" → {"eq. 4", "eq. 5", "eq. 7"}."""
    found = set(re.findall(r"[Ss]ection (III-A)", text))
    for kind, first in (("eq.", r"[Ee]q(?:s|uations?)?\.? ?"), ("Algorithm", r"Algorithms? ")):
        for listed in re.findall(first + r"(\d+(?:\s?(?:-|–|,|and)\s?\d+)*)", text):
            for part in re.split(r",|and", listed):
                ends = [int(each) for each in re.findall(r"\d+", part)]
                found |= {f"{kind} {number}" for number in range(ends[0], ends[-1] + 1)}
    return found


def resolve(file: str, name: str) -> Any:
    owner = importlib.import_module("diffmiczoo." + ".".join(Path(file).with_suffix("").parts))
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner


def test_the_table_has_every_equation_and_algorithm():
    named = set().union(*(numbers(item) for item, _, _ in rows()))
    assert named == {f"eq. {number}" for number in range(1, 11)} | {"Algorithm 1", "Algorithm 2", "III-A"}


@pytest.mark.parametrize(
    ("item", "file", "name"), [(item, file, name) for item, file, names in rows() for name in names]
)
def test_a_row_names_what_exists_and_carries_its_number(item: str, file: str, name: str):
    found = resolve(file, name)
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert Path(inspect.getsourcefile(found)) == PACKAGE / file, f"{name} is only imported by {file}"
    missing = numbers(item) - numbers(inspect.getdoc(found) or "")
    assert not missing, f"the docstring of {name} in {file} does not name {sorted(missing)}"


def test_every_row_names_a_function():
    assert all(names for _, _, names in rows())


def test_numbers_are_read_from_text():
    assert numbers("eq. 4-5, 7 and 9; Algorithm 1 (section III-A), eq.3") == {
        "eq. 4", "eq. 5", "eq. 7", "eq. 9", "eq. 3", "Algorithm 1", "III-A",
    }  # fmt: skip
    assert numbers("the 4-5 classes of frequency 3") == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_and_names_that_a_page_mentions_exist(page: Path):
    tokens = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL))
    for token in tokens:
        if re.fullmatch(r"[a-z_0-9/]+\.(py|json|md|toml)", token) and "/" in token:
            of_a_run = token.startswith(("runs/", "best/"))
            assert of_a_run or (PACKAGE / token).is_file() or (ROOT / token).is_file(), token
        elif re.fullmatch(r"diffmiczoo(\.\w+)+", token) and token not in ("diffmiczoo.evaluate",):
            module, _, name = token.rpartition(".")
            assert hasattr(importlib.import_module(module), name), token
