"""A column of labels: which cells hold one label, which several, and which none; decided for the column as a whole."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from diffmiczoo.data.cells import (
    composed,
    is_missing,
    join_cell,
    list_cell,
    listed_values,
    plain_text,
    split_cell,
    whole_numbers,
)
from diffmiczoo.errors import InvalidValueError

_DASHES = "[-_\N{EN DASH}]+"
_BESIDE_A_LETTER = re.compile(rf"(?<=[^\W\d_]){_DASHES}(?=[^\W_])|(?<=[^\W_]){_DASHES}(?=[^\W\d_])")
_BETWEEN_DIGITS = re.compile(rf"(?<=\d){_DASHES}(?=\d)")

#: What joins several labels besides `|`, if the labels themselves show that it does.
_JOINING = (";", ",")

#: What may join several labels, but stands in names of classes too often to be taken for it.
_DOUBTFUL = (" ", "/", "+", "&")


@dataclass(frozen=True)
class LabelColumn:
    """What a column of labels says.

    Attributes:
        labels: of each cell; None where the cell says that they are missing.
        notes: what was decided, a sentence each.
    """

    labels: tuple[tuple[str, ...] | None, ...]
    notes: tuple[str, ...] = ()


def read_labels(
    cells: Sequence[str], where: Sequence[str], class_names: Sequence[str] | None = None, task: str | None = None
) -> LabelColumn:
    """Reads the cells of a column of labels.

    Args:
        cells: as they are written.
        where: what errors call each cell, such as "t.csv, line 4".
        class_names: the classes, if they are known; a cell that is one of them is that label, whatever it looks like,
            but for a list of others of them, as tables of this package are written.
        task: "multiclass" or "multilabel" where somebody said so.

    Raises:
        ValueError: whether a cell holds one label or several cannot be told, or its label is a word such as "none"; the
            message names the cell and how to write it.
    """
    known = frozenset(class_names or ())
    cells = [cell if cell in known or cell.startswith("[") else plain_text(cell) for cell in cells]
    found = [_certain(text, place, known) for text, place in zip(cells, where, strict=True)]
    open_places = [index for index, labels in enumerate(found) if labels is _OPEN]
    texts = whole_numbers([cells[index].strip() for index in open_places])
    notes = []
    if texts != [cells[index].strip() for index in open_places]:
        notes.append("labels such as 1.0 are read as 1")
    places = [where[index] for index in open_places]
    separators, said = _separators(texts, places, known, task)
    for index, labels in zip(
        open_places, _spelled_alike([_parts(t, separators) for t in texts], places, known), strict=True
    ):
        found[index] = labels
    _check_vectors(cells, found, where)
    _check_twice(cells, found, where)
    return LabelColumn(tuple(found), (*notes, *said))


#: Stands for a cell that only the whole column can explain.
_OPEN: tuple[str, ...] = ("",)


def _certain(text: str, place: str, known: frozenset[str]) -> tuple[str, ...] | None:
    """Returns the labels of a cell that needs no other one to be read, None for missing ones, else `_OPEN`."""
    for exact in (text, text.strip()):
        if exact in known and not _lists_others(exact, known):
            return (exact,)
    try:
        listed = listed_values(text)
    except ValueError as error:
        raise InvalidValueError(f"{place}: label {text!r} is {error}; give labels joined by | instead") from error
    if listed is not None:
        return listed
    if is_missing(text):
        return None
    if not text.strip():
        return ()
    if text.strip().lower() == "none":
        raise InvalidValueError(
            f"{place}: label {text.strip()!r} may be a class or a missing label; write NA for a row to be left out, an "
            'empty cell where no label of several applies, or another name for the class, such as "no finding"'
        )
    return _OPEN


def _lists_others(text: str, known: frozenset[str]) -> bool:
    """Whether the name of a class is also how a table would list others."""
    try:
        listed = listed_values(text)
    except ValueError:
        return False
    return bool(listed and known.issuperset(listed))


def _parts(text: str, separators: Sequence[str]) -> tuple[str, ...]:
    for sign in separators:
        text = text.replace(sign, "|")
    return split_cell(text) if not text.startswith("[") else (text,)


def _separators(
    texts: Sequence[str], places: Sequence[str], known: frozenset[str], task: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns which signs join labels in a column, and sentences about it."""
    separators, notes = ["|"], []
    if any("|" in text for text in texts):
        notes.append("labels joined by | are several labels")
    for sign in _JOINING:
        joined = [(text, place) for text, place in zip(texts, places, strict=True) if sign in text]
        if not joined:
            continue
        first, place = joined[0]
        several = _are_several(sign, texts, known, task)
        if several is None:
            raise InvalidValueError(
                f"{place}: label {first!r} may be one label or several; write {first.replace(sign, '|')!r} for "
                f"several, {list_cell([first])} for one, or set the task: multiclass for one, multilabel for several"
            )
        if several:
            separators.append(sign)
            notes.append(f"labels joined by {sign!r} are several labels, first {first!r}")
        elif not known:
            notes.append(f"labels with {sign!r} in them are one label each, first {first!r}")
    if task != "multiclass" and not known:
        _check_doubtful([(part, p) for t, p in zip(texts, places, strict=True) for part in _parts(t, separators)])
    return tuple(separators), tuple(notes)


