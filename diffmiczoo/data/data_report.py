"""`DataReport`: what is wrong or odd about labelled images, as fields, as sentences and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffmiczoo.data.finding import LOOK, WRONG, CopiedImages, Finding, GiveAway, Opinion, count_of
from diffmiczoo.data.summary import printable
from diffmiczoo.files import write_text

#: The most examples that are shown of a finding; the fields of the report hold all.
SHOWN = 5

#: How many times as many images the largest class may have as the smallest, and how few images are few.
_UNEVEN, _FEW = 20, 10


@dataclass(frozen=True)
class DataReport:
    """What `check_data` and `audit` found.

    Attributes:
        counts: split → class → images.
        without_images: split → classes that no image of it shows.
        leaks: "train and val" → groups with images in both.
        duplicates: images in different splits that show the same picture.
        contradictions: images with different labels that show the same picture.
        unreadable: messages about images that cannot be read.
        made: a sentence on splits that were made; the empty text where they were given.
        task: of the data.
        name: of the data.
        alike: images of one split with the same labels that show the same picture; `check_data` does not look for them.
        blank: images that show nothing, all of one grey.
        empty_folders: folders beside those of classes that hold no image.
        give_aways: statistics of files and pixels, and how well each tells the labels.
        opinion: what a model says about the labels; None where none was asked.
        notes: how the data were read, and what was left out, a sentence each.
    """

    counts: dict[str, dict[str, int]]
    without_images: dict[str, list[str]]
    leaks: dict[str, list[str]]
    duplicates: list[CopiedImages]
    contradictions: list[CopiedImages]
    unreadable: list[str] = field(default_factory=list)
    made: str = ""
    task: str = "multiclass"
    name: str = ""
    alike: list[CopiedImages] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)
    give_aways: list[GiveAway] = field(default_factory=list)
    opinion: Opinion | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def _classes(self) -> list[str]:
        return list(next(iter(self.counts.values())))

    @property
    def findings(self) -> list[Finding]:
        """Everything that was found, what is wrong first."""
        every = [
            *self._unreadable(),
            *self._missing_classes(),
            *self._torn_groups(),
            *self._copies_across_splits(),
            *self._contradictions(),
            *self._alike(),
            *self._blank(),
            *self._uneven(),
            *self._given_away(),
            *self._suspicious(),
        ]
        return sorted(every, key=lambda finding: finding.severity != WRONG)

    @property
    def wrong(self) -> bool:
        """Whether anything is wrong, not only worth a look."""
        return any(finding.severity == WRONG for finding in self.findings)

    @property
    def problems(self) -> list[str]:
        """Sentences about what makes training wrong."""
        return [finding.text for finding in self.findings if self._stops(finding)]

    @property
    def warnings(self) -> list[str]:
        """Sentences about what makes results better or worse than they look."""
        ignored = ("imbalance", "give-away", "suspicious label")
        return [each.text for each in self.findings if not self._stops(each) and each.kind not in ignored]

    def _stops(self, finding: Finding) -> bool:
        return finding.kind == "class without training images" and self.task != "multilabel"

    def _unreadable(self) -> Iterator[Finding]:
        if self.unreadable:
            yield Finding(
                "unreadable",
                WRONG,
                f"{count_of(self.unreadable, 'image', 'images')} cannot be read, first {self.unreadable[0]}",
                len(self.unreadable),
                tuple(self.unreadable),
            )

    def _missing_classes(self) -> Iterator[Finding]:
        absent = set.intersection(*({*self.without_images.get(split, ())} for split in self.counts))
        names = [] if "train" in self.counts else [name for name in self._classes if name in absent]
        if empty := [*names, *self.empty_folders]:
            yield Finding("class without images", WRONG, f"no image shows {', '.join(empty)}", len(empty), tuple(empty))
        missing = self.without_images.get("train", [])
        if missing:
            why = (
                "the model will not learn to give that label"
                if self.task == "multilabel"
                else "a class cannot be learned without one"
            )
            mark = ":" if self.task == "multilabel" else ";"
            text = f"no training image shows {', '.join(missing)}{mark} {why}"
            yield Finding("class without training images", WRONG, text, len(missing), tuple(missing))
        for split, word in (("val", "validation"), ("test", "test")):
            unmeasured = [name for name in self.without_images.get(split, []) if name not in absent]
            if unmeasured:
                text = f"no {word} image shows {', '.join(unmeasured)}: how well they are found is not measured"
                yield Finding("class not measured", LOOK, text, len(unmeasured), tuple(unmeasured))

    def _torn_groups(self) -> Iterator[Finding]:
        for pair, groups in self.leaks.items():
            text = (
                f"{count_of(groups, 'group has', 'groups have')} images in {pair}, first {groups[0]}: results on the "
                "second will look better than they are"
            )
            yield Finding("group in two splits", WRONG, text, len(groups), tuple(groups))

    def _copies_across_splits(self) -> Iterator[Finding]:
        pairs: dict[str, list[CopiedImages]] = {}
        for copied in self.duplicates:
            pairs.setdefault(" and ".join(name for name in self.counts if name in copied.splits), []).append(copied)
        for pair, copies in pairs.items():
            text = (
                f"{count_of(copies, 'image is', 'images are')} in more than one split ({pair}), first {copies[0]}: "
                "results will look better than they are"
            )
            yield _of_copies("leak", WRONG, text, copies)

    def _contradictions(self) -> Iterator[Finding]:
        for certain, kind, severity, who in (
            (True, "conflict", WRONG, ("image occurs", "images occur")),
            (False, "likely conflict", LOOK, ("image is like another one", "images are like others")),
        ):
            if copies := [copied for copied in self.contradictions if copied.certain == certain]:
                yield _of_copies(
                    kind, severity, f"{count_of(copies, *who)} with different labels, first {copies[0]}", copies
                )

    def _alike(self) -> Iterator[Finding]:
        if copies := self.alike:
            torn = [copied for copied in copies if copied.across_groups]
            advice = f"; {len(torn):,} of them in different groups, first {torn[0]}" if torn else ""
            if not copies[0].groups:
                advice = "; a column group keeps them together when splits are made"
            occur = count_of(copies, "image occurs", "images occur")
            text = f"{occur} more than once or nearly so, first {copies[0]}{advice}"
            yield _of_copies("copy", LOOK, text, [*torn, *(copied for copied in copies if not copied.across_groups)])

    def _blank(self) -> Iterator[Finding]:
        if self.blank:
            shown = count_of(self.blank, "image shows", "images show")
            text = f"{shown} nothing, all of one grey, first {self.blank[0]}"
            yield Finding("blank", LOOK, text, len(self.blank), tuple(self.blank))

    def _uneven(self) -> Iterator[Finding]:
        total = {name: sum(classes[name] for classes in self.counts.values()) for name in self._classes}
        shown = {name: count for name, count in total.items() if count}
        if len(shown) < 2:
            return
        (most, many), (least, few) = (choose(shown.items(), key=lambda each: each[1]) for choose in (max, min))
        if many >= _UNEVEN * few or few < _FEW <= many // 3:
            text = (
                f"{least} has {few:,} and {most} {many:,}: accuracy says little about "
                f"{least}, look at balanced accuracy and at the intervals"
            )
            yield Finding("imbalance", LOOK, text, 1, (f"{least} {few:,}", f"{most} {many:,}"))

    def _given_away(self) -> Iterator[Finding]:
        for given in self.give_aways:
            if given.told:
                examples = tuple(f"{label}: AUROC {interval}" for label, interval in given.told.items())
                text = f"{given}; {given.advice}"
                yield Finding("give-away", LOOK, text, len(given.told), examples)

    def _suspicious(self) -> Iterator[Finding]:
        if self.opinion is not None and (labels := self.opinion.labels):
            text = (
                f"{self.opinion.model} contradicts {count_of(labels, 'label', 'labels')} with confidence, first "
                f"{labels[0]}; {self.opinion.caution}"
            )
            yield Finding("suspicious label", LOOK, text, len(labels), tuple(map(str, labels)))

    def __str__(self) -> str:
        lines = []
        for severity in (WRONG, LOOK):
            found = [finding for finding in self.findings if finding.severity == severity]
            for place, finding in enumerate(found):
                lines += [*([severity] if not place else []), f"  {finding.text}"]
                lines += [f"    {example}" for example in finding.examples[1:SHOWN] if finding.count > 1]
                if finding.count > SHOWN:
                    lines.append(f"    … and {finding.count - SHOWN:,} more")
        return "\n".join(map(printable, lines)) or "nothing found"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and the sentences as JSON-ready values."""
        findings = [_without_copies(finding) for finding in self.findings]
        found = {"wrong": self.wrong, "findings": findings, "problems": self.problems, "warnings": self.warnings}
        return {**dataclasses.asdict(self), **found}

    def save(self, path: Path) -> None:
        """Writes the report as JSON.

        Raises:
            OSError: the directory cannot be written, or the disk is full.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"
        # A byte of a file name that is not UTF-8 becomes what JSON writes for it, "\\udcff", not the byte itself.
        write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _of_copies(kind: str, severity: str, text: str, copies: Sequence[CopiedImages]) -> Finding:
    return Finding(kind, severity, text, len(copies), tuple(map(str, copies)), tuple(copies))


def _without_copies(finding: Finding) -> dict[str, Any]:
    """Returns a finding for JSON; its copies are in the report's own fields."""
    return {"kind": finding.kind, "severity": finding.severity, "text": finding.text, "count": finding.count}
