"""The docs site has every public name, room and page. `mkdocs build --strict` in .ci/run checks that it builds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import diffmiczoo

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(diffmiczoo.__file__).parent
API = ROOT / "docs" / "api"


def pages_of(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from pages_of(value if isinstance(value, list) else [value])


def test_every_page_is_in_the_navigation():
    # Tags such as !ENV are none of ours, so the safe loader reads it.
    listed = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(listed) == written
    assert len(listed) == len(set(listed))


def test_readers_fetch_nothing_from_elsewhere():
    """Fonts, styles and scripts are the site's own; a repo_url would make each browser ask a host for its stars."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert config["theme"]["font"] is False
    assert "repo_url" not in config and "extra_javascript" not in config
    for style in config["extra_css"]:
        text = (ROOT / "docs" / style).read_text("utf-8")
        assert "//" not in style and "url(" not in text and "@import" not in text
    pictures = re.compile(r"!\[[^]]*\]\((?:https?:)?//|<(?:img|script|iframe|link)\b")
    for page in (ROOT / "docs").rglob("*.md"):
        assert not pictures.search(page.read_text("utf-8")), page


def test_the_glossary_is_in_order_and_has_the_words_that_tables_use():
    words = re.findall(r"^\| \*\*([^*]+)\*\* \|", (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.M)
    plain = [word.replace("κ", "kappa").lower() for word in words]
    assert plain == sorted(plain)
    assert {"DCG", "ROI", "ECE", "NLL", "AUROC", "saliency", "uncertainty", "temperature"} <= set(words)
    short = re.findall(r"^\*\[(\w+)\]: .+$", (ROOT / "docs" / "abbreviations.txt").read_text("utf-8"), re.M)
    assert {word.removesuffix("s") for word in short} <= set(words)


def test_the_reference_has_every_public_name():
    shown = re.findall(r"^::: diffmiczoo\.(\w+)$", (API / "index.md").read_text("utf-8"), flags=re.MULTILINE)
    assert sorted(shown) == sorted(set(diffmiczoo.__all__) - {"__version__"})


def test_the_reference_has_a_page_for_every_room():
    text = "\n".join(page.read_text("utf-8") for page in API.glob("*.md"))
    shown = set(re.findall(r"^::: diffmiczoo\.(\w+)$", text, re.M))
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - {"__init__", "_version"} <= shown


def test_links_between_files_outside_the_site_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", ROOT / "SECURITY.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
