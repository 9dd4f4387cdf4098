"""`report`: one page about a model and labelled images, and the same numbers as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffmiczoo._version import __version__
from diffmiczoo.data.checks import find_copies
from diffmiczoo.data.classes import match_classes
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.subgroups import divide
from diffmiczoo.data.summary import reading_lines
from diffmiczoo.errors import DiffMICError, InvalidTypeError, InvalidValueError, MissingFileError
from diffmiczoo.evaluation.ablation import ablation_of, calibration_images
from diffmiczoo.evaluation.dcg_report import DcgReport, PredictionsWithDcg, predict_with_dcg
from diffmiczoo.evaluation.evaluate import evaluation_split
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.evaluation.robustness import robustness_of
from diffmiczoo.evaluation.subgroups import subgroup_table
from diffmiczoo.files import check_directory, read_json_object, write_text
from diffmiczoo.hub.card_facts import CARD_FILE
from diffmiczoo.hub.checksums import sha256_of
from diffmiczoo.hub.client import WEIGHTS_FILE
from diffmiczoo.hub.names import LOCAL_PREFIX
from diffmiczoo.hub.serialization import read_config, same_tensors
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.gradcam import check_method, explain
from diffmiczoo.reporting.history import run_of, training_curves
from diffmiczoo.reporting.measure import Measured
from diffmiczoo.reporting.page import page_of
from diffmiczoo.reporting.pictures import Explain, gallery
from diffmiczoo.reporting.results import Copies, DataFacts, Gallery, ModelFacts, Opponent, Report
from diffmiczoo.runtime.text import end_of_path
from diffmiczoo.training.trainer import HISTORY_FILE

#: Files of a report.
PAGE_FILE, JSON_FILE = "report.html", "report.json"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """How much a report holds; the fields mean what the arguments of `report` do.

    Attributes:
        val: validation images that the members of the pool are calibrated on; None for no table of members.
    """

    against: Mapping[str, DiffMICv2] = field(default_factory=dict)
    by: Sequence[str] = ()
    robustness: bool = False
    val: Manifest | None = None
    pictures: int = 12
    copies: bool = True
    explain: str | None = None
    run: Path | None = None
    batch_size: int = 32
    bootstrap: int = 1000
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name in ("pictures", "bootstrap"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidValueError(f"{name}={value!r} must be a whole number of at least 0")


def report(
    model: DiffMICv2,
    data: Any,
    output: str | os.PathLike[str],
    *,
    split: str | None = None,
    class_names: Any = None,
    against: Mapping[str, DiffMICv2] | None = None,
    by: str | Sequence[str] = (),
    robustness: bool = False,
    members: bool = False,
    pictures: int = 12,
    copies: bool = True,
    explain: str | None = None,
    run: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Report:
    """Writes one page about a model on labelled images, `report.html`, and its numbers as `report.json`.

    The page needs no other file and no network. It shows some of the pictures, so that it is to be kept as they are.

    Args:
        model: predicts with its own sampling steps, calibration and decision rule.
        data: anything that `fit` takes.
        output: the directory, made if need be.
        split: which images; by default "test" where the data have splits, else all.
        class_names: as for `evaluate`.
        against: name → another model, measured on the same images.
        by: a column of the data's table, or several, whose values are subgroups.
        robustness: measure also on corrupted pictures, which takes 25 predictions of each.
        members: measure also each prior and the sampler alone, calibrated on the split "val" of the data.
        pictures: how many are shown of the confident errors, and as many of the least sure ones; 0 shows none.
        copies: look for pictures that show the same, for which all are read once more.
        explain: what is drawn on the pictures instead of the saliency, a name of
            `diffmiczoo.reporting.gradcam.METHODS`.
        run: directory of the training run; by default the one that the weights lie in, where they lie in one.
        batch_size: images computed at once.
        bootstrap: resamples for the 95 % intervals, groups drawn whole; 0 for none.
        seed: of the resampling.
        progress: show bars; by default where the standard error is a terminal.

    Returns:
        What the page shows, as values.

    Raises:
        ValueError: as `evaluate` does, or a column or a count is wrong; the message tells which.
        ImageError: an image cannot be read.
        OSError: the directory cannot be written.
    """
    if run is not None and not (Path(run) / HISTORY_FILE).is_file():
        raise MissingFileError(f"run={os.fspath(run)!r} holds no {HISTORY_FILE}; give the directory of a training run")
    manifest = evaluation_split(model.config, data, split, class_names)
    options = ReportOptions(
        against=against or {},
        by=[by] if isinstance(by, str) else by,
        robustness=robustness,
        val=calibration_images(model.config, data, manifest, class_names) if members else None,
        pictures=pictures,
        copies=copies,
        explain=explain,
        run=None if run is None else Path(run),
        batch_size=batch_size,
        bootstrap=bootstrap,
        seed=seed,
        progress=progress,
    )
    return write_report(model, manifest, Path(output), options)


def write_report(model: DiffMICv2, manifest: Manifest, output: Path, options: ReportOptions) -> Report:
    """Does what `report` does with images that `evaluation_split` returned; raises as it does."""
    check_directory(output)
    found = replace(measure_report(model, manifest, options), output=output)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / PAGE_FILE, page_of(found))
    write_text(output / JSON_FILE, json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n")
    return found


def measure_report(
    model: DiffMICv2, manifest: Manifest, options: ReportOptions, predicted: PredictionsWithDcg | None = None
) -> Report:
    """Predicts images once with each model and returns all that the page shows; raises as `report` does.

    Args:
        model: what is measured.
        manifest: the images, with the model's classes.
        options: how much is measured.
        predicted: what the model says of them, where that is known already.
    """
    divisions = [
        divide(manifest, column) for column in options.by
    ]  # what is wrong is said before anything is predicted
    if options.explain is not None:
        check_method(model, options.explain)
    if not isinstance(options.against, Mapping):
        raise InvalidTypeError(f"against={options.against!r} must be name → model")
    for name, other in options.against.items():
        check_opponent(name, model, other)
    training = training_curves(options.run or run_of(model.loaded_from))
    progress, bootstrap = options.progress, options.bootstrap
    predicted = predicted or predict_with_dcg(model, manifest, options.batch_size, progress)
    measured = Measured.of(predicted, manifest, bootstrap, options.seed)
    quality = predicted.report(bootstrap, options.seed, progress)
    tables = tuple(subgroup_table(measured.labelled, each, bootstrap, options.seed, progress) for each in divisions)
    if options.val is not None:
        ablation = ablation_of(model, options.val, predicted, manifest, options.batch_size, bootstrap)
        quality = replace(quality, ablation=ablation)
    if options.robustness:
        corrupted = robustness_of(model, manifest, batch_size=options.batch_size, progress=progress)
        quality = replace(quality, robustness=corrupted)
    return Report(
        version=__version__,
        model=_model_facts(model, measured),
        data=_data_facts(manifest, quality),
        quality=replace(quality, subgroups=tables),
        against=tuple(_opponent(name, other, manifest, measured, options) for name, other in options.against.items()),
        classes=measured.classes(progress),
        confusion=measured.confusion(),
        reliability=measured.reliability(),
        risk=measured.risk(),
        limits=measured.limits(manifest),
        gallery=gallery(measured, options.pictures, _explained_by(model, options), progress)
        if options.pictures
        else Gallery(int(measured.wrong.sum())),
        copies=_copies(model, manifest, options),
        training=training,
    )


def _explained_by(model: DiffMICv2, options: ReportOptions) -> Explain | None:
    if (method := options.explain) is None:
        return None
    return lambda items, classes: explain(model, items, method, classes, progress=options.progress)


def check_opponent(name: str, model: DiffMICv2, other: DiffMICv2) -> None:
    """Raises ValueError for a model that cannot be measured on the same images."""
    mine, theirs = model.config, other.config
    if mine.task != theirs.task or set(mine.labels) != set(theirs.labels):
        raise InvalidValueError(
            f"against {name}: its classes are {list(theirs.labels)} ({theirs.task}), those of the model "
            f"{list(mine.labels)} ({mine.task}); compare models of the same classes"
        )


def _opponent(name: str, model: DiffMICv2, manifest: Manifest, measured: Measured, options: ReportOptions) -> Opponent:
    predicted = predict_with_dcg(model, match_classes(manifest, model.config), options.batch_size, options.progress)
    other = _in_order(predicted.model, measured.labelled.class_names)
    metrics = other.metrics(options.bootstrap, options.seed, options.progress)
    difference = {}
    if measured.resampling is not None:
        difference = measured.labelled.difference(other, options.bootstrap, options.seed, options.progress)
    return Opponent(shown_name(name), replace(metrics, num_trained_on=predicted.num_trained_on), difference)


def _in_order(found: LabelledPredictions, names: tuple[str, ...]) -> LabelledPredictions:
    """Returns predictions with their classes in another order."""
    places = [found.class_names.index(name) for name in names]
    rules = (found.thresholds, found.label_adjustment)
    thresholds, adjustment = (None if rule is None else tuple(rule[place] for place in places) for rule in rules)
    return replace(
        found, probs=found.probs[:, places], class_names=names, thresholds=thresholds, label_adjustment=adjustment
    )


def _copies(model: DiffMICv2, manifest: Manifest, options: ReportOptions) -> Copies:
    if not options.copies:
        return Copies("The pictures were not compared with each other.")
    found = find_copies(manifest, model.config, options.progress)
    conflicts = tuple(images for images in found if images.contradicts)
    # Two pictures of one patient may well look the same: what is drawn are whole groups.
    repeated = (images for images in found if not images.contradicts and (images.across_groups or not images.groups))
    return Copies("", tuple(repeated), conflicts)


def shown_name(name: str) -> str:
    """Returns a model's name, of a directory's path its end: where that is, is nobody's business."""
    own = name.removeprefix(LOCAL_PREFIX)
    return end_of_path(own) if Path(own).is_absolute() else name


