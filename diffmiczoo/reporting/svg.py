"""Small charts as SVG within a page: lines with bands, and bars; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

# Units of a chart: about a pixel on a telephone.
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 22, 12, 40


@dataclass(frozen=True)
class Frame:
    """The axes of a chart.

    Attributes:
        label: what the chart says, for those who cannot see it.
        x_label, y_label: what is along the axes.
        x, y: their ends.
        x_ticks, y_ticks: place → text.
        width, height: of the whole chart.
    """

    label: str
    x_label: str
    y_label: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_ticks: dict[float, str]
    y_ticks: dict[float, str]
    width: int = 340
    height: int = 260

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Returns where a point lies, in units from the left and the top."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        left, bottom = _LEFT, self.height - _BOTTOM
        return left + across * (self.width - _LEFT - _RIGHT), bottom - up * (bottom - _TOP)


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        x, y: its points; NaN where there is a gap.
        low, high: ends of the band around it; () for none.
        style: a class of the style sheet: "first", "second" or "guide".
        dots: mark the points.
        errors: low and high are bars at the points, not a band.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: str = "first"
    dots: bool = False
    errors: bool = False


@dataclass(frozen=True)
class Bar:
    """A bar from the x axis, or from the top of another one.

    Attributes:
        left, right: its sides.
        low, high: its ends.
        style: a class of the style sheet.
        text: above it.
    """

    left: float
    right: float
    low: float
    high: float
    style: str = "first"
    text: str = ""


def chart(frame: Frame, lines: Sequence[Line] = (), bars: Sequence[Bar] = (), marks: Sequence[float] = ()) -> Markup:
    """Returns a chart.

    Args:
        frame: its axes.
        lines: drawn in order, above the bars.
        bars: drawn first.
        marks: places along x of upright lines.
    """
    parts = [_axes(frame), *(_bar(frame, bar) for bar in bars)]
    parts += [_polyline(frame, [mark, mark], list(frame.y), "guide") for mark in marks]
    parts += [_line(frame, line) for line in lines]
    view = f"0 0 {frame.width} {frame.height}"
    return Markup('<svg class="chart" viewBox="{}" role="img" aria-label="{}">{}</svg>').format(
        view, frame.label, Markup("").join(parts)
    )


def _axes(frame: Frame) -> Markup:
    parts = []
    for tick, text in frame.y_ticks.items():
        x, y = frame.place(frame.x[0], tick)
        parts.append(_polyline(frame, list(frame.x), [tick, tick], "grid"))
        parts.append(_text(x - 6, y + 4, text, "end"))
    for tick, text in frame.x_ticks.items():
        x, y = frame.place(tick, frame.y[0])
        parts.append(_text(x, y + 15, text, "middle"))
    middle = (_LEFT + frame.width - _RIGHT) / 2
    parts.append(_text(middle, frame.height - 6, frame.x_label, "middle", "axis"))
    upright = (frame.height - _BOTTOM + _TOP) / 2
    turned = Markup('<text class="axis" text-anchor="middle" transform="translate(11 {}) rotate(-90)">{}</text>')
    parts.append(turned.format(_short(upright), frame.y_label))
    parts.append(_polyline(frame, list(frame.x), [frame.y[0]] * 2, "base"))
    return Markup("").join(parts)


def _line(frame: Frame, line: Line) -> Markup:
    parts = []
    if line.errors:
        for x, low, high in zip(line.x, line.low, line.high, strict=True):
            parts.append(_polyline(frame, [x, x], [low, high], f"bar-of {line.style}"))
    elif line.low:
        outline = [*zip(line.x, line.high, strict=True), *reversed(list(zip(line.x, line.low, strict=True)))]
        points = _points(frame, [point for point in outline if not math.isnan(point[1])])
        parts.append(Markup('<polygon class="band {}" points="{}"/>').format(line.style, points))
    parts.append(_polyline(frame, line.x, line.y, line.style))
    if line.dots:
        for x, y in zip(line.x, line.y, strict=True):
            if not math.isnan(y):
                across, down = frame.place(x, y)
                dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="3.2"/>')
                parts.append(dot.format(line.style, _short(across), _short(down)))
    return Markup("").join(parts)


def _bar(frame: Frame, bar: Bar) -> Markup:
    left, top = frame.place(bar.left, bar.high)
    right, bottom = frame.place(bar.right, bar.low)
    found = Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"/>').format(
        bar.style, _short(left), _short(top), _short(max(right - left, 0.5)), _short(max(bottom - top, 0))
    )
    return found + _text((left + right) / 2, top - 4, bar.text, "middle") if bar.text else found


def _polyline(frame: Frame, x: Sequence[float], y: Sequence[float], style: str) -> Markup:
    points = _points(frame, [(one, other) for one, other in zip(x, y, strict=True) if not math.isnan(other)])
    return Markup('<polyline class="{}" points="{}"/>').format(style, points)


def _points(frame: Frame, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_short(x)},{_short(y)}" for x, y in (frame.place(*point) for point in points))


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> Markup:
    whole = Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>')
    return whole.format(style, _short(x), _short(y), anchor, escape(text))


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Returns round numbers within a range, about as many as asked for."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]
