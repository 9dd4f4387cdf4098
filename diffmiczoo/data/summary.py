"""Labelled images in a few lines: classes, counts per split, what was decided, and what was left out and why."""

from __future__ import annotations

import logging
from collections import Counter

from diffmiczoo.data.manifest import SPLITS, Manifest

#: How many classes are counted in a line.
_CLASSES = 20

_logger = logging.getLogger("diffmiczoo")


def count_lines(manifest: Manifest) -> list[str]:
    """Returns a line for the data set and one for each split, with the number of images of each class."""
    lines = [f"{manifest.name}: {len(manifest):,} images, {len(manifest.class_names)} classes, {manifest.task}"]
    sizes = Counter(record.split for record in manifest.records)
    for split in (*SPLITS, None):
        if not sizes[split]:
            continue
        part = manifest.with_records(record for record in manifest.records if record.split == split)
        shown = [f"{name} {count:,}" for name, count in list(part.counts.items())[:_CLASSES]]
        if len(part.class_names) > _CLASSES:
            shown.append(f"and {len(part.class_names) - _CLASSES} more classes")
        lines.append(f"  {split or 'no split':<5} {sizes[split]:,}: {', '.join(shown)}")
    return [printable(line) for line in lines]


def reading_lines(manifest: Manifest) -> list[str]:
    """Returns a line for each decision that was made while reading, and for each kind of thing that was left out."""
    left = [f"left out {part}" for part in manifest.skipped]
    return [printable(line) for line in (*manifest.notes, *left)]


def log_manifest(manifest: Manifest) -> None:
    """Tells the logger "diffmiczoo" what was read: what was left out as a warning, everything else as information."""
    for line in (*count_lines(manifest), *manifest.notes):
        _logger.info(printable(line))
    for part in manifest.skipped:
        _logger.warning(printable(f"{manifest.name}: left out {part}"))


def printable(text: str) -> str:
    """Returns a line that every screen takes, whatever names files and classes have."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