def _are_several(sign: str, texts: Sequence[str], known: frozenset[str], task: str | None) -> bool | None:
    """Whether a sign joins several labels; None where that cannot be told."""
    combinations = {text: _parts(text, (sign,)) for text in set(texts) if sign in text}
    if known:
        inside = [set(parts) <= known for parts in combinations.values()]
        return True if all(inside) else None if any(inside) else False
    if task == "multilabel":
        return True
    occurs = Counter(part for text in set(texts) for part in set(_parts(text, (sign,))))
    # A label that occurs elsewhere too is a label of its own.
    again = [[occurs[part] > 1 for part in parts] for parts in combinations.values()]
    if all(map(all if sign == "," else any, again)):
        return True
    if task == "multiclass" or (sign == "," and not any(map(any, again))):
        return False
    return None


def _check_doubtful(labels: Sequence[tuple[str, str]]) -> None:
    single = {text for text, _ in labels}
    for sign in _DOUBTFUL:
        for text, place in labels:
            parts = [part.strip() for part in text.split(sign) if part.strip()]
            if len(parts) > 1 and set(parts) <= single:
                raise InvalidValueError(
                    f"{place}: label {text!r} may be {len(parts)} labels, because {' and '.join(parts)} are labels of "
                    f"other rows; write {'|'.join(parts)!r} for several, or set the task to multiclass for one"
                )


def _spelled_alike(
    labels: Sequence[tuple[str, ...]], places: Sequence[str], known: frozenset[str]
) -> Sequence[tuple[str, ...]]:
    """Refuses labels that differ in how they are written only, see `spelling_key`, unless they are known classes.

    Raises:
        ValueError: the message names two places.
    """
    spellings: dict[str, dict[str, str]] = defaultdict(dict)
    for each, place in zip(labels, places, strict=True):
        for label in each:
            spellings[spelling_key(label)].setdefault(label, place)
    for found in spellings.values():
        if len(found) > 1 and not known:
            (one, first), (other, second) = list(found.items())[:2]
            raise InvalidValueError(
                f"{first} has the label {one!r}, {second} {other!r}; write a class everywhere in the same way, "
                "or name both if they are two: class_names=[...]"
            )
    return labels


def spelling_key(label: str) -> str:
    """Returns what two spellings of a name have in common that differ in how they are written only.

    That is in case and blanks, in `_` and `-` within it beside a letter (between digits they stay, and at an end: 1-2
    is not 12, nor is HER2- HER2), and in zeros before a number.
    """
    joined = _BETWEEN_DIGITS.sub("-", _BESIDE_A_LETTER.sub("", case_key(label)))
    return str(int(joined)) if joined.isdecimal() else joined


def case_key(label: str) -> str:
    """Returns what two spellings of a name have in common that differ in case and blanks only."""
    return "".join(composed(label).split()).casefold()


def _check_vectors(cells: Sequence[str], found: Sequence[tuple[str, ...] | None], where: Sequence[str]) -> None:
    """Refuses lists that may be vectors of 0 and 1 as well as class numbers."""
    lists = [
        (labels, cell, place)
        for labels, cell, place in zip(found, cells, where, strict=True)
        if labels and cell.strip()[:1] in ("[", "(", "{", "a")
    ]
    lengths = {len(labels) for labels, _, _ in lists}
    if len(lengths) == 1 and min(lengths) > 1 and all(set(labels) <= {"0", "1"} for labels, _, _ in lists):
        raise InvalidValueError(
            f"{lists[0][2]}: label {lists[0][1]!r} may be a vector of 0 and 1 or a list of class numbers; give a "
            "column of 0 and 1 for each label, or the names of the labels"
        )


def _check_twice(cells: Sequence[str], found: Sequence[tuple[str, ...] | None], where: Sequence[str]) -> None:
    for labels, cell, place in zip(found, cells, where, strict=True):
        if labels and len(set(labels)) < len(labels):
            raise InvalidValueError(f"{place}: a label is given twice in {cell!r}")


def label_cells(labels: Sequence[tuple[str, ...]]) -> list[str]:
    """Writes the labels of images as cells that `read_labels` reads back as they are, whatever task somebody names.

    Args:
        labels: of each image.
    """
    cells = [join_cell(each) for each in labels]
    tasks = (None, "multiclass", "multilabel")
    try:
        same = all(read_labels(cells, [""] * len(cells), task=task).labels == tuple(labels) for task in tasks)
    except InvalidValueError:
        same = False
    return cells if same else [list_cell(each) if each else "" for each in labels]
