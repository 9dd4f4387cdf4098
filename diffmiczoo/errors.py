"""`DiffMICError`: the base of everything that this package raises on purpose."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Mapping


class DiffMICError(Exception):
    """Something that whoever calls the package can set right; the message says what was found and what to do.

    Concrete errors are also `ValueError`, `OSError` or the like, so that code which knows nothing of this package
    catches them as usual. The command line turns them into one line and exit status 2.
    """


class InvalidValueError(DiffMICError, ValueError):
    """An argument, a field or a file's content has a value that is not allowed."""


class InvalidTypeError(DiffMICError, TypeError):
    """An argument or a field has a value of another type."""


class MissingFileError(DiffMICError, FileNotFoundError):
    """A file or directory does not exist."""


class UnusableFileError(DiffMICError, OSError):
    """A file or directory exists and cannot be read or written."""


class MissingExtraError(DiffMICError, ImportError):
    """A feature needs a package that is not installed; the message names the extra that brings it."""


def warn(message: str) -> None:
    """Issues a UserWarning that points at the first line of the caller's own, however deep it is called.

    Frames of torch and contextlib are passed over: they wrap functions that carry a decorator such as `torch.no_grad`.
    """
    level, frame = 1, sys._getframe(1)
    passed = ("diffmiczoo", "torch", "contextlib")
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in passed:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level + 1)


def did_you_mean(names: Iterable[str], known: Iterable[str], others: Mapping[str, tuple[str, ...]]) -> str:
    """Returns which names may have been meant, as the end of a message; the empty text where none is near.

    Args:
        names: that are unknown.
        known: that there are.
        others: what other programs call them → known names.
    """
    known = list(known)
    both = ((*others.get(name.lower(), ()), *difflib.get_close_matches(name, known, n=3)) for name in names)
    near = dict.fromkeys(field for fields in both for field in fields)
    return f"; did you mean {', '.join(near)}?" if near else ""
