"""One run: train, take the epoch that validation chooses, test once, and say what came of it."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffmiczoo._version import __version__
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.files import read_json_object, write_text
from diffmiczoo.inference.probabilities import scores_to_probs
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.reproduction.records import RunRecord, SplitRecord
from diffmiczoo.reporting.reproduction.variants import Run
from diffmiczoo.training.callbacks import Callback
from diffmiczoo.training.fit import TrainingResult, fit
from diffmiczoo.training.prepare import Prepared, prepare
from diffmiczoo.training.presets import PAPER, PAPER_CHEST
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.zoo.factory import create_model

#: What a run's `base` stands for; None for the preset of model and data.
BASES: dict[str, Recipe | None] = {"preset": None, "paper": PAPER, "paper_chest": PAPER_CHEST}

#: The paper's DCG learns both streams at once.
AS_PUBLISHED = {"encoder_start": "given"}

#: Digits of the probabilities that are stored.
_DIGITS = 5

#: What only a run that goes on needs.
_NOT_KEPT = ("checkpoint.pt", "cache")


@dataclass(frozen=True)
class Job:
    """All that a process needs for a run.

    Attributes:
        run: the training.
        split: of its pictures, as recorded.
        manifest: of its pictures, with their splits.
        directory: of the run's files.
        device: where it is trained.
        threads: of the processor, None for torch's own.
        progress: show bars.
    """

    run: Run
    split: SplitRecord
    manifest: Manifest
    directory: Path
    device: str = "cpu"
    threads: int | None = None
    progress: bool | None = False


class Stopwatch(Callback):
    """Adds up the seconds of a run over all its starts.

    Args:
        path: of a file in the run's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = float(read_json_object(path)["seconds"]) if path.is_file() else 0.0
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the run's first start, without what passed between its starts."""
        return self.before + time.perf_counter() - self.start

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Keeps the time on the disk."""
        write_text(self.path, f'{{"seconds": {self.seconds:.1f}}}')


def execute(job: Job) -> RunRecord:
    """Trains and tests a run, or goes on with it; leaves the tested weights in its directory.

    Raises:
        ValueError, OSError: as `fit` does.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    job.directory.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(job.directory / "seconds.json")
    with warnings.catch_warnings():
        # Relatives in two splits and few validation pictures are what the tables themselves say.
        warnings.simplefilter("ignore", UserWarning)
        prepared = _prepared(job)
        result = fit(
            prepared.model,
            prepared.plan,
            recipe=prepared.recipe,
            output=job.directory,
            callbacks=[watch],
            progress=job.progress,
            log_every=0,
        )
        record = _tested(job, prepared, result, watch)
    other = {"best", "last"} - {record.tested}
    for name in (*_NOT_KEPT, *other):
        path = job.directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return record


def _prepared(job: Job) -> Prepared:
    run, records = job.run, job.manifest.records
    # Without the test pictures: they are not to be seen before the end.
    seen = job.manifest.with_records(record for record in records if record.split != "test")
    base = BASES[run.base]
    return prepare(
        run.model,
        seen,
        recipe=base,
        changes={**AS_PUBLISHED, **run.recipe, "seed": run.seed},
        task=job.split.task,
        pretrained_backbones=run.imagenet,
        ablation=run.ablation,
        config={**run.config, "ordinal": job.split.ordinal},
        device=job.device,
    )


def _tested(job: Job, prepared: Prepared, result: TrainingResult, watch: Stopwatch) -> RunRecord:
    model, run, recipe = result.model, job.run, prepared.recipe
    test = job.manifest.split("test")
    pooled = pooled_test(model, test, job.progress)
    tested, which = _tested_weights(job, model, recipe.select)
    own = own_test(tested, test, job.progress)
    return RunRecord(
        id=run.id,
        dataset=run.dataset,
        protocol=run.protocol,
        variant=run.variant,
        model=run.model,
        seed=run.seed,
        split=job.split.digest,
        imagenet=run.imagenet,
        metrics=_without_nan(own.metrics(0).values),
        pooled={} if pooled is None else _without_nan(pooled.metrics(0).values),
        probs=[[round(value, _DIGITS) for value in row] for row in own.probs.tolist()],
        curves=_curves(result.history, recipe),
        select=recipe.select,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        epochs={"dcg": recipe.dcg_epochs, "diffusion": recipe.diffusion_epochs},
        seconds=round(watch.seconds, 1),
        hardware=hardware(model.default_noise.device),
        version=__version__,
        commit=commit(),
        tested=which,
    )


def _tested_weights(job: Job, best: DiffMICv2, select: str) -> tuple[DiffMICv2, str]:
    """Returns which weights are tested, and the name of their directory.

    `fit` compares the epochs of a diffusion by the package's prediction, in which good priors hide a sampler that has
    not learned yet. So the last epoch's are tested where their own scores are better on the validation pictures.
    """
    if best.config.predictor != "diffusion":
        return best, "best"
    last = create_model(f"local-dir:{job.directory / 'last'}", pretrained=True, device=job.device)
    val, metric = job.manifest.split("val"), find_metric(select)
    first, second = (metric.quality(own_test(each, val).metrics(0).values[select]) for each in (best, last))
    return (last, "last") if second > first else (best, "best")


def own_test(model: DiffMICv2, pictures: Manifest, progress: bool | None = False) -> LabelledPredictions:
    """Predicts pictures by the model's own scores, as the paper does: of a diffusion the mean of ŷ_0.

    Without the priors that the package's own prediction adds, and without offsets of its decision: what priors are
    worth is what ablations ask.
    """
    found = model.predict([record.item() for record in pictures.records], progress=progress)
    plain = model.config.uncalibrated()
    return LabelledPredictions.of(pictures, scores_to_probs(found.scores, plain), plain)


def pooled_test(model: DiffMICv2, pictures: Manifest, progress: bool | None = False) -> LabelledPredictions | None:
    """Predicts pictures as the package does; None where that is no more than the model's own scores."""
    if model.config.predictor != "diffusion":
        return None
    found = model.predict([record.item() for record in pictures.records], progress=progress)
    return LabelledPredictions.of(pictures, found.probs, model.config)


def _curves(history: list[dict[str, Any]], recipe: Recipe) -> dict[str, list[list[float | None]]]:
    curves: dict[str, list[list[float | None]]] = {}
    for row in history:
        values = [row.get(name) for name in ("epoch", "train_loss", recipe.select)]
        numbers = [None if value is None or math.isnan(value) else float(value) for value in values]
        curves.setdefault(row["stage"], []).append(numbers)
    return curves


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else round(value, 6) for name, value in values.items()}


def hardware(device: torch.device) -> str:
    """Returns what a run was computed on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def commit() -> str:
    """Returns the commit of the checkout that the package runs from; "" where it is installed otherwise."""
    folder = Path(__file__).parents[3]
    if not (folder / ".git").exists():
        return ""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
