"""`--engine ray` of `diffmiczoo predict`: the same pictures on the machines of a cluster."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.output import note
from diffmiczoo.errors import InvalidValueError, MissingExtraError

if TYPE_CHECKING:
    from diffmiczoo.engines.ray_data import JobResult

#: What a job decides by itself or writes in another way → its value where nobody asked for it.
_NOT_HERE = {
    "style": None,
    "resume": False,
    "shard": None,
    "overlay": None,
    "explain": None,
    "on_foreign": "flag",
    "defer_error": None,
}

#: Options that are those of `BatchPredictor`.
_SETTINGS = ("steps", "num_samples", "seed", "tta", "batch_size", "precision", "device")

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["ray"]),
        help="Predict on the machines of a Ray cluster; --output is then a folder of Parquet parts, and the same "
        "command again goes on with what is missing.",
    ),
    click.option(
        "--workers", type=click.IntRange(1), help="With --engine: processes that compute; by default all fit."
    ),
    click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="With --engine: cores of each."),
    click.option(
        "--gpus", type=click.FloatRange(0), default=0.0, help="With --engine: GPUs of each, such as 1 or 0.5."
    ),
    click.option("--address", metavar="ADDRESS", help="With --engine: of a cluster; by default one is started here."),
)


def ray_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of the engine to a command, which runs by itself where none is asked for."""

    @functools.wraps(command)
    def with_engine(
        *args: Any, engine: str | None, workers: int | None, cpus: int, gpus: float, address: str | None, **given: Any
    ) -> Any:
        if engine is None:
            if workers is not None or address is not None or gpus:
                raise InvalidValueError("--workers, --gpus and --address are for --engine ray; give it as well")
            return command(*args, **given)
        from diffmiczoo.engines.ray_data import RayOptions

        return _predict(RayOptions(workers=workers, cpus=cpus, gpus=gpus, address=address), **given)

    for option in reversed(_OPTIONS):
        with_engine = option(with_engine)
    return with_engine


def _predict(
    options: Any,
    *,
    images: tuple[str, ...],
    name: str,
    output: Path | None,
    split: str | None,
    choice: Any,
    **given: Any,
) -> None:
    from diffmiczoo.cli.predict import image_files
    from diffmiczoo.engines.ray_data import predict_with_ray

    odd = [option for option, usual in _NOT_HERE.items() if given[option] != usual]
    if odd:
        named = ", ".join("--format" if option == "style" else f"--{option.replace('_', '-')}" for option in odd)
        raise InvalidValueError(f"{named}: not with --engine ray, which writes Parquet; leave it out")
    if output is None:
        raise InvalidValueError("--engine ray needs --output DIR, a folder that all machines share")
    if output.exists() and not output.is_dir():
        raise InvalidValueError(f"--output {output} is a file; --engine ray writes a folder")
    table = len(images) == 1 and images[0].lower().endswith(".parquet") and _has_bytes(images[0])
    sources = images[0] if table else image_files(images, split, choice)
    settings = {option: given[option] for option in _SETTINGS}
    _tell(predict_with_ray(sources, name, output, options=options, **settings))


def _has_bytes(file: str) -> bool:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f'{file}: Parquet needs pyarrow: pip install "diffmiczoo[ray]"') from error
    try:
        return "bytes" in pyarrow.parquet.read_schema(file).names
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"{file}: cannot be read ({error}); expected a Parquet file") from error


def _tell(result: JobResult) -> None:
    kept = result.parts - result.computed
    before = f", {kept:,} parts of them before" if kept else ""
    note(f"{result.output}: {result.pictures:,} pictures in {result.parts:,} parts{before}")
    if result.errors:
        note(f"{result.errors:,} of those that were computed now cannot be used: see the column error")
        sys.exit(1)
