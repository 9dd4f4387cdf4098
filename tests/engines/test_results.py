"""Parts of a job, and its results: each picture once, or an error that says what to do."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from factories import write_images

from diffmiczoo.engines.ray_data import RayOptions, StalledError, _watched
from diffmiczoo.engines.results import arrow_table, read_results, write_part
from diffmiczoo.engines.work import Job, parts_of, sources_digest


def columns(ids: list[str], weights: str = "w") -> dict[str, np.ndarray]:
    def texts(values: list[str]) -> np.ndarray:
        cells = np.empty(len(values), dtype=object)
        cells[:] = values
        return cells

    probs = np.arange(2 * len(ids), dtype=np.float32).reshape(-1, 2)
    return {
        "id": texts(ids),
        "probs": probs,
        "weights_sha256": texts([weights] * len(ids)),
        "error": texts([""] * len(ids)),
    }


def job(**fields) -> Job:
    values = {"model": "m", "weights_sha256": "w", "version": "1", "settings": {"steps": 2}, "class_names": ("a", "b")}
    return Job(**{**values, "pictures": 5, "parts": 2, "sources_sha256": "s", **fields})


@pytest.fixture
def done(tmp_path) -> Path:
    """A job of two parts."""
    job().begin(tmp_path / "out")
    for part, ids in enumerate((["x", "y", "z"], ["x", "v"])):
        write_part(arrow_table(columns(ids), part), job().file_of(tmp_path / "out", part))
    return tmp_path / "out"


def test_results_are_in_order_with_each_picture_once(done) -> None:
    found = read_results(done)
    assert found["id"].to_pylist() == ["x", "y", "z", "x", "v"]
    assert found["probs"].to_pylist()[:2] == [[0, 1], [2, 3]] and "part" not in found.schema.names


def test_a_job_that_is_not_finished_is_refused_unless_asked_for(done) -> None:
    (done / "part-000001.parquet").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 parts are missing \(first 1\); run the same command again"):
        read_results(done)
    assert len(read_results(done, partial=True)) == 3


def test_parts_that_are_wrong_are_named(done) -> None:
    second = done / "part-000001.parquet"
    (done / "part-000000.parquet").replace(second)
    with pytest.raises(ValueError, match=r"part-000001\.parquet: has other pictures than part 1"):
        read_results(done, partial=True)
    write_part(arrow_table(columns(["x", "v"], "other"), 1), second)
    with pytest.raises(ValueError, match="was computed with the weights other"):
        read_results(done, partial=True)
    second.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"part-000001\.parquet: cannot be read"):
        read_results(done, partial=True)


def test_a_part_with_too_few_pictures_is_noticed(done) -> None:
    write_part(arrow_table(columns(["x"]), 1), done / "part-000001.parquet")
    with pytest.raises(ValueError, match="has 4 pictures, the job has 5"):
        read_results(done)


def test_a_folder_is_one_jobs(done, tmp_path) -> None:
    job().begin(done)
    job(model="the same weights elsewhere").begin(done)
    with pytest.raises(ValueError, match=r"results of another job \(weights_sha256 w, now v; settings"):
        job(weights_sha256="v", settings={"steps": 3}).begin(done)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds files but no job\.json"):
        job().begin(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"has no job\.json"):
        read_results(tmp_path / "mine")


def test_parts_are_the_same_for_the_same_pictures(tmp_path) -> None:
    (tmp_path / "pictures").mkdir()
    write_images(tmp_path / "pictures", [f"{number}.png" for number in range(5)])
    parts = parts_of(tmp_path / "pictures", 2)
    assert [part.size for part in parts] == [2, 2, 1] and all(Path(path).is_absolute() for path in parts[0].paths)
    assert sources_digest(parts) == sources_digest(parts_of(str(tmp_path / "pictures"), 2))
    next((tmp_path / "pictures").iterdir()).unlink()
    assert sources_digest(parts) != sources_digest(parts_of(tmp_path / "pictures", 2))
    with pytest.raises(ValueError, match="is no file"):
        parts_of([np.zeros((8, 8, 3), np.uint8)])


def test_a_table_of_contents_is_read_by_rows(tmp_path) -> None:
    contents = [bytes([number]) for number in range(7)]
    table = pa.table({"bytes": contents, "id": [f"p{number}" for number in range(7)]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    parts = parts_of(tmp_path / "t.parquet", 3)
    assert [part.size for part in parts] == [3, 1, 3]
    pictures = [picture for part in parts for picture in part.pictures()]
    assert [(picture.id, picture.source) for picture in pictures] == [(f"p{n}", bytes([n])) for n in range(7)]
    pyarrow.parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "u.parquet")
    with pytest.raises(ValueError, match="has the columns path; expected bytes"):
        parts_of(tmp_path / "u.parquet")


def test_a_job_that_stands_still_says_what_it_waits_for() -> None:
    def rows():
        yield {"pictures": 3, "errors": 1}
        time.sleep(30)

    found = _watched(rows(), 0.2, lambda: "2 of 3 parts are missing")
    assert next(found) == (3, 1)
    with pytest.raises(
        StalledError, match=r"no part was finished for 0 seconds: 2 of 3 parts are missing; what is done"
    ):
        next(found)


def test_an_error_of_a_machine_is_raised() -> None:
    def rows():
        raise OSError("no space left")
        yield

    with pytest.raises(OSError, match="no space left"):
        next(_watched(rows(), 5, str))


@pytest.mark.parametrize("fields", [{"workers": 0}, {"cpus": 0}, {"part": 0}, {"gpus": -1.0}, {"patience": 0.0}])
def test_options_out_of_range(fields) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        RayOptions(**fields)
