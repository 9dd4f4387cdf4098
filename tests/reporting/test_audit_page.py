"""The page of an audit shows what was found, and takes names of files and classes for text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from factories import save_picture

from diffmiczoo.data.data_report import DataReport
from diffmiczoo.data.finding import Interval, Opinion, SuspiciousLabel
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.evaluation.audit import audit, audited
from diffmiczoo.reporting.audit_page import _KINDS, audit_page, write_audit

HOSTILE = "<script>alert(1)<\\script> & \"'.png"
VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """Collects tags, attributes and text; fails where tags are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number in range(6):
        (folder / "ab<i>"[: 1 + 4 * (number % 2)]).mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (30, 20, 3), dtype=np.uint8)
        save_picture(folder / "ab<i>"[: 1 + 4 * (number % 2)] / f"{number}.png", pixels)
    (folder / "a" / HOSTILE).write_bytes((folder / "ab<i>" / "1.png").read_bytes())
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def test_the_page_shows_pairs_and_escapes_names(data, tmp_path) -> None:
    manifest = audited(data)
    write_audit(audit(manifest, progress=False), manifest, tmp_path / "new" / "out")
    page = (tmp_path / "new" / "out" / "audit.html").read_text(encoding="utf-8")
    outline = Outline(page)
    assert "script" not in outline.tags and "i" not in outline.tags and HOSTILE in outline.text
    assert outline.tags.count("img") == 2 and outline.tags.count("article") == 1
    assert all(source.startswith(("#", "data:image/jpeg;base64,")) for source in outline.sources)
    assert not re.search(r"https?://", page)
    for part in (
        "Is anything wrong?",
        "Files that cannot be read",
        "The same picture with different labels",
        "same pixels",
    ):
        assert part in outline.text
    assert (tmp_path / "new" / "out" / "audit.json").is_file()


def test_every_kind_of_finding_has_words() -> None:
    report = DataReport(
        {"train": {"a": 400, "b": 0}, "val": {"a": 9, "b": 9}, "test": {"a": 1, "b": 0}},
        {"train": ["b"], "test": ["b"]},
        {"train and val": ["g"]},
        [],
        [],
        unreadable=["x.png: is empty"],
        blank=["y.png"],
        empty_folders=["c"],
        opinion=Opinion("m", 3, 0, [SuspiciousLabel("gone.png", "all", "a", "b", 0.1, 0.9)]),
    )
    manifest = Manifest("set", (Record(Path("gone.png"), ("a",)),), ("a", "b"), "multiclass")
    text = Outline(audit_page(report, manifest)).text
    kinds = {finding.kind for finding in report.findings}
    assert kinds == set(_KINDS) - {"leak", "conflict", "likely conflict", "copy", "give-away"} and all(
        _KINDS[kind][0] in text for kind in kinds
    )
    assert "This picture could not be read again." in text and "m was trained on none of these images" in text
    assert str(Interval(0.5, 0.4, 0.6)) == "0.50 [0.40, 0.60]"
