"""The classes of data beside those of a model: matched by name, never by place without a word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.cells import plain_text
from diffmiczoo.data.labels import names_of, number_text
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import InvalidValueError, warn

#: What to do where numbers meet names.
SAY_NAMES = "class_names=[...] (--class-names a,b,c; or 1=a,2=b,3=c) says what class numbers stand for, 0 first"


def match_classes(manifest: Manifest, config: DiffMICConfig, advice: str = "") -> Manifest:
    """Returns the images with the classes of a model, in its order.

    Classes are matched by name; names that differ in nothing but case, spaces, hyphens or underscores match too. Class
    numbers without names are places of a model without names; of one with names they are taken for places only if they
    are 0, 1, … for every class, with a warning.

    Args:
        manifest: of any classes.
        config: the model's; its `labels` are the names.
        advice: what else to do, for the error message.

    Raises:
        ValueError: a class is none of the model's, or it is not known which.
    """
    own = config.labels
    renamed = own_names(manifest.class_names, own)
    if renamed is None and not manifest.named:
        renamed = _places(manifest, config)
    if renamed is None:
        remedy = advice if manifest.named else "; ".join(part for part in (SAY_NAMES, advice) if part)
        raise InvalidValueError(
            f"{manifest.name} has the classes {list(manifest.class_names)}, the model {list(own)}"
            + _unknown(manifest.class_names, own)
            + (f"; {remedy}" if remedy else "")
        )
    absent = [name for name in own if name not in renamed.values()]
    if absent and manifest.task == "multilabel":
        warn(f"no image of {manifest.name} has the labels {', '.join(absent)}; they count as absent from all of them")
    return manifest.with_classes(own, renamed)


def _unknown(names: Sequence[str], own: Sequence[str]) -> str:
    """Says which names a model lacks, where it has others."""
    unknown = [name for name in names if _plain(name) not in map(_plain, own)]
    return f"; it does not know {unknown}" if 0 < len(unknown) < len(names) else ""


def own_names(names: Iterable[str], own: Sequence[str]) -> dict[str, str] | None:
    """Returns name → the name that a model has for that class; None where it lacks one of them.

    Warns:
        UserWarning: names are matched that are not spelled the same.
    """
    spelled = {_plain(name): name for name in own}
    names = list(names)
    if len(spelled) < len(own):  # the model tells names apart by no more than their spelling
        spelled = {name: name for name in own}
    found = {name: name if name in own else spelled.get(_plain(name), "") for name in names}
    if not all(found.values()) or len(set(found.values())) < len(names):
        return None
    other = [f"{name!r} as {known!r}" for name, known in found.items() if name != known]
    if other:
        warn(f"classes that are spelled otherwise are read as the model's own: {', '.join(other)}")
    return found


def _plain(name: str) -> str:
    return "".join(letter for letter in plain_text(name).casefold() if letter not in " -_")


def _places(manifest: Manifest, config: DiffMICConfig) -> dict[str, str] | None:
    """Returns class number → the model's class at that place, if the numbers can be places."""
    numbers = {name: int(number_text(name) or 0) for name in manifest.class_names}
    if not config.class_names:
        fit = all(number < config.num_classes for number in numbers.values())
        return {name: config.labels[number] for name, number in numbers.items()} if fit else None
    if sorted(numbers.values()) != list(range(config.num_classes)):
        return None
    places = {name: config.class_names[number] for name, number in numbers.items()}
    warn(
        f"{manifest.name} has class numbers without names; they are taken for places in the model's classes "
        f"({', '.join(f'{number} = {name}' for number, name in places.items())}), which may be wrong: "
        f"{SAY_NAMES}"
    )
    return places


def select_classes(manifest: Manifest, classes: object) -> Manifest:
    """Returns the images of some classes, in the data's order, and says what is left out.

    Of several labels those of other classes are taken away, and the images stay.

    Args:
        manifest: of any classes.
        classes: names of at least two of them, as `labels.names_of` takes them.

    Raises:
        ValueError: the data lack one of them, or it is only one.
    """
    wanted = names_of(classes, "classes")
    missing = [name for name in wanted if name not in manifest.class_names]
    if missing or len(wanted) < 2:
        what = f"has no {missing}" if missing else f"needs at least two, not {list(wanted)}"
        raise InvalidValueError(f"classes: {manifest.name} {what}; its classes are {list(manifest.class_names)}")
    kept = [name for name in manifest.class_names if name in wanted]
    if manifest.task == "multilabel":
        records = [record.with_labels(name for name in record.labels if name in wanted) for record in manifest.records]
    else:
        records = [record for record in manifest.records if record.labels[0] in wanted]
    others = [name for name in manifest.class_names if name not in wanted]
    if others:
        warn(
            f"{manifest.name}: only {', '.join(kept)} are learned; {', '.join(others)} are left out, with "
            f"{len(manifest) - len(records)} of {len(manifest)} images"
        )
    return manifest.with_records(records).with_classes(kept, ordered=manifest.ordered)
