"""What `results.jsonl` holds, a line each: the budget, the splits, the finished runs, and costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.evaluation.results import LabelledPredictions

Row = TypeVar("Row", "SplitRecord", "RunRecord", "CostRecord")


@dataclass(frozen=True)
class Leaks:
    """How many test pictures have a relative among those that are trained on or that choose the epoch.

    Attributes:
        test: all test pictures.
        groups: of them, those with a picture of the same lesion, patient or the like there; None where the data have no
            groups.
        copies: those with a near copy there.
        either: those with one or the other, or with a relative of a relative.
    """

    test: int
    groups: int | None
    copies: int
    either: int


@dataclass(frozen=True)
class SplitRecord:
    """The pictures of a data set under a protocol, as all runs have them.

    Attributes:
        dataset: its name.
        stands_for: the data set of the paper that it is, or is in place of; "" for none.
        protocol: of `PROTOCOLS`.
        title: what was read, and in place of what.
        rule: how the splits were made.
        digest: of all pictures' names, labels, splits and groups.
        task: "multiclass" or "multilabel".
        ordinal: whether the classes are grades.
        class_names: C names.
        counts: split → number of pictures.
        leaks: counted.
        names, labels, groups: of the N test pictures.
        whole: the leaks of the same rule on all pictures, where only some are used; else None.
    """

    dataset: str
    stands_for: str
    protocol: str
    title: str
    rule: str
    digest: str
    task: str
    ordinal: bool
    class_names: tuple[str, ...]
    counts: dict[str, int]
    leaks: Leaks
    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    whole: Leaks | None = None

    def predictions(self, probs: list[list[float]]) -> LabelledPredictions:
        """Puts probabilities (N, C) beside the test pictures."""
        classes = {"num_classes": len(self.class_names), "class_names": self.class_names}
        config = DiffMICConfig(task=self.task, ordinal=self.ordinal, **classes)  # type: ignore[arg-type]
        return LabelledPredictions(
            self.names, self.labels, self.groups, torch.tensor(probs), config.labels, self.task, self.ordinal
        )  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        id, dataset, protocol, variant, model, seed: of the run.
        split: digest of its pictures.
        imagenet: whether the encoders started from ImageNet's weights.
        metrics: name → value on the test pictures; of a diffusion, of the sampler's own scores.
        pooled: the same of the prediction that the package gives, which adds the priors; empty where there is none.
        probs: (N, C) probabilities of the test pictures.
        curves: stage → a row for each epoch: epoch, loss, metric on validation pictures.
        select: that metric.
        parameters: of the model.
        epochs: stage → how many.
        seconds: of training and test.
        hardware, version, commit: of the machine and the package; commit "" where there is none.
        tested: directory of the weights that were tested, "best" or "last".
    """

    id: str
    dataset: str
    protocol: str
    variant: str
    model: str
    seed: int
    split: str
    imagenet: bool
    metrics: dict[str, float | None]
    pooled: dict[str, float | None]
    probs: list[list[float]]
    curves: dict[str, list[list[float | None]]]
    select: str
    parameters: int
    epochs: dict[str, int]
    seconds: float
    hardware: str
    version: str
    commit: str
    tested: str = "best"


@dataclass(frozen=True)
class CostRecord:
    """What a model costs.

    Attributes:
        key, title: of the row.
        model: its name.
        image_size: pixels.
        parameters: of the model.
        macs: stage → multiply-accumulates of one picture.
        steps: of the sampler; 0 where there is none.
        seconds: median of one picture's prediction, or None where it was not timed.
        repeats: of which that is the median.
        hardware, version, commit: as of a run.
    """

    key: str
    title: str
    model: str
    image_size: int
    parameters: int
    macs: dict[str, int]
    steps: int
    seconds: float | None
    repeats: int
    hardware: str
    version: str
    commit: str = field(default="")


def to_line(record: SplitRecord | RunRecord | CostRecord) -> dict[str, Any]:
    """Returns a record as JSON-ready values with its kind."""
    kind = {SplitRecord: "split", RunRecord: "run", CostRecord: "cost"}[type(record)]
    return {"kind": kind, **dataclasses.asdict(record)}


def from_line(cls: type[Row], line: dict[str, Any]) -> Row:
    """Builds a record from what `to_line` gave, read back from JSON."""
    optional = [each.name for each in dataclasses.fields(cls) if each.default is not dataclasses.MISSING]
    values = {each.name: line[each.name] for each in dataclasses.fields(cls) if each.name not in optional}
    values |= {name: line[name] for name in optional if name in line}
    if cls is SplitRecord:
        values["leaks"] = Leaks(**values["leaks"])
        values["whole"] = Leaks(**values["whole"]) if values.get("whole") else None
        values["labels"] = tuple(map(tuple, values["labels"]))
        values |= {name: tuple(values[name]) for name in ("class_names", "names", "groups")}
    return cls(**values)
