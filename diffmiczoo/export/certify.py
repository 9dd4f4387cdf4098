"""The proof: an exported file's answers beside `predict`'s, on the same pictures, in batches of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.export.formats import Answers
from diffmiczoo.export.graph import GraphSettings
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.inference.certificate import TOLERANCES, Comparison
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.views import views_of
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.dcg import roi_ties
from diffmiczoo.runtime.modes import frozen

#: In which the file is run: one, the smallest that is more, and one that no power of two divides.
BATCH_SIZES = (1, 2, 7)

#: How near to 1 the score of the gate may be for float32 to decide otherwise than float64.
GATE_TIE = 1e-3

#: By how much a label has to lead for it to be no matter of rounding, in every precision: a file in int8 that gives
#: other labels shall not call them ties.
_LABEL_TIE = TOLERANCES["fp32"]

_COMPARED = ("probs", "scores", "uncertainty", "attention", "saliency", "ood_score", "spread")


@dataclass(frozen=True, eq=False)
class Expected:
    """What the model says of N pictures.

    Attributes:
        outputs: name of an output → its values, of all that a `Prediction` has.
        roi_ties: (N,) whether windows tie within rounding.
        label_margin: (N,) by how much the label was decided, in probability.
        set_margin: (N, A, C) how far probabilities are from the limits of the sets; None without sets.
        unsure: from which uncertainty on a picture is deferred; None for no such output.
    """

    outputs: dict[str, np.ndarray]
    roi_ties: np.ndarray
    label_margin: np.ndarray
    set_margin: np.ndarray | None
    unsure: float | None


def expected(model: DiffMICv2, squares: np.ndarray, graph: GraphSettings, defer_error: float | None = None) -> Expected:
    """Predicts squares (N, S, S, 3) uint8 with the model."""
    prediction = model.predict(
        list(squares), graph.steps, num_samples=graph.num_samples, defer_error=defer_error, progress=False
    )
    probs = prediction.probs.numpy()
    outputs = {
        "probs": probs,
        "labels": prediction._reached().numpy(),
        "scores": prediction.scores.numpy(),
        "uncertainty": prediction.uncertainty.numpy(),
        "rois": prediction.rois.numpy().astype(np.int64),
        "attention": prediction.roi_attention.numpy(),
        "saliency": prediction.saliency.numpy(),
    }
    if prediction.spread is not None:
        outputs["spread"] = prediction.spread.numpy()
    set_margin = None
    if graph.sets is not None:
        lowest = np.array([[low or 0.0 for low in rule.by_class] for rule in graph.sets.rules])
        set_margin = np.abs(probs[:, None].astype(np.float64) - lowest)
        inside = [graph.sets.contains(probs, rule.alpha) for rule in graph.sets.rules]
        outputs["sets"] = np.stack(inside, axis=1) | outputs["labels"][:, None]
    if prediction.ood_score is not None and prediction.in_distribution is not None:
        outputs["ood_score"] = prediction.ood_score.numpy()
        outputs["in_distribution"] = prediction.in_distribution.numpy()
    if prediction.deferred is not None:
        outputs["deferred"] = prediction.deferred.numpy()
    return Expected(outputs, _roi_ties(model, squares), label_margin(prediction), set_margin, graph.unsure)


def _roi_ties(model: DiffMICv2, squares: np.ndarray, batch: int = 32) -> np.ndarray:
    """Returns for which pictures a choice of ROIs is a tie, in any of the views that are averaged."""
    config, found = model.config, []
    with frozen(model):
        for start in range(0, len(squares), batch):
            pixels = torch.from_numpy(squares[start : start + batch]).permute(0, 3, 1, 2)
            images = normalize(pixels, config).to(model.default_noise)
            ties = torch.zeros(len(images), dtype=torch.bool)
            for view in views_of(images, config.tta):
                priors = model.dcg(view, config, batch_invariant=True)
                ties |= roi_ties(priors.saliency.float(), priors.global_prior, config).cpu()
            found.append(ties)
    return torch.cat(found).numpy()


def label_margin(prediction: Prediction) -> np.ndarray:
    """Returns by how much probabilities may differ before a label may: half the lead of the best class, or the least
    distance of a label from its threshold, (N,)."""
    config, probs = prediction.config, prediction.probs.double()
    if config.task == "multilabel":
        distance = (probs - torch.tensor(config.thresholds or [0.5], dtype=torch.float64)).abs()
        return distance.amin(1).numpy()
    factors = torch.ones(config.num_classes, dtype=torch.float64)
    if config.label_adjustment:
        factors = torch.tensor(config.label_adjustment, dtype=torch.float64).exp()
    ranked: Tensor = probs * factors
    first, second = ranked.topk(2, dim=1).values.unbind(1)
    return ((first - second) / (2 * factors.max())).numpy()


def run_in_batches(answers: Answers, squares: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Returns what a file answers for all squares, so many at once."""
    found = [answers(squares[start : start + size]) for start in range(0, len(squares), size)]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def compare(known: Expected, found: Sequence[Mapping[str, np.ndarray]], tolerance: float) -> Comparison:
    """Compares answers of a file, one mapping per batch size, with the model's.

    Args:
        known: of the model.
        found: of the file: name of an output → its values for the same pictures.
        tolerance: the largest difference of a probability that is allowed.
    """
    outputs, each_rois = known.outputs, [_differ(each["rois"], known.outputs["rois"]) for each in found]
    other_rois = np.any(each_rois, axis=0)
    split = other_rois & known.roi_ties
    rest = ~split
    differences = {
        name: max((_largest(each[name][rest], outputs[name][rest]) for each in found), default=0.0)
        for name in _COMPARED
        if name in outputs
    }
    other_labels = np.any([_differ(each["labels"], outputs["labels"]) for each in found], axis=0)
    tied = (known.label_margin <= _LABEL_TIE) | split
    others = [_others(known, each, tolerance, rest) for each in found]
    return Comparison(
        differences=differences,
        labels_differ=int((other_labels & ~tied).sum()),
        label_ties=int((known.label_margin <= _LABEL_TIE).sum()),
        label_ties_differ=int((other_labels & tied).sum()),
        others_differ=sum(far for far, _ in others),
        other_ties_differ=sum(near for _, near in others),
        rois_differ=int((other_rois & ~known.roi_ties).sum()),
        roi_ties=int(known.roi_ties.sum()),
        roi_ties_split=int(split.sum()),
        split_difference=max((_largest(each["probs"][split], outputs["probs"][split]) for each in found), default=0.0),
    )


