"""The charts of a report: values of `results.py` and `metrics.curves` → SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from diffmiczoo.metrics.curves import Curve, ReliabilityBin
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.reporting.markup import percent, pictures
from diffmiczoo.reporting.results import Distances, SetSizes, StageCurves
from diffmiczoo.reporting.svg import Bar, Frame, Line, chart, nice_ticks

_SHARES = {0.0: "0", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1.0: "100 %"}


def roc_chart(name: str, curve: Curve, area: float) -> Markup:
    """Draws sensitivity over the share of false alarms."""
    label = f"ROC curve of {name}: area {area:.3f}. {_reading(curve, 0.1, 'sensitivity', 'false alarms')}"
    frame = _square(label, "false alarms", "sensitivity")
    return chart(frame, [_diagonal(), _banded(curve, start=(0.0, 0.0))])


def precision_chart(name: str, curve: Curve, average: float, share: float) -> Markup:
    """Draws precision over recall, and what chance would reach."""
    label = f"Precision-recall curve of {name}: average precision {average:.3f}, by chance {share:.3f}"
    chance = Line((0, 1), (share, share), style="guide")
    return chart(_square(label, "recall", "precision"), [chance, _banded(curve)])


def reliability_chart(bins: Sequence[ReliabilityBin], statements: str) -> Markup:
    """Draws how often statements were right over how probable they were said to be."""
    shown = [each for each in bins if each.confidence is not None and each.observed is not None]
    said = [f"said {percent(each.confidence)}, right {percent(each.observed)} of {each.count:,}" for each in shown]
    frame = _square(f"Reliability of {statements}: {'; '.join(said)}", "said probability", "how often right")
    x = [each.confidence or 0.0 for each in shown]
    ends = [each.interval or (each.observed or 0.0,) * 2 for each in shown]
    values = [each.observed or 0.0 for each in shown]
    low, high = ([end[side] for end in ends] for side in (0, 1))
    return chart(frame, [_diagonal(), Line(x, values, low, high, dots=True, errors=True)])


def counts_chart(bins: Sequence[ReliabilityBin], statements: str) -> Markup:
    """Draws how many statements were of each probability."""
    most = max(each.count for each in bins)
    said = "; ".join(f"{percent(each.low)} to {percent(each.high)}: {each.count:,}" for each in bins)
    ticks = {tick: f"{tick:,.0f}" for tick in nice_ticks(0, most, 3) if tick == int(tick)}
    frame = Frame(
        f"Number of {statements} by said probability: {said}", "said probability", "number", (0, 1), (0, most * 1.05),
        _SHARES, ticks, height=170,
    )  # fmt: skip
    return chart(frame, bars=[Bar(each.low + 0.005, each.high - 0.005, 0, each.count) for each in bins])


def risk_chart(curve: Curve) -> Markup:
    """Draws the share of errors among the surest pictures over how many of them are kept.

    The curve begins at 5 %: of fewer pictures nobody can say anything, and their band would flatten the rest.
    """
    shown = slice(4, None)
    x, y = curve.x[shown], curve.y[shown]
    top = min(1.0, max([0.02, *y, *curve.high[9:]]) * 1.1)
    label = f"Risk-coverage curve. {_reading(curve, 0.5, 'wrong', 'of the pictures kept, the surest first')}"
    ticks = {tick: percent(tick, 0 if top > 0.06 else 1) for tick in nice_ticks(0, top)}
    frame = Frame(label, "share of the pictures that is kept", "wrong among them", (0, 1), (0, top), _SHARES, ticks)
    high = [min(value, top) for value in curve.high[shown]]
    return chart(frame, [Line(x, y, curve.low[shown], high)])


def sizes_chart(sets: SetSizes, num_classes: int) -> Markup:
    """Draws how many pictures have sets of each size."""
    total = sum(sets.sizes.values())
    shares = {size: count / total for size, count in sets.sizes.items()}
    said = "; ".join(f"{size}: {pictures(count)}" for size, count in sets.sizes.items())
    last = min(num_classes, max(shares))
    top = max(shares.values()) * 1.15
    step = max(1, math.ceil((last + 1) / 10))
    frame = Frame(
        f"Classes that cannot be ruled out: {said}", "classes that cannot be ruled out", "pictures", (-0.6, last + 0.6),
        (0, top), {float(size): str(size) for size in range(0, last + 1, step)},
        {tick: percent(tick) for tick in nice_ticks(0, min(1, top))},
    )  # fmt: skip
    bars = [Bar(size - 0.38, size + 0.38, 0, share, text=percent(share)) for size, share in shares.items()]
    return chart(frame, bars=bars)


def distances_chart(distances: Distances) -> Markup:
    """Draws how far pictures are from the training pictures, right and wrong ones on top of each other."""
    totals = [one + other for one, other in zip(distances.right, distances.wrong, strict=True)]
    most, edges = max(totals), distances.edges
    bars = []
    for place, (right, wrong) in enumerate(zip(distances.right, distances.wrong, strict=True)):
        left, end = edges[place] + 0.005, edges[place + 1] - 0.005
        bars += [Bar(left, end, 0, right), Bar(left, end, right, right + wrong, "second")] if right + wrong else []
    frame = Frame(
        f"Distance from the training pictures: {pictures(distances.flagged)} of {sum(totals):,} beyond the limit",
        "distance from the training pictures (1: the limit)", "pictures", (0, edges[-1]), (0, most * 1.05),
        {0.0: "0", 0.5: "0.5", 1.0: "1", 1.5: "1.5", edges[-1]: f"≥ {edges[-1]:g}"},
        {tick: f"{tick:,.0f}" for tick in nice_ticks(0, most) if tick == int(tick)},
    )  # fmt: skip
    return chart(frame, bars=bars, marks=[1.0])


def loss_chart(name: str, stage: StageCurves) -> Markup:
    """Draws the training loss over the epochs of a stage."""
    return _epochs(f"training loss of stage {name}", "training loss", stage, stage.loss, "first")


def metric_chart(name: str, stage: StageCurves) -> Markup:
    """Draws what was measured on validation images over the epochs of a stage, with a mark at the best one."""
    word = stage.metric if stage.metric == "train_loss" else find_metric(stage.metric).short_label
    return _epochs(f"{word} on validation pictures in stage {name}", word, stage, stage.values, "second")


def _epochs(label: str, word: str, stage: StageCurves, values: Sequence[float], style: str) -> Markup:
    known = [(epoch, value) for epoch, value in zip(stage.epochs, values, strict=True) if math.isfinite(value)]
    heights = [value for _, value in known]
    low, high = min(heights), max(heights)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 0.01)
    x = (min(stage.epochs), max(stage.epochs)) if len(stage.epochs) > 1 else (0, 2)
    ticks = {tick: str(int(tick)) for tick in nice_ticks(*x) if tick == int(tick)}
    y_ticks = {tick: f"{tick:.4g}" for tick in nice_ticks(low - margin, high + margin)}
    said = f"{label}: {heights[0]:.3f} in epoch {known[0][0]}, {heights[-1]:.3f} in epoch {known[-1][0]}"
    frame = Frame(said, "epoch", word, (float(x[0]), float(x[1])), (low - margin, high + margin), ticks, y_ticks)
    line = Line([epoch for epoch, _ in known], heights, style=style, dots=len(known) < 40)
    marks = [] if stage.best is None or style == "first" else [float(stage.best)]
    return chart(frame, [line], marks=marks)


def _square(label: str, x_label: str, y_label: str) -> Frame:
    return Frame(label, x_label, y_label, (0, 1), (0, 1), _SHARES, _SHARES)


def _diagonal() -> Line:
    return Line((0, 1), (0, 1), style="guide")


def _banded(curve: Curve, start: tuple[float, float] | None = None) -> Line:
    x, y = list(curve.x), list(curve.y)
    low, high = list(curve.low), list(curve.high)
    if start is not None:
        x, y = [start[0], *x], [start[1], *y]
        low, high = ([low[0], *low], [high[0], *high]) if low else (low, high)
    return Line(x, y, low, high)


def _reading(curve: Curve, place: float, what: str, where: str) -> str:
    """Says the value of a curve at a place, with its interval."""
    index = min(range(len(curve.x)), key=lambda each: abs(curve.x[each] - place))
    text = f"At {percent(curve.x[index])} {where}: {percent(curve.y[index])} {what}"
    return f"{text} (95 % interval {percent(curve.low[index])} to {percent(curve.high[index])})" if curve.low else text
