"""`audit`: what is wrong or odd about labelled images, before anything is trained on them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from diffmiczoo.data.columns import ColumnChoice
from diffmiczoo.data.copies import copied_images, shared_names
from diffmiczoo.data.data_report import DataReport
from diffmiczoo.data.manifest import SPLITS, Manifest, Record
from diffmiczoo.data.picture_facts import read_facts
from diffmiczoo.data.readers import Source, as_manifest
from diffmiczoo.data.split_names import split_of
from diffmiczoo.data.splits import leaks
from diffmiczoo.data.summary import reading_lines
from diffmiczoo.evaluation.give_aways import give_aways
from diffmiczoo.evaluation.suspicious import opinion_of
from diffmiczoo.model import DiffMICv2

#: What images without a split are called.
NO_SPLIT = "all"

#: What readers of folders say of folders that hold no image.
_EMPTY = "folders without images"


def audit(
    data: Any,
    *,
    model: DiffMICv2 | None = None,
    model_name: str = "the model",
    class_names: Any = None,
    task: str | None = None,
    batch_size: int = 32,
    progress: bool | None = None,
) -> DataReport:
    """Looks for what makes figures wrong: unreadable files, copies, leaks, conflicting labels, missing classes.

    Also for statistics of files and pixels that give the label away, and, with a model, for suspicious labels. No file
    is changed, and no random state. Each image is read once, and twice more with a model; 8 kB are in memory for each.

    Args:
        data: anything that `fit` takes. Of a table, rows of files that do not exist and rows that contradict each
            other are findings, not errors.
        model: to rank labels by how confidently it contradicts them.
        model_name: what the report calls it.
        class_names: what the class numbers of the data stand for, as `fit` takes them.
        task: "multiclass" or "multilabel"; by default what the labels tell.
        batch_size: images that the model computes at once.
        progress: show bars; by default where the standard error is a terminal.

    Returns:
        The report: `findings` in plain words, `wrong`, `save(path)`.

    Raises:
        FileNotFoundError, ValueError, TypeError: the data cannot be read as labelled images at all, or the model is for
            other classes.
    """
    manifest = audited(data, class_names=class_names, task=task)
    facts = read_facts(manifest, progress)
    names = shared_names(manifest.records)
    readable = manifest.with_records(manifest.records[place] for place in facts.places)
    copied = copied_images(
        [(_split(record), record) for record in readable.records],
        facts.prints,
        everywhere=True,
        names=[names[place] for place in facts.places],
    )
    counts = {
        split: manifest.with_records(record for record in manifest.records if _split(record) == split).counts
        for split in dict.fromkeys(map(_split, manifest.records))
    }
    opinion = None
    if model is not None:
        opinion = opinion_of(model, readable, model_name, batch_size=batch_size, progress=progress)
    return DataReport(
        counts=counts,
        without_images={
            split: missing
            for split, classes in counts.items()
            if (missing := [name for name, count in classes.items() if not count])
        },
        leaks={" and ".join(pair): groups for pair, groups in leaks(manifest).items()},
        duplicates=[images for images in copied if images.across_splits],
        contradictions=[images for images in copied if images.contradicts],
        unreadable=facts.unreadable,
        task=manifest.task,
        name=manifest.name,
        alike=[images for images in copied if not images.across_splits and not images.contradicts],
        blank=[names[place] for place in facts.blank],
        empty_folders=_empty_folders(manifest),
        give_aways=give_aways(readable, facts.statistics),
        opinion=opinion,
        notes=[*reading_lines(manifest), *filter(None, [facts.cut])],
    )


def audited(data: Any, *, class_names: Any = None, task: str | None = None) -> Manifest:
    """Reads data as `audit` does: with what is wrong with a table's rows, and one split after the other.

    Raises:
        FileNotFoundError, ValueError, TypeError: as `audit`.
    """
    if isinstance(data, str | os.PathLike):
        data = Source(data)
    if isinstance(data, Source):
        data = replace(data, choice=replace(data.choice or ColumnChoice(), keep_faults=True))
    manifest = as_manifest(data, class_names=class_names, task=task)
    order = [*SPLITS, None]
    return manifest.with_records(sorted(manifest.records, key=lambda record: order.index(record.split)))


def _split(record: Record) -> str:
    return record.split or NO_SPLIT


def _empty_folders(manifest: Manifest) -> list[str]:
    """Returns folders without images that are called neither like a class, which is counted, nor like a split."""
    names = [name for part in manifest.skipped if part.reason == _EMPTY for name in part.names]
    return [name for name in names if not (os.path.basename(name) in manifest.class_names or split_of(name))]
