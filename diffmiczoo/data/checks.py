"""Checks of labelled images before training: classes without images, leaks between splits, duplicates."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.copies import copied_images
from diffmiczoo.data.data_report import DataReport
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.duplicates import Prints
from diffmiczoo.data.finding import CopiedImages
from diffmiczoo.data.image_cache import as_bytes
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.data.splits import leaks
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.loading import read_squares
from diffmiczoo.runtime.progress import progress_bar

#: Squares whose prints are computed at once.
_BATCH = 64


def check_data(
    splits: dict[str, ImageDataset], whole: Manifest, *, made: str = "", progress: bool | None = None
) -> DataReport:
    """Compares the images of all splits with each other; those of the test split are read for it, one at a time.

    Args:
        splits: "train" and "val" → their images, decoded.
        whole: all images with their groups, for the count of torn groups and for the test split.
        made: a sentence on splits that were made.
        progress: show a bar while test images are read; by default where the standard error is a terminal.
    """
    counts = {name: data.manifest.counts for name, data in splits.items()}
    records = [(name, record) for name, data in splits.items() for record in data.manifest.records]
    prints = [Prints.of(data.squares.split(_BATCH), len(data)) for data in splits.values()]
    unreadable: list[str] = []
    test = whole.with_records(record for record in whole.records if record.split == "test" and "test" not in splits)
    if len(test):
        config = next(iter(splits.values())).config
        read, unreadable, of_test = _read_prints(test, config, progress)
        records, prints = [*records, *(("test", record) for record in read)], [*prints, of_test]
        counts["test"] = test.counts
    copied = copied_images(records, Prints.joined(prints), everywhere=False)
    return DataReport(
        counts=counts,
        without_images={
            name: missing
            for name, classes in counts.items()
            if (missing := [label for label, count in classes.items() if not count])
        },
        leaks={" and ".join(pair): groups for pair, groups in leaks(whole).items()},
        duplicates=[images for images in copied if images.across_splits],
        contradictions=[images for images in copied if images.contradicts],
        unreadable=unreadable,
        made=made,
        task=whole.task,
        name=whole.name,
    )


def _read_prints(
    manifest: Manifest, config: DiffMICConfig, progress: bool | None
) -> tuple[list[Record], list[str], Prints]:
    """Returns the images that can be read, what is wrong with the others, and the prints of the former."""
    records: list[Record] = []
    unreadable: list[str] = []

    def batches() -> Iterator[Tensor]:
        squares: list[Tensor] = []
        items = [record.item() for record in manifest.records]
        with progress_bar(len(items), f"compare {manifest.name}", "img", progress) as bar:
            for record, square in zip(manifest.records, read_squares(items, config), strict=True):
                bar.update()
                if isinstance(square, ImageError):
                    unreadable.append(str(square))
                    continue
                records.append(record)
                squares.append(as_bytes(square))
                if len(squares) == _BATCH:
                    yield torch.stack(squares)
                    squares.clear()
        if squares:
            yield torch.stack(squares)

    prints = Prints.of(batches(), len(manifest))
    return records, unreadable, prints


def find_copies(manifest: Manifest, config: DiffMICConfig, progress: bool | None = None) -> list[CopiedImages]:
    """Returns the images of a manifest that show the same picture as another one of it.

    Args:
        manifest: the images; those that cannot be read are left out.
        config: for size and crop of the squares that are compared.
        progress: show a bar; by default where the standard error is a terminal.
    """
    read, _, prints = _read_prints(manifest, config, progress)
    return copied_images([(record.split or "no split", record) for record in read], prints, everywhere=True)
