"""Progress bars that all look alike."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm


def progress_bar(total: int | None, what: str, unit: str, progress: bool | None, **options: Any) -> Any:
    """Returns a bar of tqdm to be used as a context.

    Args:
        total: how many units there are.
        what: the word in front of it.
        unit: "img", "batch", ….
        progress: whether it is shown; None means where the standard error is a terminal.
        options: further arguments of tqdm.
    """
    return tqdm(total=total, desc=what, unit=unit, disable=None if progress is None else not progress, **options)
