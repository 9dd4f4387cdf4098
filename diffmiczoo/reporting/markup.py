"""Pieces of the page: tables that screen readers can read out, and numbers in words; every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from diffmiczoo.runtime.text import plain_text

Text = str | Markup


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: of its link.
        title: its heading.
        body: what stands below.
    """

    name: str
    title: str
    body: Markup


def join(parts: Sequence[Text]) -> Markup:
    """Puts parts one below the other."""
    return Markup("\n").join(parts)


def paragraph(text: Text, style: str = "") -> Markup:
    """Returns a paragraph."""
    if style:
        return Markup('<p class="{}">{}</p>').format(style, text)
    return Markup("<p>{}</p>").format(text)


def coded(text: str) -> Markup:
    """Returns a sentence of this package's own in which what stands between `backticks` is code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(each) if n % 2 else each for n, each in enumerate(parts))


def heading(text: Text) -> Markup:
    """Returns the heading of a part of a section."""
    return Markup("<h3>{}</h3>").format(text)


def table(caption: str, headings: Sequence[Text], rows: Sequence[Sequence[Text]], style: str = "") -> Markup:
    """Returns a table whose first column names its rows.

    Args:
        caption: what it shows.
        headings: of the columns.
        rows: a cell for each heading.
        style: a class of the style sheet.
    """
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(text) for text in headings)
    body = Markup("\n").join(_row(row) for row in rows)
    whole = (
        '<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="{}"><caption>{}</caption>'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    )
    return Markup(whole).format(caption, style or "numbers", caption, head, body)


def _row(cells: Sequence[Text]) -> Markup:
    first, *others = cells
    parts = [Markup('<th scope="row">{}</th>').format(first)]
    parts += [Markup(text) if _is_cell(text) else Markup("<td>{}</td>").format(text) for text in others]
    return Markup("<tr>{}</tr>").format(Markup("").join(parts))


def _is_cell(text: Text) -> bool:
    return isinstance(text, Markup) and text.startswith("<td")


def shaded(text: Text, share: float) -> Markup:
    """Returns a cell that is the darker the larger its share in [0, 1] is."""
    return Markup('<td class="shaded" style="--share:{}">{}</td>').format(f"{share:.3f}", text)


def figure(title: Text, drawing: Markup, text: Text = "") -> Markup:
    """Returns a chart with its title and a sentence on how to read it."""
    caption = Markup("<figcaption><strong>{}</strong>{}</figcaption>").format(
        title, Markup(" <span>{}</span>").format(text) if text else ""
    )
    return Markup("<figure>{}{}</figure>").format(caption, drawing)


def grid(parts: Sequence[Markup], style: str = "charts") -> Markup:
    """Puts figures beside each other, as many as there is room for."""
    return Markup('<div class="{}">{}</div>').format(style, Markup("").join(parts))


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Returns what the colours of charts mean: (class of the style sheet, words) for each."""
    one = Markup('<li><span class="key {}"></span>{}</li>')
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(one.format(*entry) for entry in entries))


def number(value: float | None, digits: int = 3) -> str:
    """Returns a number, or a dash for what is not defined."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def ranged(value: float | None, ends: tuple[float, float] | None, digits: int = 3) -> str:
    """Returns a number with its interval, where there is one."""
    text = number(value, digits)
    return (
        text if ends is None or text == "–" else f"{text} [{ends[0]:.{digits}f},\N{NO-BREAK SPACE}{ends[1]:.{digits}f}]"
    )


def difference(ends: tuple[float, float, float] | None) -> str:
    """Returns a difference with its sign and interval; a dash for none."""
    return "–" if ends is None else "{:+.3f} [{:+.3f},\N{NO-BREAK SPACE}{:+.3f}]".format(*ends)


def percent(value: float | None, digits: int = 0) -> str:
    """Returns a share as a percentage; neither 0 nor 100 where it is not exactly that."""
    if value is None or math.isnan(value):
        return "–"
    least = 10.0**-digits
    if value > 0 and 100 * value < least / 2:
        return f"below {least:g}\N{NO-BREAK SPACE}%"
    if value < 1 and 100 * value > 100 - least / 2:
        return f"above {100 - least:g}\N{NO-BREAK SPACE}%"
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def counted(count: int, one: str, several: str) -> str:
    """Returns a number with the word that goes with it: "1 picture", "1,200 pictures"."""
    return f"1 {one}" if count == 1 else f"{count:,} {several}"


def pictures(count: int) -> str:
    """Returns a number of pictures in words."""
    return counted(count, "picture", "pictures")


def titled(name: str, class_labels: dict[str, str]) -> str:
    """Returns a class as people call it, with its name behind it where that is no part of it: "melanoma (mel)"."""
    title = class_labels.get(name, name)
    known = f" {name.lower().replace('_', ' ')} " in f" {title.lower()} "
    return plain_text(title if known or title == name else f"{title} ({name})")


def listed(words: Sequence[str]) -> str:
    """Returns words as a list in a sentence."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
