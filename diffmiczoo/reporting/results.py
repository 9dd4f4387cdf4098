"""`Report`: all that a page about a model and labelled images shows, as values; `page.py` draws them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffmiczoo.data.finding import CopiedImages
from diffmiczoo.evaluation.dcg_report import DcgReport
from diffmiczoo.evaluation.results import Difference
from diffmiczoo.metrics.curves import ClassCurves, Curve, ReliabilityBin
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.trust import TrustReport

#: Of `report.json`; a reader of a later format is told by another number.
FORMAT = 1


@dataclass(frozen=True)
class ModelFacts:
    """What was measured.

    Attributes:
        name: what people call the model.
        predictor: "diffusion", "dcg" or "classifier".
        task: "multiclass" or "multilabel".
        class_names: C names.
        class_labels: class → what it means in words, where that is known.
        input_size: side of the square that it sees, in pixels.
        steps, num_samples, tta: of the sampler, and the views that are averaged.
        calibrated: whether the probabilities were fitted on validation images.
        trained: whether the weights come from training.
        weights_sha256: of the file of weights; "" where they come from none.
        license, data_license: of the weights and of what they were trained on; "" where nobody says.
        intended_use: what its makers say it is for; "" where they do not.
        stated_limits: what they say it is not good for, a sentence each.
    """

    name: str
    predictor: str
    task: str
    class_names: tuple[str, ...]
    class_labels: dict[str, str]
    input_size: int
    steps: int
    num_samples: int
    tta: str
    calibrated: bool
    trained: bool
    weights_sha256: str = ""
    license: str = ""
    data_license: str = ""
    intended_use: str = ""
    stated_limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """What it was measured on.

    Attributes:
        name: of the data set.
        split: "train", "val" or "test"; "" for all images.
        num_images: N.
        num_groups: patients, lesions or the like; None where the images have none.
        counts: class → images that show it.
        sha256: of names, labels, splits and groups, see `Manifest.digest`.
        num_trained_on: images that the weights were trained on; None where that is not known.
        notes: what was decided, and left out, when they were read.
    """

    name: str
    split: str
    num_images: int
    num_groups: int | None
    counts: dict[str, int]
    sha256: str
    num_trained_on: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opponent:
    """Another model on the same images.

    Attributes:
        name: of the model.
        metrics: its own.
        difference: metric → (reported model - this one, and its 95 % interval low and high); empty without resamples.
        num_trained_on: images that it was trained on; None where that is not known.
    """

    name: str
    metrics: Metrics
    difference: dict[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class SetSizes:
    """How many classes cannot be ruled out.

    Attributes:
        alpha: level of the sets.
        sizes: number of classes → images with as many in their set.
        note: on classes that are in every set for want of calibration pictures; "" for none.
    """

    alpha: float
    sizes: dict[int, int]
    note: str = ""


@dataclass(frozen=True)
class Distances:
    """How far the images are from the training pictures.

    Attributes:
        edges: of the bins, in multiples of the limit; the last bin holds all beyond it too.
        right, wrong: images of each bin that are predicted rightly and wrongly.
        flagged: images beyond the limit.
        names: of the farthest of these.
    """

    edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    flagged: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What the weights know about their limits, and how that holds here.

    Attributes:
        missing: why there is nothing, a sentence; "" where there is.
        report: as measured on the images.
        sets: None without prediction sets.
        distances: None without a gate.
    """

    missing: str
    report: TrustReport | None = None
    sets: SetSizes | None = None
    distances: Distances | None = None


@dataclass(frozen=True)
class Shown:
    """A picture on the page.

    Attributes:
        row: place among the images.
        name: of the file.
        truth, predicted: labels.
        top: the most probable classes and their probabilities.
        confidence: of the most confident wrong statement; of the prediction where all is right.
        uncertainty: in [0, 1].
        ood_score: above 1 unlike the training pictures; None where nobody knows.
        possible: classes that cannot be ruled out at the level .1; () where nobody knows.
        looked_for: the class whose saliency is drawn.
        rois: (left, top, right, bottom) of each ROI in pixels of the picture; () where its size is not known.
        roi_attention: of each ROI, in [0, 1].
        drawn, marked: JPEGs of the picture and of the marked one; b"" where it could not be read again.
    """

    row: int
    name: str
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    top: tuple[tuple[str, float], ...]
    confidence: float
    uncertainty: float
    ood_score: float | None
    possible: tuple[str, ...]
    looked_for: str
    rois: tuple[tuple[float, ...], ...] = ()
    roi_attention: tuple[float, ...] = ()
    drawn: bytes = b""
    marked: bytes = b""


@dataclass(frozen=True)
class Gallery:
    """Pictures to look at.

    Attributes:
        wrong: images whose labels are not exactly the true ones.
        errors: those that the model was surest of.
        uncertain: the ones that it was least sure of, without those above.
        map_title: what is drawn on them: the saliency, or another explanation.
    """

    wrong: int
    errors: tuple[Shown, ...] = ()
    uncertain: tuple[Shown, ...] = ()
    map_title: str = "saliency"


@dataclass(frozen=True)
class Copies:
    """Pictures that show the same.

    Attributes:
        missing: why nothing was compared, a sentence; "" where it was.
        repeated: images of the same labels and in different groups, if there are any, that show the same.
        conflicts: images that show the same and have different labels.
    """

    missing: str = ""
    repeated: tuple[CopiedImages, ...] = ()
    conflicts: tuple[CopiedImages, ...] = ()


@dataclass(frozen=True)
class StageCurves:
    """A stage of a training run, a value per epoch.

    Attributes:
        epochs: their numbers.
        loss: on training images.
        metric: name of what was measured on validation images.
        values: of it; NaN where it was not measured.
        best: the epoch that was kept; None for none.
    """

    epochs: tuple[int, ...]
    loss: tuple[float, ...]
    metric: str
    values: tuple[float, ...]
    best: int | None


@dataclass(frozen=True)
class Training:
    """How the weights came about.

    Attributes:
        stages: name → the curves of a stage.
    """

    stages: dict[str, StageCurves]


@dataclass(frozen=True, eq=False)
class Report:
    """A model on labelled images; `report` writes it as a page and as JSON.

    Attributes:
        version: of this package.
        model, data: what was measured on what.
        quality: metrics beside the DCG's, with ablation, subgroups and robustness where these were asked for.
        against: other models on the same images.
        classes: each class against the others.
        confusion: (C, C) images of each true class (row) that were given each class (column); None for "multilabel".
        reliability: how often statements of about the same probability were right.
        risk: share of errors among the surest images.
        limits: what the weights know about their limits.
        gallery: pictures to look at.
        copies: pictures that show the same.
        training: None where the run is not known.
        output: the directory that it was written to; None for none.
    """

    version: str
    model: ModelFacts
    data: DataFacts
    quality: DcgReport
    against: tuple[Opponent, ...]
    classes: tuple[ClassCurves, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    reliability: tuple[ReliabilityBin, ...]
    risk: Curve
    limits: Limits
    gallery: Gallery
    copies: Copies
    training: Training | None = None
    output: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values, as `report.json` holds them: the numbers of the page, without its pictures."""
        parts: dict[str, Any] = {
            each.name: plain(getattr(self, each.name)) for each in dataclasses.fields(self) if each.name != "output"
        }
        return {"format": FORMAT, **parts}


def plain(value: Any) -> Any:
    """Returns values as JSON takes them: dataclasses as objects, NaN as None, and no bytes."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if dataclasses.is_dataclass(value):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {name: plain(each) for name, each in fields.items() if not isinstance(each, bytes)}
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
