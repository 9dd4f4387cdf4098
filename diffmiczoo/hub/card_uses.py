"""What a card says to those who have to decide whether to use weights: for whom, for what, and how it was checked.

The parts are those of the Applied Model Card of the Coalition for Health AI: uses and directions, warnings, and key
figures of usefulness, fairness and safety, each with the question it answers, the result and how to read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffmiczoo.hub.card_facts import CardFacts
from diffmiczoo.hub.card_tables import cell, table
from diffmiczoo.hub.checklist import NOT_REPORTED, in_a_cell
from diffmiczoo.metrics.report import number_text
from diffmiczoo.metrics.robustness import Robustness
from diffmiczoo.metrics.subgroups import SubgroupTable
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.metrics.trust import percent
from diffmiczoo.runtime.text import markdown_text

#: What tells how often a model is right: of one class, of several labels.
_RIGHT = ("balanced_accuracy", "auroc")
_READINGS = {
    "balanced_accuracy": "mean over the classes of how many of their images are found",
    "auroc": "how often an image with a label gets a higher probability for it than one without; 0.5 is chance",
}


@dataclass(frozen=True)
class KeyFigure:
    """One line of the table of key figures."""

    kind: str
    question: str
    result: str = f"*{NOT_REPORTED}*"
    reading: str = ""


def uses_table(facts: CardFacts) -> str:
    """Returns who may use weights for what, and who must not."""
    texts = {
        "users": facts.users,
        "pictures of whom": facts.population,
        "not for": " ".join(facts.out_of_scope),
        "fairness": facts.fairness,
        "safety": facts.safety,
        "what a wrong answer does": facts.clinical_risk,
        "funding": facts.funding,
        "contact": facts.contact,
    }
    return table({"subject": list(texts), "what is known": list(map(in_a_cell, texts.values()))})


def key_figures(facts: CardFacts) -> str:
    """Returns the figures of usefulness, fairness and safety, as a table."""
    figures = [*_usefulness(facts), *_fairness(facts.subgroups), *_safety(facts)]
    return table(
        {
            "of": [figure.kind for figure in figures],
            "question": [figure.question for figure in figures],
            "result on the test split": [figure.result for figure in figures],
            "how to read it": [figure.reading for figure in figures],
        }
    )


def _usefulness(facts: CardFacts) -> list[KeyFigure]:
    name = next((name for name in _RIGHT if name in facts.metrics.values), "accuracy")
    label = find_metric(name).label
    reading = _READINGS.get(name, label)
    right = KeyFigure("usefulness", "How often is it right?", f"{label} {cell(facts.metrics, name)}", reading)
    against = KeyFigure("usefulness", "Is it better than a plain classifier?")
    if facts.opponent is not None and name in facts.opponent.differences:
        value, low, high = facts.opponent.differences[name]
        result = f"{label} {value:+.3f} [{low:+.3f}, {high:+.3f}] over {facts.opponent.name}"
        reading = "cannot be told apart" if low <= 0 <= high else ("better" if value > 0 else "**worse**")
        against = KeyFigure("usefulness", against.question, result, reading)
    return [right, against]


def _fairness(tables: tuple[SubgroupTable, ...]) -> list[KeyFigure]:
    question = "For whom is it worse?"
    found = []
    for each in tables:
        known = [group for group in each.subgroups if "accuracy" in group.values]
        if len(known) < 2:
            continue
        worst, best = (pick(known, key=lambda group: group.values["accuracy"]) for pick in (min, max))
        texts = [f"{markdown_text(group.name)} {group.cells(['accuracy'])[0]}" for group in (worst, best)]
        apart = not _overlap(worst.intervals.get("accuracy"), best.intervals.get("accuracy"))
        reading = "the intervals do not overlap" if apart else "the intervals overlap"
        result = f"accuracy by {markdown_text(each.column)}: lowest {texts[0]}, highest {texts[1]}"
        found.append(KeyFigure("fairness", question, result, reading))
    return found or [KeyFigure("fairness", question)]


def _overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    return one is None or other is None or (one[0] <= other[1] and other[0] <= one[1])


def _safety(facts: CardFacts) -> list[KeyFigure]:
    sure = KeyFigure("safety", "Do its probabilities mean what they say?")
    if "ece" in facts.metrics.values:
        reading = "mean distance of a stated probability from how often it comes true"
        sure = KeyFigure("safety", sure.question, f"ECE {cell(facts.metrics, 'ece')}", reading)
    foreign = KeyFigure("safety", "Does it notice pictures of another kind?")
    if facts.trust is not None and facts.trust.flagged:
        name, (share, count) = min(facts.trust.flagged.items(), key=lambda pair: pair[1][0])
        result = f"{percent(share)} of {count} from {markdown_text(name)} flagged"
        foreign = KeyFigure("safety", foreign.question, result, "the least of the kinds that were tried")
    return [sure, foreign, _spoilt(facts.robustness)]


def _spoilt(found: Robustness | None) -> KeyFigure:
    question = "Does it hold on spoilt pictures?"
    if found is None:
        return KeyFigure("safety", question)
    # With several labels most answers are no, so that accuracy hardly moves.
    several = "auroc" in found.clean.values and "balanced_accuracy" not in found.clean.values
    name = "auroc" if several else "accuracy"
    worst = min(found.worst(), key=lambda row: row.values[name])
    how = f"{worst.corruption.replace('_', ' ')}, severity {worst.severity}"
    clean, spoilt = (number_text(row.values[name]) for row in (found.clean, worst))
    flagged = "" if worst.flagged is None else f", {percent(worst.flagged)} of them flagged"
    return KeyFigure(
        "safety",
        question,
        f"{find_metric(name).label} {clean} → {spoilt} with {how}{flagged}",
        "the worst of the eight",
    )
