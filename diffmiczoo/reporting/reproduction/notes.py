"""What a table says of itself: budget, time, machine, seeds, splits with their leaks, and what it does not show."""

from __future__ import annotations

from collections.abc import Sequence

from diffmiczoo.reporting.reproduction.methods import PAPER
from diffmiczoo.reporting.reproduction.planning import Target
from diffmiczoo.reporting.reproduction.records import Leaks, RunRecord, SplitRecord
from diffmiczoo.reporting.reproduction.summary import ENOUGH_SEEDS
from diffmiczoo.reporting.reproduction.variants import PROTOCOL_TITLES, Budget, Variant


def made_of(budget: Budget, records: Sequence[RunRecord], wanted: int) -> list[str]:
    """Says how a table was made.

    Args:
        budget: of the runs.
        records: the finished ones.
        wanted: how many runs there are to be.
    """
    lines = [f"{budget.sentence}."]
    if not records:
        return [*lines, f"No run is finished ({wanted:,} are wanted); the same command does them."]
    hours = sum(record.seconds for record in records) / 3600
    machines, commits = (sorted({getattr(each, name) for each in records}) for name in ("hardware", "commit"))
    versions = sorted({record.version for record in records})
    build = ", ".join(f"commit {name}" for name in commits if name) or "no commit known"
    lines.append(
        f"{len(records):,} of {wanted:,} runs are finished, {hours:.2f} hours of training and test on "
        f"{'; '.join(machines)}; diffmiczoo {', '.join(versions)}, {build}."
    )
    if len(records) < wanted:
        lines.append("It is not finished: rows with a dash, or with fewer seeds, wait for the same command to go on.")
    return lines


def seeds_note(counts: Sequence[int]) -> str:
    """Says how many seeds the rows have.

    Args:
        counts: of each row that has any.
    """
    least, most = min(counts, default=0), max(counts, default=0)
    words = f"{most} seeds" if least == most else f"{least} to {most} seeds"
    words = "1 seed" if most == 1 else words
    text = f"Mean ± sample standard deviation over {words} of parameters and training; the split is the same for all."
    if least < ENOUGH_SEEDS:
        text += f" **Fewer than {ENOUGH_SEEDS} seeds: a difference between rows may be chance.**"
    return text


def tests_note(task: str, ours: str) -> str:
    """Says which tests the p-values are of."""
    test = "McNemar's exact test on which pictures are right"
    if task == "multilabel":
        test = "a paired t-test on the Brier score per cluster of related pictures"
    return (
        f"p: {test}, each row against {ours} on the same test pictures with the same seed; the largest of the seeds is "
        "shown. Not corrected for the number of tests. All tests are in the JSON file."
    )


def split_notes(splits: Sequence[SplitRecord]) -> list[str]:
    """Says how each split was made and how much of it leaks."""
    return [f"{PROTOCOL_TITLES[each.protocol]}: {each.rule}; {_counts(each)}; {_leaks(each)}" for each in splits]


def _counts(split: SplitRecord) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in split.counts.items())


def _leaks(split: SplitRecord) -> str:
    whole = "" if split.whole is None else f" Of all pictures of the data set, split so: {_leak_words(split.whole)}."
    return f"{_leak_words(split.leaks)}.{whole}"


def _leak_words(leaks: Leaks) -> str:
    if not leaks.either:
        return f"none of {leaks.test:,} test pictures has a relative in training or validation"
    share = leaks.either / max(leaks.test, 1)
    groups = "" if leaks.groups is None else f"{leaks.groups:,} of the same lesion, patient or the like by the data; "
    return (
        f"**{leaks.either:,} of {leaks.test:,} test pictures ({share:.1%}) have a relative in training or validation** "
        f"({groups}{leaks.copies:,} with a near copy there)"
    )


def not_shown_by(target: Target, budget: Budget, splits: Sequence[SplitRecord], starts: set[bool]) -> list[str]:
    """Says what is not to be read out of a table.

    Args:
        target: the table.
        budget: of its runs.
        splits: of its data.
        starts: whether encoders start from ImageNet's weights: of some rows, of others.
    """
    lines = []
    if budget.name != "full":
        lines.append(
            "How good the methods are: pictures are small and few, models and training short. It shows that the "
            "protocol runs; `--budget full` is the paper's setting."
        )
    for split in splits:
        if split.stands_for not in ("", split.dataset):
            lines.append(f"Anything about {split.stands_for.upper()}: {split.title}.")
    if starts == {True, False}:
        lines.append(
            "A comparison of rows whose encoders start from ImageNet's weights with those that start from random ones."
        )
    if any(split.protocol == "paper" for split in splits):
        lines.append(
            "The paper's own split: its lists are not published, so that pictures dealt by image are of the same kind, "
            "not the same."
        )
    if target.kind == "comparison":
        lines.append(f"Rows of the paper that cannot be had here. Quoted figures are those of {PAPER}, as printed.")
    lines.append("How much the choice of the split matters: one split for all seeds.")
    return list(dict.fromkeys(lines))


def row_notes(rows: Sequence[Variant]) -> list[str]:
    """Returns what is to be known of rows."""
    return [f"{row.title}: {row.note}." for row in rows if row.note]
