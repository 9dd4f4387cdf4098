"""Options that several commands share: one name, one meaning, one text of help."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from diffmiczoo.cli.shards import Shard
from diffmiczoo.config import DiffMICConfig, choices
from diffmiczoo.data.medmnist_names import is_medmnist, parse_medmnist
from diffmiczoo.errors import InvalidValueError

Option = Callable[[Any], Any]

#: Of matrix products and convolutions; a test holds them against `runtime.precision.PRECISIONS`, which needs torch.
PRECISIONS = ("fp32", "bf16", "fp16", "int8")

#: Endings of tables; a test holds them against `data.rows.TABLE_EXTENSIONS`, which needs torch.
TABLES = (".csv", ".tsv", ".tab", ".txt", ".parquet", ".xlsx", ".xls", ".xlsm", ".ods", ".numbers")

#: The environment variable that stands for `--model`.
MODEL_VARIABLE = "DIFFMICZOO_MODEL"

TASKS = choices(DiffMICConfig, "task")

#: A file to write.
OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)


class Device(click.ParamType):
    """The name of a device that is here."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name as it is; fails where torch does not know it or the machine lacks it."""
        if value == "cpu":
            return value
        import torch

        from diffmiczoo.runtime.devices import as_device

        try:
            device = as_device(value)
        except RuntimeError:
            self.fail(f"{value} is not known; take auto, cpu, cuda, cuda:1, …, or mps", param, ctx)
        count = {"cuda": torch.cuda.device_count, "mps": lambda: int(torch.backends.mps.is_available())}
        here = count[device.type]() if device.type in count else 1
        if not here:
            self.fail(f"there is no {device.type} device here; use --device cpu", param, ctx)
        if device.index is not None and device.index >= here:
            self.fail(f"{value} is not here; the last one is {device.type}:{here - 1}", param, ctx)
        return str(device)


class Data(click.Path):
    """Labelled images: a file or folder that exists, or the name of a set of MedMNIST."""

    def __init__(self) -> None:
        super().__init__(exists=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns a path or name as it is; fails where there is no such file and no such set."""
        if is_medmnist(value):
            parse_medmnist(value)
            return value
        return super().convert(value, param, ctx)


class ShardType(click.ParamType):
    """I/N, the I-th of N shards."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the shard."""
        if isinstance(value, Shard):
            return value
        try:
            return Shard.parse(value)
        except InvalidValueError as error:
            self.fail(str(error), param, ctx)


class Assignment(click.ParamType):
    """FIELD=VALUE; a value is JSON, or a text."""

    name = "field=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Returns the field and its value."""
        try:
            return next(iter(assignments((value,)).items()))
        except InvalidValueError as error:
            self.fail(str(error), param, ctx)


def assignments(texts: tuple[str, ...]) -> dict[str, Any]:
    """Returns field → value of texts FIELD=VALUE; a value is JSON, None, or a text.

    Raises:
        ValueError: a text has no "=".
    """
    values = {}
    for text in texts:
        field, sign, value = text.partition("=")
        if not sign:
            raise InvalidValueError(f"{text!r}: expected FIELD=VALUE")
        try:
            values[field.strip()] = json.loads(value)
        except json.JSONDecodeError:
            values[field.strip()] = None if value == "None" else value
    return values


def model_option(**default: Any) -> Option:
    """Returns `--model`; without a `default` it has to be given, or stand in the environment."""
    return click.option(
        "--model",
        "name",
        metavar="NAME",
        required=not default,
        envvar=MODEL_VARIABLE,
        show_envvar=True,
        show_default=bool(default),
        help="A name that `diffmiczoo list` shows, local-dir:PATH or hf-hub:ORGANISATION/NAME.",
        **default,  # click takes a default of None for one that was given
    )


def batch_size_option(default: int = 32) -> Option:
    """Returns `--batch-size`."""
    return click.option(
        "--batch-size", type=click.IntRange(1), default=default, show_default=True, help="Images computed at once."
    )


def batch_sizes_option() -> Option:
    """Returns a `--batch-size` that may be repeated; the command gets `batch_sizes`."""
    return click.option(
        "--batch-size",
        "batch_sizes",
        type=click.IntRange(1),
        multiple=True,
        help="Images computed at once; may be repeated.",
    )


def format_option(*styles: str, told_by_output: bool = False) -> Option:
    """Returns `--format`; the first style is the default, but for a command that goes by the name of its output."""
    default = None if told_by_output else styles[0]
    return click.option("--format", "style", type=click.Choice(styles), default=default, show_default=True)


def precision_option(*names: str) -> Option:
    """Returns `--precision`; the first name is the default."""
    return click.option(
        "--precision",
        type=click.Choice(names),
        default=names[0],
        show_default=True,
        help="Of matrix products and convolutions.",
    )


def fields_option(flag: str, variable: str, of: str) -> Option:
    """Returns an option FIELD=VALUE that may be repeated; the command gets a dictionary."""
    return click.option(
        flag,
        variable,
        multiple=True,
        type=Assignment(),
        metavar="FIELD=VALUE",
        callback=lambda ctx, param, pairs: dict(pairs),
        help=f"Change a field of the {of}; may be repeated.",
    )


def bootstrap_option(least: int) -> Option:
    """Returns `--bootstrap`, at least `least`."""
    return click.option(
        "--bootstrap",
        type=click.IntRange(least),
        default=1000,
        show_default=True,
        help="Resamples for the 95 % intervals" + ("." if least else "; 0 for none."),
    )


device_option = click.option(
    "--device",
    type=Device(),
    default="cpu",
    show_default=True,
    metavar="DEVICE",
    help="cpu, cuda, cuda:1, …, mps, or auto: a GPU of CUDA where there is one, else cpu.",
)


class Names(click.ParamType):
    """Names joined by commas, those with commas in double quotes; or NUMBER=NAME for each."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns a list of names, or a dictionary of number → name."""
        if not isinstance(value, str):
            return value
        names = [name.strip() for name in next(csv.reader([value], skipinitialspace=True), [])]
        pairs = [name.partition("=") for name in names]
        if pairs and all(sign and number.strip().isdecimal() for number, sign, _ in pairs):
            return {int(number): name.strip() for number, _, name in pairs}
        return names


class_names_option = click.option(
    "--class-names",
    type=Names(),
    metavar="NAME,...",
    help="The classes in order; what the numbers 0, 1, … of labels without names stand for. Or 1=NAME,2=NAME,….",
)
split_option = click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Only the images of this split.",
)


def _set_threads(ctx: click.Context, param: click.Parameter, count: int | None) -> None:
    if count is not None:
        import torch

        torch.set_num_threads(count)


threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    callback=_set_threads,
    expose_value=False,
    help="Cores to compute on; by default all. Where other programs compute too, 1 can be the quickest.",
)
