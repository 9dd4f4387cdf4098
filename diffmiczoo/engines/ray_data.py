"""`predict_with_ray`: pictures on the machines of a Ray cluster, as Parquet parts that no kill loses or doubles."""

from __future__ import annotations

import logging
import os
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffmiczoo._version import __version__
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.engines.pictures import read_picture
from diffmiczoo.engines.predictor import BatchPredictor
from diffmiczoo.engines.results import arrow_table, write_part
from diffmiczoo.engines.work import PART, Job, Part, parts_of, sources_digest
from diffmiczoo.errors import DiffMICError, InvalidValueError, MissingExtraError
from diffmiczoo.runtime.progress import progress_bar

# What stages ask of Ray for each core that they compute on. Less than one: readers find room beside the actors, and an
# actor whose machine is gone finds room beside another one instead of waiting for a machine that never comes.
_OF_A_CORE = 0.45
_TO_READ = 0.1


class StalledError(DiffMICError, RuntimeError):
    """No part was finished for a long time; the message says what there is and what is waited for."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How a job is spread.

    Attributes:
        workers: actors that compute, ≥ 1; by default one for each `cpus` cores of the cluster, or for each GPU.
        cpus: cores of an actor, ≥ 1.
        gpus: GPUs of an actor, a share of one included.
        address: of a cluster that is there, "auto" or "ray://…"; by default one that begins and ends with the job.
        part: pictures that are written as one file, ≥ 1.
        patience: seconds without a finished part until the job ends with a message.
    """

    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None
    part: int = PART
    patience: float = 1800.0

    def __post_init__(self) -> None:
        bounds = {"workers": 1 if self.workers is None else self.workers, "cpus": self.cpus, "part": self.part}
        for name, value in bounds.items():
            if value < 1:
                raise InvalidValueError(f"{name}={value} must be at least 1")
        if self.gpus < 0 or not self.patience > 0:
            raise InvalidValueError(f"gpus={self.gpus} and patience={self.patience} must not be negative")


@dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Attributes:
        output: its folder, for `read_results`.
        pictures, parts: of the whole job.
        computed: parts of this run; the others were there.
        errors: pictures of this run that could not be used.
    """

    output: Path
    pictures: int
    parts: int
    computed: int
    errors: int


def predict_with_ray(
    images: Any,
    name: str,
    output: str | os.PathLike[str],
    *,
    options: RayOptions | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> JobResult:
    """Predicts pictures on a Ray cluster, and writes the answers into a folder of Parquet parts.

    Reading and decoding are a stage of their own beside the computing, on all machines. A part is computed and written
    whole, under another name until it is complete, so that a task which Ray runs twice writes the same file twice.
    Started again, a job computes what is missing.

    Args:
        images: a folder, pattern, path, URL or a list of these, that all machines find; or a Parquet file with a
            column `bytes` and perhaps `id`.
        name: of the weights, as `create_model` takes it; every machine needs them.
        output: a folder that all machines share.
        options: how the job is spread.
        progress: show a bar; by default where the standard error is a terminal.
        **settings: of `BatchPredictor`: steps, precision, device, batch_size, num_samples, seed, tta.

    Raises:
        ValueError: there are no pictures, a setting is out of range, or `output` holds another job.
        StalledError: no part was finished for `options.patience` seconds.
    """
    options, output = options or RayOptions(), Path(output).absolute()
    if "threads" in settings:
        raise InvalidValueError("threads is for one process; here RayOptions(cpus=…) says how many cores an actor has")
    ray = _ray()
    parts = parts_of(images, options.part)
    predictor = BatchPredictor(name, **settings)
    job = job_of(name, predictor, parts)
    job.begin(output)
    missing = job.missing(output)
    if not missing:
        return JobResult(output, job.pictures, job.parts, 0, 0)
    started = not ray.is_initialized()
    if started:
        _start(ray, options)
    try:
        # "auto" was chosen here: machines of several kinds would choose several.
        settings["precision"] = predictor.precision
        given = {**settings, "weights_sha256": predictor.weights_sha256, "threads": options.cpus}
        stages = _Stages(name, given, predictor.model.config, output, job)
        rows = stages.run([parts[part] for part in missing], options)
        errors, done = 0, job.pictures - sum(parts[part].size for part in missing)
        with progress_bar(job.pictures, "ray", "img", progress, initial=done) as bar:
            for pictures, wrong in _watched(rows, options.patience, lambda: _waiting_for(ray, job, output)):
                errors += wrong
                bar.update(pictures)
    finally:
        if started:
            ray.shutdown()
    return JobResult(output, job.pictures, job.parts, len(missing), errors)


def _ray() -> Any:
    # Ray tells its makers of every start where nobody asks it not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError('the engine ray needs Ray: pip install "diffmiczoo[ray]"') from error
    return ray


def _start(ray: Any, options: RayOptions) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if options.address is None:
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address=options.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InvalidValueError(f"address={options.address!r}: no Ray cluster answers ({error})") from error


def job_of(name: str, predictor: BatchPredictor, parts: list[Part]) -> Job:
    """Returns what a folder's results are of."""
    pictures = sum(part.size for part in parts)
    digest, labels = sources_digest(parts), predictor.class_names
    return Job(name, predictor.weights_sha256, __version__, predictor.settings, labels, pictures, len(parts), digest)


