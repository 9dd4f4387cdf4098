"""Names that users chose (classes, files), for places that read more into a text than its letters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What Markdown, GitHub's formulas and HTML take for more than a letter; an underscore only at the edge of a word.
_MARKDOWN = re.compile(r"([\\`*|$<>\[\]~]|(?<!\w)_|_(?!\w))")


def plain_text(text: str, length: int | None = None) -> str:
    """Returns a text in one line: line ends become spaces, signs that no screen shows "�".

    Args:
        text: of any kind.
        length: longest result, which ends in "…" where something was cut off; None for all of it.
    """
    line = " ".join(text.split())
    # A surrogate is half of a sign, or a byte of a file name that is not UTF-8; no font and no encoding has it.
    # Joiners make one emoji of several, and letters of some scripts.
    line = "".join(
        sign if sign.isprintable() or sign in "\u200c\u200d" else "\N{REPLACEMENT CHARACTER}" for sign in line
    )
    return line if length is None or len(line) <= length else line[: length - 1] + "…"


def end_of_path(name: str) -> str:
    """Returns the last two parts of an absolute path, any other name as it is: where files are is nobody's business."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() else name


def markdown_text(text: str) -> str:
    """Returns a text for a line or a table's cell of Markdown that shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", plain_text(text))


@contextmanager
def drawn_as_written() -> Iterator[None]:
    """Within the context matplotlib takes no text for a formula, whatever a settings file of the user's says.

    "cost $x" would otherwise be read as the beginning of one, and end in an error when the picture is saved.
    """
    import warnings

    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        # A sign that the font lacks is drawn as an empty box; saying so for each of them helps nobody.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield
