"""What a report on data is made of: copies, statistics that give labels away, suspicious labels, and findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: How bad a finding is: figures will be wrong, or somebody should look.
WRONG, LOOK = "wrong", "look at"

#: From this correlation on two pictures are one; two films of one patient reached 0.77.
_CERTAIN = 0.9


@dataclass(frozen=True)
class CopiedImages:
    """Two images that show the same picture, or more where their pixels are equal.

    Attributes:
        names: of the images, below the directory that all images share.
        splits: of each image.
        labels: of each image, several joined by " + ".
        how: "same pixels", or what has happened to the second one.
        groups: of each image; () where the images have none.
        correlation: of their textures, 1 where their pixels are equal.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    how: str
    groups: tuple[str, ...] = ()
    correlation: float = 1.0

    @property
    def across_splits(self) -> bool:
        """Whether they are in more than one split."""
        return len(set(self.splits)) > 1

    @property
    def contradicts(self) -> bool:
        """Whether they have different labels."""
        return len(set(self.labels)) > 1

    @property
    def certain(self) -> bool:
        """Whether they are the same picture beyond doubt, not perhaps another film of the same patient."""
        return self.correlation >= _CERTAIN

    @property
    def across_groups(self) -> bool:
        """Whether they are in more than one group."""
        return len(set(self.groups)) > 1

    def __str__(self) -> str:
        sides = [
            f"{name} ({label}, {split})"
            for name, label, split in zip(self.names, self.labels, self.splits, strict=True)
        ]
        return f"{' = '.join(sides[:4])}{' = …' * (len(sides) > 4)} ({self.how})"


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


#: From which AUROC on a statistic gives the label away, in words; the lowest is where a finding begins.
_STRENGTHS = ((0.95, "nearly by itself"), (0.85, "strongly"), (0.75, "clearly"), (0.65, "somewhat"))

#: Statistics that are also part of what is shown: a dark mole is dark.
_OF_CONTENT = ("colour or grey", "colour of the border", "mean grey", "contrast", "compression")

#: What the lower end of the interval has to be above for a finding, so that chance alone does not make one.
_LEAST_LOW = 0.55


@dataclass(frozen=True)
class GiveAway:
    """How well one statistic of the files and pixels tells the labels, without any look at what is shown.

    Attributes:
        statistic: such as "width of the border".
        auroc: label → cross-validated AUROC of that label against the rest; 0.5 is chance.
    """

    statistic: str
    auroc: dict[str, Interval]

    @property
    def told(self) -> dict[str, Interval]:
        """The labels that it gives away, the best told first."""
        found = {
            label: interval
            for label, interval in self.auroc.items()
            if interval.value >= _STRENGTHS[-1][0] and interval.low > _LEAST_LOW
        }
        return dict(sorted(found.items(), key=lambda each: -each[1].value))

    @property
    def strength(self) -> str:
        """How strongly, in words; the empty text where it gives nothing away."""
        best = next(iter(self.told.values()), None)
        return "" if best is None else next(words for least, words in _STRENGTHS if best.value >= least)

    @property
    def advice(self) -> str:
        """What it may mean."""
        if self.statistic in _OF_CONTENT:
            return "it may be part of what is shown, or of how pictures of one label were made"
        return "a model may learn it in place of what is shown"

    def __str__(self) -> str:
        label, interval = next(iter(self.told.items()))
        others = list(self.told)[1:]
        more = f", and {count_of(others, 'other label', 'other labels')}" if others else ""
        return f"the {self.statistic} tells {label} {self.strength} (AUROC {interval}, chance 0.5){more}"


@dataclass(frozen=True)
class SuspiciousLabel:
    """An image whose label a model contradicts with confidence.

    Attributes:
        name: of the image.
        split: of the image.
        given: its label; of several labels, the one in question with "no" before it where it is missing.
        predicted: what the model says instead.
        prob_given: the model's probability of `given`.
        prob_predicted: that of `predicted`.
        trained_on: whether the model was trained on it; None where that is not known.
    """

    name: str
    split: str
    given: str
    predicted: str
    prob_given: float
    prob_predicted: float
    trained_on: bool | None = None

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.split}): labelled {self.given} ({self.prob_given:.3f}), "
            f"predicted {self.predicted} ({self.prob_predicted:.3f})"
        )


@dataclass(frozen=True)
class Opinion:
    """What a model says about the labels.

    Attributes:
        model: its name.
        images: how many images it was asked about.
        trained_on: how many of them it was trained on; None where that is not known.
        labels: those that it contradicts, the most suspicious first.
    """

    model: str
    images: int
    trained_on: int | None
    labels: list[SuspiciousLabel]

    @property
    def caution(self) -> str:
        """What to keep in mind of what the model was trained on."""
        if self.trained_on is None:
            return f"it is not known whether {self.model} was trained on these images"
        if not self.trained_on:
            return f"{self.model} was trained on none of these images"
        return (
            f"{self.model} was trained on {self.trained_on:,} of these {self.images:,} images and may have learned "
            "wrong labels of theirs by heart"
        )


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that somebody should look at.

    Attributes:
        kind: such as "leak"; one of a few words that programs can rely on.
        severity: "wrong" or "look at".
        text: a sentence.
        count: how many groups, images or pairs.
        examples: all of them, a text each.
        copies: the pictures behind `examples`, where they are copies.
    """

    kind: str
    severity: str
    text: str
    count: int = 1
    examples: tuple[str, ...] = ()
    copies: tuple[CopiedImages, ...] = ()


def count_of(entries: Sequence[Any], one: str, several: str) -> str:
    """Returns "1 image has" or "12 images have"."""
    return f"1 {one}" if len(entries) == 1 else f"{len(entries):,} {several}"