def _others(known: Expected, found: Mapping[str, np.ndarray], tolerance: float, rest: np.ndarray) -> tuple[int, int]:
    """Counts entries of sets, of the gate's word and of deferral that differ: those that are no ties, and ties."""
    outputs, ties = known.outputs, {}
    decided = known.label_margin > _LABEL_TIE
    if known.set_margin is not None:
        # A label is in every set: where it ties, so does its entry.
        ties["sets"] = (known.set_margin <= tolerance) | ~decided[:, None, None]
    near_gate = np.zeros(len(rest), bool)
    if "in_distribution" in outputs:
        near_gate = np.abs(outputs["ood_score"] - 1) <= max(GATE_TIE, tolerance)
        ties["in_distribution"] = near_gate
    if known.unsure is not None:
        ties["deferred"] = near_gate | (np.abs(outputs["uncertainty"] - known.unsure) <= 2 * tolerance)
    wrong = {name: (found[name] != outputs[name])[rest] for name in ties if name in outputs}
    near = sum(int((each & ties[name][rest]).sum()) for name, each in wrong.items())
    return sum(int(each.sum()) for each in wrong.values()) - near, near


def _differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns for which pictures two arrays differ anywhere, (N,)."""
    different: np.ndarray = (one != other).reshape(len(one), -1).any(1)
    return different


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return float("inf")
    difference = np.abs(one.astype(np.float64) - other)
    # A number that is none is no small difference.
    return float(np.nan_to_num(difference, nan=np.inf).max()) if difference.size else 0.0