def _model_facts(model: DiffMICv2, measured: Measured) -> ModelFacts:
    prediction, config = measured.prediction, model.config
    directory = model.loaded_from
    card = None if directory is None else directory / CARD_FILE
    said = read_json_object(card) if card is not None and card.is_file() else {}
    stated = said.get("limits", ())
    return ModelFacts(
        name=shown_name(prediction.model_name) or "a model without a name",
        predictor=config.predictor,
        task=config.task,
        class_names=config.labels,
        class_labels=dict(prediction.class_labels),
        input_size=config.input_size,
        steps=prediction.steps,
        num_samples=prediction.num_samples,
        tta=prediction.tta,
        calibrated=prediction.calibrated,
        trained=prediction.trained,
        weights_sha256=_sha256_of(model),
        license=str(said.get("license") or ""),
        data_license=str(said.get("data_license") or ""),
        intended_use=str(said.get("intended_use") or ""),
        stated_limits=tuple(map(str, stated if isinstance(stated, list | tuple) else [stated])),
    )


def _sha256_of(model: DiffMICv2) -> str:
    """Returns the hash of the file that a model was loaded from; "" where it is not there, or no longer the model's."""
    directory = model.loaded_from
    if directory is None or not (directory / WEIGHTS_FILE).is_file():
        return ""
    try:
        own = read_config(directory).calibration == model.config.calibration and same_tensors(model, directory)
    except (DiffMICError, OSError):
        return ""
    return sha256_of(directory / WEIGHTS_FILE) if own else ""


def _data_facts(manifest: Manifest, quality: DcgReport) -> DataFacts:
    splits = {record.split for record in manifest.records}
    return DataFacts(
        name=manifest.name,
        split=(splits.pop() or "") if len(splits) == 1 else "",
        num_images=len(manifest),
        num_groups=quality.model.num_groups,
        counts=manifest.counts,
        sha256=manifest.digest(),
        num_trained_on=quality.model.num_trained_on,
        notes=tuple(reading_lines(manifest)),
    )
