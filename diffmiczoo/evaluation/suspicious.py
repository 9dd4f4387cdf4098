"""Labels that a model contradicts with confidence: what to look at again."""

from __future__ import annotations

import numpy as np

from diffmiczoo.data.classes import match_classes
from diffmiczoo.data.copies import shared_names
from diffmiczoo.data.finding import Opinion, SuspiciousLabel
from diffmiczoo.data.known_pictures import known_pictures
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.model import DiffMICv2

#: How many labels are listed.
_MOST = 1000


def opinion_of(
    model: DiffMICv2, manifest: Manifest, name: str, *, batch_size: int = 32, progress: bool | None = None
) -> Opinion:
    """Asks a model about the labels of images.

    A label is suspicious where the model's prediction is another one, with a probability at least as high as the model
    gives that label on average to the images that have it.

    Args:
        model: of the same task, with the classes of the images.
        manifest: images that can be read.
        name: of the model.
        batch_size: images computed at once.
        progress: show bars; by default where the standard error is a terminal.

    Raises:
        ValueError: the model has another task, or lacks a class of the images.

    Source: Northcutt, Jiang and Chuang, *Confident Learning*, JAIR 70 (2021).
    """
    config = model.config
    if manifest.task != config.task:
        raise InvalidValueError(f"{manifest.name} is {manifest.task}, the model {config.task}")
    matched = match_classes(manifest, config)
    items = [record.item() for record in matched.records]
    probs = model.predict(items, batch_size=batch_size, progress=progress).probs.double().numpy()
    known = known_pictures(model.training_pictures, matched, config, progress) if model.training_pictures else None
    find = _contradicted if config.task == "multiclass" else _contradicted_labels
    names = shared_names(matched.records)
    found = [
        SuspiciousLabel(
            names[row],
            matched.records[row].split or "all",
            given,
            predicted,
            float(of_given),
            float(of_predicted),
            None if known is None else bool(known[row]),
        )
        for row, given, predicted, (of_given, of_predicted) in find(probs, matched)
    ]
    found.sort(key=lambda label: label.prob_given - label.prob_predicted)
    return Opinion(name, len(matched), None if known is None else int(known.sum()), found[:_MOST])


_Rows = list[tuple[int, str, str, tuple[float, float]]]


def _contradicted(probs: np.ndarray, manifest: Manifest) -> _Rows:
    """Returns image, label, prediction and both probabilities of the images whose prediction is another class."""
    names, given, predicted = manifest.class_names, manifest.targets(), probs.argmax(1)
    least = np.array(
        [probs[given == place, place].mean() if (given == place).any() else 1 for place in range(len(names))]
    )
    rows = np.arange(len(probs))
    chosen = (predicted != given) & (probs[rows, predicted] >= least[predicted])
    return [
        (int(row), names[given[row]], names[predicted[row]], (probs[row, given[row]], probs[row, predicted[row]]))
        for row in np.flatnonzero(chosen)
    ]


def _contradicted_labels(probs: np.ndarray, manifest: Manifest) -> _Rows:
    """Does so for several labels: each is there or not."""
    found: _Rows = []
    for place, name in enumerate(manifest.class_names):
        has, prob = manifest.targets()[:, place] > 0, probs[:, place]
        for there, of_label, sides in ((has, prob, (name, f"no {name}")), (~has, 1 - prob, (f"no {name}", name))):
            others = 1 - of_label
            if there.any() and (~there).any():
                chosen = there & (others > 0.5) & (others >= others[~there].mean())
                found += [(int(row), *sides, (of_label[row], others[row])) for row in np.flatnonzero(chosen)]
    return found
