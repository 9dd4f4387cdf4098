"""The words and bars of an overlay: what the model says, how probable it finds it, and what that means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from diffmiczoo.runtime.text import plain_text

#: How many classes get a bar.
BARS = 8

# Where the bars are, in pixels from the left and the top of the figure.
_LEFT, _TOP, _WIDTH, _STEP = 836, 90, 344, 46
_FULL = 280  # a bar of 100 %
_LONGEST = 44  # letters of a title in bold, which are wider

_INK, _FAINT, _ACCENT, _GREY, _TRACK = "#1b2733", "#5b6773", "#0f7b8a", "#a9b4bd", "#eceff1"


@dataclass(frozen=True)
class Bar:
    """One class.

    Attributes:
        name: of the class.
        title: the name, with what it means where that is known.
        probability: in [0, 1].
        predicted: whether it is a label of the image.
        threshold: the probability from which on it is one; None where the most probable class is the label.
    """

    name: str
    title: str
    probability: float
    predicted: bool
    threshold: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a model says of one image.

    Attributes:
        bars: of all classes: the predicted ones, then the others, each by falling probability.
        uncertainty: in [0, 1].
        calibrated: whether the probabilities were fitted on validation images.
        trained: whether the weights come from training.
        ood_score: above 1 the picture is unlike the training pictures; None where nobody knows.
        possible: the classes that cannot be ruled out at the level .1; empty where nobody knows.
        deferred: whether a person should see the picture.
    """

    bars: list[Bar]
    uncertainty: float
    calibrated: bool
    trained: bool
    ood_score: float | None = None
    possible: tuple[str, ...] = ()
    deferred: bool = False


def named(name: str, class_labels: Mapping[str, str]) -> str:
    """Returns a class as people call it, with its name behind it where that is no part of it: "melanoma (mel)"."""
    title = class_labels.get(name, name)
    known = f" {name.lower().replace('_', ' ')} " in f" {title.lower()} "
    return title if known or title == name else f"{title} ({name})"


def headline(answer: Answer) -> str:
    """Returns what is predicted, in one line."""
    predicted = [bar for bar in answer.bars if bar.predicted]
    if not predicted:
        return "no finding above its threshold"
    if len(predicted) == 1:
        return f"{shortened(predicted[0].title, 60)}   {percent(predicted[0].probability)}"
    rest = f"  + {len(predicted) - 3}" if len(predicted) > 3 else ""
    return "  ·  ".join(shortened(bar.title, 22) for bar in predicted[:3]) + rest


def draw_answer(page: Axes, answer: Answer) -> None:
    """Writes the headline, and to the right a bar for each of the first classes and what the bars mean.

    Args:
        page: axes whose units are pixels from the left and the top.
        answer: what is written.
    """
    page.text(20, 38, headline(answer), fontsize=17, weight="bold", color=_INK)
    shown = answer.bars[:BARS]
    for place, bar in enumerate(shown):
        _draw_bar(page, _TOP + place * _STEP, bar)
    for line, text in enumerate(explanations(answer)):
        page.text(_LEFT, _TOP + len(shown) * _STEP + 16 + 16 * line, text, fontsize=8, color=_FAINT)


def answer_end(answer: Answer) -> int:
    """Returns how many pixels from the top of the figure bars and their explanations need."""
    return _TOP + len(answer.bars[:BARS]) * _STEP + 16 * (1 + len(explanations(answer)))


def _draw_bar(page: Axes, top: float, bar: Bar) -> None:
    ink, colour, weight = (_INK, _ACCENT, "bold") if bar.predicted else (_FAINT, _GREY, "normal")
    page.text(
        _LEFT,
        top + 12,
        shortened(bar.title, _LONGEST if bar.predicted else _LONGEST + 3),
        fontsize=9,
        color=ink,
        weight=weight,
    )
    page.add_patch(Rectangle((_LEFT, top + 18), _FULL, 12, facecolor=_TRACK, linewidth=0, gid="track"))
    filled = Rectangle((_LEFT, top + 18), _FULL * bar.probability, 12, facecolor=colour, linewidth=0, gid="bar")
    page.add_patch(filled)
    if bar.threshold is not None:
        place = _LEFT + _FULL * bar.threshold
        page.plot([place, place], [top + 15, top + 33], color=_INK, linewidth=1.4, gid="threshold")
    value = percent(bar.probability)
    page.text(_LEFT + _WIDTH, top + 28.5, value, ha="right", fontsize=9, color=ink, weight=weight)


def explanations(answer: Answer) -> list[str]:
    """Returns what the bars mean and what limits them, a line each."""
    lines = []
    hidden = answer.bars[BARS:]
    if hidden:
        most = max(bar.probability for bar in hidden)
        also = sum(bar.predicted for bar in hidden)
        said = f", {also} of them predicted" if also else ""
        lines.append(f"{len(hidden)} more classes{said}, each at most {percent(most)}")
    if not answer.trained:
        lines.append("the model is not trained: these numbers mean nothing")
    elif answer.calibrated:
        lines.append("probabilities, calibrated on validation pictures")
    else:
        lines.append("the probabilities are not calibrated: only their order counts")
    if any(bar.threshold is not None for bar in answer.bars):
        lines.append("vertical mark: from here on the label is given")
    else:
        lines.append(f"uncertainty {answer.uncertainty:.2f} (0: one class is certain, 1: all equally likely)")
    return lines + limits(answer)


def limits(answer: Answer) -> list[str]:
    """Returns what the model knows about its limits for this picture, a line each."""
    lines = []
    if answer.possible:
        shown = ", ".join(shortened(name, 22) for name in answer.possible[:3])
        rest = f" and {len(answer.possible) - 3} more" if len(answer.possible) > 3 else ""
        lines.append(f"not ruled out (at 90 %): {shown}{rest}")
    if answer.ood_score is not None and answer.ood_score > 1:
        lines.append(f"UNLIKE THE TRAINING PICTURES ({answer.ood_score:.1f} times the limit)")
    if answer.deferred:
        lines.append("A PERSON SHOULD SEE THIS PICTURE")
    return lines


def percent(probability: float) -> str:
    """Returns a probability as a percentage; neither 0 nor 100 where it is not exactly that."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < probability < 1 else f"{100 * probability:.1f} %"


def shortened(title: str, length: int) -> str:
    """Cuts a title, but keeps the name in brackets at its end."""
    plain = plain_text(title)
    start = plain.rfind(" (") if plain.endswith(")") else -1
    name = plain[start:] if start > 0 else ""
    if len(plain) <= length or len(name) > length // 2:
        return plain_text(plain, length)
    return plain_text(plain[: len(plain) - len(name)], length - len(name)) + name
