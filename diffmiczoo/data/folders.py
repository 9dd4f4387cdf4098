"""Folders of labelled images: a sub-folder per class, or one per split with these inside, or the other way round."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffmiczoo.data.cells import composed
from diffmiczoo.data.folder_tree import FolderTree
from diffmiczoo.data.label_cells import case_key, spelling_key
from diffmiczoo.data.manifest import Reading, Record
from diffmiczoo.data.rows import TABLE_EXTENSIONS
from diffmiczoo.data.split_names import split_in
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.items import list_folder

#: Sub-folders that only hold what their parent is about.
_PLAIN = frozenset("images image imgs img pictures data jpg jpeg png".split())

#: Names of folders inside of classes: sides, views, planes, magnifications, kinds of pictures.
_PART = re.compile(
    r"left|right|l|r|od|os|ap|pa|lateral|frontal|cc|mlo|axial|coronal|sagittal|t1|t2|flair|\d+x|rgb|grey|gray|original|"
    r"raw|cropped|augmented|macro|micro|dermoscopic|clinical|images?|imgs?|masks?",
    re.IGNORECASE,
)

#: Names of folders of cross-validation.
_FOLD = re.compile(r"(cv|k)?[ _-]?folds?[ _-]?\d*", re.IGNORECASE)


def folder_records(
    folder: Path, map_split: Mapping[str, str] | None = None, class_names: Sequence[str] | None = None
) -> Reading:
    """Reads a folder with a sub-folder per class, with such folders in `train`, `val` and `test`, or these in classes.

    Split folders may have any usual name in any case. Masks and thumbnails of pictures that lie there too, hidden
    files, folders of operating systems, empty folders and what lies beside classes or splits are left out, and said.

    Args:
        folder: where to look; one folder that holds all others is looked into.
        map_split: further names of split folders → train, val, test, or skip for folders that are left out.
        class_names: the classes, where they are known.

    Raises:
        ImageError: there is no image.
        ValueError: there are not at least two classes, or what is a class and what a split cannot be told.
    """
    known = frozenset(map(case_key, class_names or ()))
    tree = FolderTree(folder, list_folder(folder, may_be_empty=True, follow_links=True), dict(map_split or {}), known)
    root = tree.unwrapped()
    inside = tree.with_images(root)
    _name_splits(tree, inside)
    splits = [entry for entry in inside if tree.split_of(entry) is not None]
    labelled = [entry for entry in splits if tree.with_images(entry)]
    if labelled:
        records = _of_splits(tree, root, labelled)
    elif splits:
        records = _beside_unlabelled_splits(tree, root, splits)
    elif len(inside) > 1 and any(tree.has_splits(entry) for entry in inside):
        records = _splits_in_classes(tree, root, inside)
    else:
        records = _of_classes(tree, root, inside, None)
        _check_outer(tree, inside)
    records = _same_spelling(tree, records, frozenset(class_names or ()))
    return Reading(tuple(_each_once(tree, records)), tuple(tree.notes), tree.skipped())


def _name_splits(tree: FolderTree, folders: Sequence[Path]) -> None:
    """Takes folders such as dataset_train and dataset_test for splits if all are named so and hold the same classes.

    Where one has a plain name, such as train, train_augmented beside it is left out.
    """
    if any(tree.split_of(entry) for entry in folders):
        return
    named = {entry.name: split_in(entry.name) for entry in folders}
    inside = [{inner.name for inner in tree.with_images(entry)} for entry in folders]
    found = set(named.values())
    if len(found) > 1 and "train" in found and None not in found and set.intersection(*inside):
        tree.words.update({name: split for name, split in named.items() if split is not None})


def _of_splits(tree: FolderTree, root: Path, labelled: Sequence[Path]) -> list[Record]:
    """Reads split folders with a folder per class."""
    others = [entry for entry in tree.with_images(root) if entry not in labelled]
    unlabelled = [entry for entry in others if tree.split_of(entry) is not None]
    no_splits = [entry for entry in others if entry not in unlabelled]
    if no_splits and all(tree.split_of(entry) != "train" for entry in labelled):
        raise InvalidValueError(
            f"{tree.root}: {tree.names(labelled)} holds a folder per class, and {tree.names(no_splits)} beside it "
            "belongs to no split; put it into a folder train/, or elsewhere"
        )
    tree.leave("split folders whose images are not in a folder per class", unlabelled)
    tree.leave("folders that are no split", no_splits)
    tree.leave_beside(root)
    by_split = {entry: tree.split_of(entry) or "" for entry in labelled}
    told = [f"{tree.name(entry)} as {split}" for entry, split in by_split.items() if entry.name != split]
    if told:
        tree.notes.append(f"folders used: {', '.join(told)}")
    records = []
    for entry, split in by_split.items():
        inside = tree.with_images(entry)
        if len(inside) == 1 and _only_wraps(tree, inside[0], split) and tree.with_images(inside[0]):
            tree.leave_beside(entry)
            entry, inside = inside[0], tree.with_images(inside[0])
        records += _of_classes(tree, entry, inside, split)
    return records


def _only_wraps(tree: FolderTree, folder: Path, split: str) -> bool:
    """Whether the one folder in a split is none of its classes: `images`, or the split's name once more."""
    return folder.name.lower() in _PLAIN or tree.split_of(folder) == split


