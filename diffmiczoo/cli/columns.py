"""Options that say which columns of a table are used, and the lines that tell what was read."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.common import TABLES, Option
from diffmiczoo.cli.output import note

if TYPE_CHECKING:
    from diffmiczoo.data.columns import ColumnChoice
    from diffmiczoo.data.readers import Source

_FILE = click.option("--file-column", metavar="NAME", help="Column of the files or their ids; by default by its name.")
_LABEL = click.option(
    "--label-column",
    "label_columns",
    metavar="NAME",
    multiple=True,
    help="Column of the labels; several, joined by commas or repeated, are columns of 0 and 1.",
)
_GROUP = click.option(
    "--group-column", metavar="NAME", help="Column of patients, lesions or the like; none to use none."
)
_SPLIT = click.option("--split-column", metavar="NAME", help="Column of the splits; none to use none.")
_MAP = click.option(
    "--map-split",
    metavar="WORD=SPLIT",
    multiple=True,
    help="What a word for a split means, in a column or as the name of a folder: train, val, test, or skip to leave it "
    "out; may be repeated.",
)


def column_options(*, labels: bool) -> Option:
    """Returns the options on columns; the command gets `choice`, a function that returns a `ColumnChoice`.

    Args:
        labels: whether the command needs labels and groups.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_choice(
            *args: Any,
            file_column: str | None,
            split_column: str | None,
            map_split: tuple[str, ...],
            label_columns: tuple[str, ...] = (),
            group_column: str | None = None,
            **options: Any,
        ) -> Any:
            from diffmiczoo.data.columns import ColumnChoice

            names = tuple(name.strip() for text in label_columns for name in text.split(",") if name.strip())
            choice = ColumnChoice(file_column, names, group_column, split_column, _words(map_split))
            return command(*args, choice=choice, **options)

        for option in reversed((_FILE, *((_LABEL, _GROUP) if labels else ()), _SPLIT, _MAP)):
            with_choice = option(with_choice)
        return with_choice

    return decorate


def _words(texts: Iterable[str]) -> dict[str, str]:
    words = {}
    for text in texts:
        word, sign, split = text.rpartition("=")
        if not sign:
            raise click.BadParameter(f"{text!r}: expected WORD=SPLIT, such as holdout=test", param_hint="--map-split")
        words[word] = split.strip()
    return words


def data_source(path: str, choice: ColumnChoice) -> Source:
    """Returns a table or folder with what the options say of its columns."""
    from diffmiczoo.data.readers import Source

    return Source(path, choice)


def validation_source(path: str | None, choice: ColumnChoice) -> Source | None:
    """Returns the validation data, to which names of columns apply where they are a table too."""
    from diffmiczoo.data.columns import ColumnChoice

    if path is None:
        return None
    is_table = Path(path).suffix.lower() in TABLES or (Path(path) / "labels.csv").is_file()
    return data_source(path, choice if is_table else ColumnChoice(map_split=choice.map_split))


def tell(lines: Iterable[str]) -> None:
    """Writes lines to the standard error; the logger, which tells the same, keeps silent from then on."""
    logging.getLogger("diffmiczoo").addHandler(logging.NullHandler())
    for line in lines:
        note(line.encode("utf-8", "replace").decode("utf-8"))
