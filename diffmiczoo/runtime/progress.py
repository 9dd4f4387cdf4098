"""Progress bars that all look alike."""

from __future__ import annotations

import sys
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
    # A process that was started without a standard error, as services are, has none.
    disable = True if sys.stderr is None else None if progress is None else not progress
    return tqdm(total=total, desc=what, unit=unit, disable=disable, **options)