def _beside_unlabelled_splits(tree: FolderTree, root: Path, splits: Sequence[Path]) -> list[Record]:
    """Reads classes beside which lie split folders without classes, such as a `test` of unknown ones."""
    classes = [entry for entry in tree.with_images(root) if entry not in splits]
    if len(classes) < 2 or any(tree.split_of(entry) == "train" for entry in splits):
        raise InvalidValueError(
            f"{tree.root}: {tree.names(splits)} is named like a split and has no folder per class in it, so that its "
            "images have no labels; make a folder per class in it, or hand in a table of files and labels. If it is a "
            "class, rename it"
        )
    tree.leave("split folders whose images are not in a folder per class", splits)
    return _of_classes(tree, root, classes, None)


def _splits_in_classes(tree: FolderTree, root: Path, classes: Sequence[Path]) -> list[Record]:
    """Reads a folder per class with split folders in it."""
    without = [entry for entry in classes if not _only_splits(tree, entry)]
    if without:
        whole = next(entry for entry in classes if tree.has_splits(entry))
        raise InvalidValueError(
            f"{tree.root}: {tree.name(whole)} holds split folders, {tree.name(without[0])} holds other images too; put "
            "all images of all classes into split folders, or none"
        )
    inner = [{e.name for part in tree.with_images(entry) for e in tree.with_images(part)} for entry in classes]
    same = set.intersection(*inner)
    if len(same) > 1:
        raise InvalidValueError(
            f"{tree.root}: {tree.names(classes)} are data sets of their own, each with splits and the folders "
            f"{' and '.join(sorted(same)[:4])}; hand in one of them"
        )
    tree.leave_beside(root)
    tree.notes.append("splits are read from the folders inside the classes")
    return [
        Record(path, (composed(entry.name),), tree.split_of(part))
        for entry in classes
        for part in tree.with_images(entry)
        for path in tree.below(part)
    ]


def _only_splits(tree: FolderTree, folder: Path) -> bool:
    inside = tree.with_images(folder)
    return bool(inside) and not tree.direct(folder) and all(tree.split_of(entry) is not None for entry in inside)


def _of_classes(tree: FolderTree, root: Path, classes: Sequence[Path], split: str | None) -> list[Record]:
    """Reads a folder per class; what lies deeper belongs to the class."""
    copies = [entry for entry in classes if _holds_all(tree, entry, classes)]
    tree.leave("folders that hold all classes once more", copies)
    classes = [entry for entry in classes if entry not in copies]
    if split is None and len(classes) < 2 and not any(map(tree.is_known, classes)):
        raise InvalidValueError(_too_few(tree, root, classes))
    for entry in classes:
        if _FOLD.fullmatch(entry.name):
            raise InvalidValueError(
                f"{tree.root}: {tree.name(entry)} is named like a fold of cross-validation, not like a class; hand in "
                "one fold with train and val in it, or a table with a column split"
            )
        if tree.split_of(entry) is not None:
            raise InvalidValueError(
                f"{tree.root}: {tree.name(entry)} lies where classes are and is named like a split; rename it if it is "
                "a class, or move it beside the other splits"
            )
    tree.leave_beside(root)
    deep = [entry for entry in classes if any(e.name.lower() not in _PLAIN for e in tree.with_images(entry))]
    if deep and not any(note.startswith("images lie in sub-folders") for note in tree.notes):
        below = next(e for e in tree.with_images(deep[0]) if e.name.lower() not in _PLAIN)
        tree.notes.append(
            f"images lie in sub-folders of classes, such as {tree.name(below)}, and belong to the class; if these are "
            "patients, hand in a table with a column group instead, so that no patient is on two sides of a split; if "
            "these are the classes, put them beside each other"
        )
    return [Record(path, (composed(entry.name),), split) for entry in classes for path in tree.below(entry)]


