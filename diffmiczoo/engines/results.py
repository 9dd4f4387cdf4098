"""What a job wrote, read back: each picture exactly once, or an error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffmiczoo.engines.work import Job
from diffmiczoo.errors import InvalidValueError, MissingExtraError
from diffmiczoo.files import replaced

if TYPE_CHECKING:
    import pyarrow

#: Parts that a message names.
_SHOWN = 5


def arrow_table(columns: dict[str, np.ndarray], part: int) -> pyarrow.Table:
    """Returns answers as a table: `part`, `row` and the columns of `BatchPredictor`; `probs` has C numbers a row."""
    import pyarrow as pa

    rows = len(columns["id"])
    arrays: dict[str, Any] = {"part": pa.array([part] * rows, pa.int32()), "row": pa.array(range(rows), pa.int32())}
    for name, values in columns.items():
        if values.ndim == 2:
            flat = pa.array(values.reshape(-1), pa.float32())
            arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            arrays[name] = pa.array(values, pa.string()) if values.dtype == object else pa.array(values)
    return pa.table(arrays)


def write_part(table: pyarrow.Table, path: Path) -> None:
    """Writes a part whole or not at all."""
    import pyarrow.parquet

    with replaced(path) as file:
        pyarrow.parquet.write_table(table, file)


def read_results(output: str | os.PathLike[str], *, partial: bool = False) -> pyarrow.Table:
    """Reads what `predict_with_ray` and `diffmiczoo predict --engine ray` wrote into a folder.

    Args:
        output: the folder.
        partial: do not refuse a job that is not finished; the parts that are done are returned.

    Returns:
        A `pyarrow.Table` with each picture exactly once, in the order of the job: `id`, `label`, `probs` (C numbers in
        the order of the job's `class_names`), `error`, and the other columns of `BatchPredictor`.

    Raises:
        ValueError: parts are missing, a part has other pictures than its number says, is of other weights, or cannot be
            read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError('results need pyarrow: pip install "diffmiczoo[ray]"') from error
    output = Path(output)
    job = Job.load(output)
    missing = set(job.missing(output))
    if missing and not partial:
        named = ", ".join(map(str, sorted(missing)[:_SHOWN]))
        raise InvalidValueError(
            f"{output}: {len(missing):,} of {job.parts:,} parts are missing (first {named}); run the same "
            "command again, which computes these"
        )
    tables = []
    for part in (number for number in range(job.parts) if number not in missing):
        file = job.file_of(output, part)
        try:
            table = pyarrow.parquet.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise InvalidValueError(f"{file}: cannot be read ({error}); remove it, and run the job again") from error
        _check_part(table, file, part, job)
        tables.append(table)
    if not tables:
        raise InvalidValueError(f"{output}: no part is done yet")
    whole = pa.concat_tables(tables)
    if not missing and len(whole) != job.pictures:
        raise InvalidValueError(f"{output}: has {len(whole):,} pictures, the job has {job.pictures:,}; run it anew")
    return whole.drop_columns(["part", "row"])


def _check_part(table: pyarrow.Table, file: Path, part: int, job: Job) -> None:
    if set(table["part"].to_pylist()) != {part} or table["row"].to_pylist() != list(range(len(table))):
        raise InvalidValueError(f"{file}: has other pictures than part {part}; remove it, and run the job again")
    others = set(table["weights_sha256"].to_pylist()) - {job.weights_sha256}
    if others:
        raise InvalidValueError(f"{file}: was computed with the weights {others.pop()[:12]}…, the job's are others")
