"""`robustness`: what a model reaches on pictures that went wrong as they do in a clinic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.evaluation.evaluate import evaluation_split
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.images.corruptions import CORRUPTIONS, SEVERITIES, check_names, corrupted
from diffmiczoo.images.items import Item
from diffmiczoo.inference.limits import SHOWN_ALPHA
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.metrics.robustness import CLEAN, COLUMNS, Robustness, RobustnessRow
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.progress import progress_bar


def robustness(
    model: DiffMICv2,
    data: Any,
    *,
    split: str | None = None,
    class_names: Any = None,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    batch_size: int = 32,
    seed: int = 0,
    progress: bool | None = None,
) -> Robustness:
    """Measures a model on labelled pictures as they are, and with each corruption at each severity.

    Pictures are corrupted as they are read, before they are made the model's square. This takes 1 + 3 · corruptions
    predictions of each picture, 25 for all of them.

    Args:
        model: predicts with its own sampling steps, calibration and decision rule.
        data: anything that `fit` takes.
        split: as for `evaluate`.
        class_names: as for `evaluate`.
        corruptions: names of `diffmiczoo.images.corruptions.CORRUPTIONS`.
        batch_size: images computed at once.
        seed: of what is random in corruptions; the same one gives the same pictures.
        progress: show a bar; by default where the standard error is a terminal.

    Raises:
        ValueError: as `evaluate` does, or a corruption is not known.
        ImageError: an image cannot be read.
    """
    manifest = evaluation_split(model.config, data, split, class_names)
    return robustness_of(model, manifest, corruptions, batch_size, seed, progress)


def robustness_of(
    model: DiffMICv2,
    manifest: Manifest,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    batch_size: int = 32,
    seed: int = 0,
    progress: bool | None = None,
) -> Robustness:
    """Does what `robustness` does with pictures that `evaluation_split` returned."""
    names = list(dict.fromkeys(corruptions))
    check_names(names)
    if not names:
        raise InvalidValueError(f"there are no corruptions; known are {', '.join(CORRUPTIONS)}")
    items = [record.item() for record in manifest.records]
    states = [(name, severity) for name in names for severity in SEVERITIES]
    rows = []
    with progress_bar(len(items) * (1 + len(states)), "robustness", "img", progress) as bar:

        def measured(corruption: str, severity: int, pictures: list[Item]) -> RobustnessRow:
            bar.set_postfix_str(f"{corruption} {severity or ''}".rstrip())
            row = _row(corruption, severity, model.predict(pictures, batch_size=batch_size, progress=False), manifest)
            bar.update(len(pictures))
            return row

        clean = measured(CLEAN, 0, items)
        for name, severity in states:
            rows.append(measured(name, severity, [corrupted(item, name, severity, seed) for item in items]))
    return Robustness(len(items), SHOWN_ALPHA, clean, tuple(rows))


def _row(corruption: str, severity: int, prediction: Prediction, manifest: Manifest) -> RobustnessRow:
    config = prediction.config
    found = LabelledPredictions.of(manifest, prediction.probs, config).metrics(bootstrap=0)
    values = {name: found.values[name] for name in COLUMNS[config.task]}
    inside = prediction.in_distribution
    flagged = None if inside is None else 1 - float(inside.float().mean())
    sets = prediction.shown_sets
    if sets is None:
        return RobustnessRow(corruption, severity, values, flagged=flagged)
    size = sum(map(len, sets)) / len(sets)
    return RobustnessRow(corruption, severity, values, _coverage(sets, manifest), size, flagged)


def _coverage(sets: list[list[str]], manifest: Manifest) -> float | None:
    """Returns the share of the true labels in the sets, a mean over the pictures that have any; None without any."""
    pairs = [(record.labels, own) for record, own in zip(manifest.records, sets, strict=True) if record.labels]
    shares = [sum(label in own for label in labels) / len(labels) for labels, own in pairs]
    return sum(shares) / len(shares) if shares else None
