"""The group of all commands: second names, and errors as one line with an exit status."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from diffmiczoo.errors import DiffMICError

#: Set to 1, every error shows its traceback.
DEBUG = "DIFFMICZOO_DEBUG"

#: Second name of a command → its own.
ALIASES = {"train": "fit"}

#: Exit status after an error that the user can set right, and after Ctrl-C (128 + SIGINT, as in shells).
USER_ERROR, INTERRUPTED = 2, 130

#: What a user can cause by files and network, and no fault of the program usually does.
_FILE_ERRORS = (
    PermissionError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    ConnectionRefusedError,
    ConnectionResetError,
    TimeoutError,
)
_FULL_OR_READ_ONLY = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENAMETOOLONG}


class CommandGroup(click.Group):
    """Runs a command; what the user can set right ends in one line, everything else keeps its traceback."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command by its name or second name."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was asked for."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # What a screen cannot show is shown as its code; it must not end the work behind it.
                stream.reconfigure(errors="backslashreplace")
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            _end(ctx, str(interruption) or "stopped", INTERRUPTED)
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            _end(ctx, f"Error: {message}", USER_ERROR)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Within the context a warning is one line, without the place in the program that only its authors can read."""
    with warnings.catch_warnings():
        if os.environ.get(DEBUG) != "1":
            warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    kind = "warning" if issubclass(category, UserWarning) else category.__name__
    click.echo(f"{kind}: {message}".encode("utf-8", "replace").decode("utf-8"), err=True)


def user_message(error: Exception) -> str | None:
    """Returns what to tell the user about an error that they can set right; None for a fault of the program."""
    if isinstance(error, click.UsageError):
        command = f"{error.ctx.info_name} " if error.ctx and error.ctx.parent else ""
        return f"{error.format_message().rstrip('.')}; see diffmiczoo {command}--help"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, DiffMICError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, _FILE_ERRORS) or (isinstance(error, OSError) and error.errno in _FULL_OR_READ_ONLY):
        return str(error)
    return None


def _end(ctx: click.Context, line: str, status: int) -> NoReturn:
    if os.environ.get(DEBUG) == "1":
        click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo(line, err=True)
    ctx.exit(status)