@dataclass(frozen=True)
class _Stages:
    """What the machines do: read parts, and compute and write them."""

    name: str
    settings: dict[str, Any]
    config: DiffMICConfig
    output: Path
    job: Job

    def run(self, parts: list[Part], options: RayOptions) -> Iterator[dict[str, Any]]:
        """Yields a row for each part that is done, in any order."""
        import ray.data
        from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

        context = DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        workers = options.workers or _workers(ray.cluster_resources(), options)
        # A block, and so a task, for each part.
        work = ray.data.from_items([{"part": pickle.dumps(part)} for part in parts], override_num_blocks=len(parts))
        # No more readers than actors: each is a process, which takes seconds and 300 MB to begin.
        read = work.map_batches(
            partial(_read, self.config), batch_size=1, compute=TaskPoolStrategy(size=workers), num_cpus=_TO_READ
        )
        done = read.map_batches(
            _ComputeAndWrite,
            batch_size=1,
            compute=ActorPoolStrategy(size=workers),
            fn_constructor_args=(self.name, self.settings, self.output, self.job),
            num_cpus=_OF_A_CORE * options.cpus,
            num_gpus=options.gpus or None,
        )
        rows: Iterator[dict[str, Any]] = iter(done.iter_rows())
        return rows


def _workers(resources: dict[str, float], options: RayOptions) -> int:
    room = resources.get("GPU", 0) / options.gpus if options.gpus else resources.get("CPU", 1) / options.cpus
    return max(int(room), 1)


def _read(config: DiffMICConfig, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reads and decodes the pictures of parts: the stage that waits for disks and networks."""
    found = np.empty(len(batch["part"]), dtype=object)
    for row, text in enumerate(batch["part"]):
        part: Part = pickle.loads(text)
        found[row] = pickle.dumps((part.number, [read_picture(picture, config) for picture in part.pictures()]))
    return {"read": found}


class _ComputeAndWrite:
    """Predicts what was read of parts, and writes their files: the stage that computes."""

    def __init__(self, name: str, settings: dict[str, Any], output: Path, job: Job) -> None:
        self.predictor = BatchPredictor(name, **settings)
        self.output, self.job = output, job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        counts = []
        for content in batch["read"]:
            number, read = pickle.loads(content)
            columns = self.predictor.columns(self.predictor.answer_read(read))
            write_part(arrow_table(columns, number), self.job.file_of(self.output, number))
            counts.append((len(read), sum(bool(each.error) for each in read)))
        pictures, errors = np.array(counts).T
        return {"pictures": pictures, "errors": errors}


def _watched(
    rows: Iterator[dict[str, Any]], patience: float, waiting_for: Callable[[], str]
) -> Iterator[tuple[int, int]]:
    """Yields what parts had as they are finished; a job that stands still ends with a message instead of waiting."""
    found: queue.Queue[Any] = queue.Queue()

    def collect() -> None:
        try:
            for row in rows:
                found.put((int(row["pictures"]), int(row["errors"])))
            found.put(None)
        except Exception as error:
            found.put(error)

    threading.Thread(target=collect, daemon=True, name="diffmiczoo-ray").start()
    while True:
        try:
            row = found.get(timeout=patience)
        except queue.Empty:
            raise StalledError(
                f"no part was finished for {patience:,.0f} seconds: {waiting_for()}; what is done is kept: the same "
                "command goes on from it"
            ) from None
        if row is None:
            return
        if isinstance(row, Exception):
            raise row
        yield row


def _waiting_for(ray: Any, job: Job, output: Path) -> str:
    """Returns what a job waits for and what there is, in words."""
    nodes = ray.nodes()
    alive, there, free = sum(node["Alive"] for node in nodes), ray.cluster_resources(), ray.available_resources()
    resources = ", ".join(
        f"{name} {free.get(name, 0):g} of {there[name]:g} free" for name in ("CPU", "GPU") if name in there
    )
    return (
        f"{len(job.missing(output)):,} of {job.parts:,} parts are missing, {alive} of {len(nodes)} machines of the "
        f"cluster are there ({resources})"
    )
