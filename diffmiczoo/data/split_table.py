"""The table of which image belongs to which split, as `fit` writes it beside its weights."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from diffmiczoo.data.cells import join_cell
from diffmiczoo.data.label_cells import label_cells
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.table_files import file_cell
from diffmiczoo.files import write_text


def write_split(manifest: Manifest, path: Path) -> None:
    """Writes which image belongs to which split, as a table that `fit` and `evaluate` read where images are files.

    Names and labels that would be read as something else are written as JSON lists, so that all of them are read back
    as they are: with bars, commas, blanks at their ends, line breaks, as "NA", and bytes that are not UTF-8.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "label", "split", "group"])
    labels = label_cells([record.labels for record in manifest.records])
    for record, label in zip(manifest.records, labels, strict=True):
        file = record.path.resolve() if record.source is None else record.path
        group = "" if record.group is None else join_cell((record.group,))
        writer.writerow([file_cell(str(file)), label, record.split or "", group])
    write_text(path, table.getvalue())