def _check_outer(tree: FolderTree, classes: Sequence[Path]) -> None:
    """Refuses folders that hold folders of the same names, which may be the classes: patients, sites or sets of data.

    Sides, views and magnifications inside of classes are no classes, nor are numbered folders unless the outer ones are
    numbered too.
    """
    inside = [{entry.name for entry in tree.with_images(folder)} for folder in classes]
    inner = set().union(*inside)
    shared = all(sum(name in names for names in inside) > 1 for name in inner)
    if len(classes) < 2 or len(inner) < 2 or not shared or any(map(tree.direct, classes)):
        return
    parts = all(map(_PART.fullmatch, inner)) or (_numbered(inner) and not _numbered({e.name for e in classes}))
    if parts or all(map(tree.is_known, classes)):
        return
    within = " and ".join(sorted(inner)[:4])
    raise InvalidValueError(
        f"{tree.root}: {tree.names(classes)} hold folders of the same names, {within}, so that either may be the "
        f"classes; if {within} are, hand in a table with the columns file, label and group, or put the images into one "
        "folder per class; if the outer ones are, name them: class_names=[...] (--class-names)"
    )


def _numbered(names: set[str]) -> bool:
    return len({re.sub(r"\d+", "0", name) for name in names}) == 1


def _each_once(tree: FolderTree, records: Sequence[Record]) -> Sequence[Record]:
    """Takes an image once that links show under several names."""
    if not any(entry.is_symlink() for entry in tree.listing.folders):
        return records
    first: dict[Path, Record] = {}
    for record in records:
        other = first.setdefault(record.path.resolve(), record)
        if (other.labels, other.split) != (record.labels, record.split):
            one, two = tree.plain_name(other.path), tree.plain_name(record.path)
            raise InvalidValueError(
                f"{tree.root}: {one} and {two} are the same file, by a link, in two classes or splits; remove one"
            )
    once = list(first.values())
    kept = {record.path for record in once}
    tree.leave("links to images that are there already", [r.path for r in records if r.path not in kept])
    return once


def _holds_all(tree: FolderTree, folder: Path, classes: Sequence[Path]) -> bool:
    """Whether a folder holds nothing but folders named like all the others, as some archives hold everything twice."""
    others = {entry.name for entry in classes if entry != folder}
    inside = {entry.name for entry in tree.with_images(folder)}
    return len(others) > 1 and others <= inside and not tree.direct(folder)


def _too_few(tree: FolderTree, root: Path, classes: Sequence[Path]) -> str:
    found = [f"{len(tree.direct(root))} images without a folder"] if tree.direct(root) else []
    found += [f"the folder {tree.name(entry)}" for entry in classes]
    found += [f"{tree.name(entry)} without images" for entry in tree.empty(root)[:4]]
    tables = [path for path in tree.listing.others if path.suffix.lower() in (*TABLE_EXTENSIONS, ".json", ".jsonl")]
    unlikely = (".jsonl", ".json", ".txt")  # JSON is not read, and a text may be anything
    likely = sorted(tables, key=lambda path: unlikely.index(path.suffix) if path.suffix in unlikely else -1)
    hint = f"; if {tree.plain_name(likely[0])} lists the images, hand in {likely[0]}" if likely else ""
    hint += " after saving it as CSV" if likely and likely[0].suffix.lower() in (".json", ".jsonl") else ""
    return (
        f"{tree.root}: expected a labels.csv, or at least two sub-folders with images, one per class; found "
        f"{', '.join(found) or 'nothing'}{hint}"
    )


def _same_spelling(tree: FolderTree, records: Sequence[Record], known: frozenset[str]) -> list[Record]:
    """Gives classes that differ in how they are written between splits the spelling of the first; training goes first.

    Known classes are as many as they are.
    """
    spelled: dict[str, dict[str, set[str | None]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        label = record.labels[0]
        spelled[label if label in known else spelling_key(label)][label].add(record.split)
    names: dict[str, str] = {}
    for found in spelled.values():
        first, *others = sorted(found, key=lambda name: ("train" not in found[name], name))
        for other in others:
            if found[first] & found[other]:
                raise InvalidValueError(
                    f"{tree.root}: the folders {first!r} and {other!r} differ only in how they are written; give them "
                    "one name if they are one class, else name both: class_names=[...]"
                )
            tree.notes.append(f"the folders {first!r} and {other!r} of different splits are one class, {first!r}")
            names[other] = first
    spelled_as = {name: names.get(name, name).strip() for found in spelled.values() for name in found}
    return [Record(record.path, (spelled_as[record.labels[0]],), record.split) for record in records]
