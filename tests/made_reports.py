"""Reports on predictions that are made up, and a reader of their pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from factories import animal_prediction, tiny_model

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.evaluation.dcg_report import PredictionsWithDcg
from diffmiczoo.evaluation.members import MemberLogits
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.report import ReportOptions, measure_report
from diffmiczoo.reporting.results import Report

CLASSES = ("cat", "dog", "eel")


@dataclass
class Page(HTMLParser):
    """What a page holds: tables by their caption, links, addresses, headings, texts."""

    text: str
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    headings: list[tuple[int, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    images: list[dict[str, str | None]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    scopes: list[tuple[str, str | None]] = field(default_factory=list)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._rows: list[list[str]] = []
        self._caption, self._into = "", ""
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.addresses += [found[name] or "" for name in ("href", "src", "xlink:href", "action") if name in found]
        if tag == "img":
            self.images.append(found)
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")
        if tag == "th":
            self.scopes.append((self._caption, found.get("scope")))
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append((int(tag[1]), ""))
        if tag in ("th", "td", "caption", "h1", "h2", "h3", "h4", "style", "title"):
            self._into = tag

    def handle_data(self, data: str) -> None:
        if self._into in ("th", "td"):
            self._rows[-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")
        elif self._into == "caption":
            self._caption += data
        elif self._into.startswith("h") and self.headings:
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if self._into != "style":
            self.words += data.replace("\N{NO-BREAK SPACE}", " ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._into:
            self._into = ""
        if tag == "table":
            assert self._caption not in self.tables, self._caption
            self.tables[self._caption] = self._rows

    def column(self, caption: str, heading: str) -> dict[str, str]:
        """First cell → cell of a column."""
        head, *rows = self.tables[caption]
        return {row[0]: row[head.index(heading)] for row in rows}


def scores_for(labels: Sequence[str], wrong: Sequence[int] = (), sure: float = 0.9) -> torch.Tensor:
    """Scores that give each label, but those in some rows the next one."""
    scores = torch.full((len(labels), len(CLASSES)), 0.05)
    for row, label in enumerate(labels):
        scores[row, (CLASSES.index(label) + (row in wrong)) % len(CLASSES)] = sure - 0.01 * row
    return scores


def model_of(config: DiffMICConfig) -> DiffMICv2:
    model = tiny_model(num_classes=config.num_classes, task=config.task, class_names=config.class_names)
    model.trained = True
    return model


def made(
    labels: Sequence[Sequence[str]],
    scores: torch.Tensor,
    *,
    groups: Sequence[str] | None = None,
    columns: dict[str, Sequence[str]] | None = None,
    config: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **prediction: Any,
) -> Report:
    """Returns the report on made-up predictions of pictures of noise."""
    fields = {"num_classes": 3, "class_names": CLASSES, "image_size": 64, "roi_size": 16, "num_rois": 2}
    own = DiffMICConfig(**{**fields, "temperature": 0.7, **(config or {})})
    found = animal_prediction(own, scores, model_name="made up", **prediction)
    records = []
    for row, name in enumerate(found.names):
        cells = {column: cells[row] for column, cells in (columns or {}).items()}
        group = None if groups is None else groups[row]
        source = found.items[row].source
        records.append(Record(Path(name), tuple(labels[row]), "test", group, source, name, cells))
    manifest = Manifest("zoo", tuple(records), own.labels, own.task)
    both = PredictionsWithDcg.of(manifest, found.probs, found.global_logits.softmax(1), own, 0)
    if own.task == "multilabel":
        both = PredictionsWithDcg.of(manifest, found.probs, found.global_logits.sigmoid(), own, 0)
    targets = torch.from_numpy(manifest.targets())
    members = MemberLogits(found.scores, found.members, targets, torch.zeros(len(records), 0))
    settings = ReportOptions(**{"bootstrap": 50, "pictures": 2, "progress": False, **(options or {})})
    return measure_report(model_of(own), manifest, settings, replace(both, members=members, prediction=found))
