"""`PredictionFile`: nothing is mixed, nothing is lost, whatever ends a run; without a model, from made predictions."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ANIMALS, animal_prediction, tiny_model

from diffmiczoo.cli.predict import is_newer
from diffmiczoo.cli.prediction_file import PredictionFile, whole_records
from diffmiczoo.cli.run_record import RunRecord
from diffmiczoo.hub.companions import weights_digest
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.tensors import TENSORS

RECORD = RunRecord("m", "0" * 64, json.loads(json.dumps(ANIMALS.to_dict())), 10, 1, 0, "fp32", "none")

#: Names that a file system takes and that CSV has to quote.
NAMES = ["a.png", 'a "quoted", one.png', "two\nlines\r.png", "bad\udcff.png"]


def predicted(names: list[str]) -> Prediction:
    """A prediction whose numbers depend on the name alone."""
    whole = animal_prediction()
    rows = [whole[NAMES.index(name)] for name in names]
    tensors = {
        field: torch.cat([getattr(row, field) for row in rows])
        for field in TENSORS
        if getattr(rows[0], field) is not None
    }
    return dataclasses.replace(whole, names=names, items=[None] * len(names), **tensors)


def write(path: Path, names: list[str] = NAMES, record: RunRecord = RECORD, resume: bool = False) -> set[str]:
    """Writes what is missing in batches of one, as the command does, and returns what was there before."""
    style = path.suffix[1:]
    with PredictionFile(path, style, ANIMALS, record, resume) as file:
        for name in names:
            if name not in file.names:
                file.write(predicted([name]))
        return set(file.names)


def names_in(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    if ".csv" in path.suffixes:
        return [row[0] for row in list(csv.reader(io.StringIO(text, newline="")))[1:]]
    return [json.loads(line)["name"] for line in text.splitlines()]


def others(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir()} - {path.name, f"{path.name}.run.json"}


@pytest.fixture(params=["csv", "jsonl"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"out.{request.param}"


def test_a_finished_file_has_its_record_and_nothing_else(path) -> None:
    write(path)
    assert names_in(path) == NAMES and others(path) == set()
    found = json.loads((path.parent / f"{path.name}.run.json").read_text())
    assert (found["model"], found["steps"], found["seed"], found["precision"]) == ("m", 10, 0, "fp32")
    assert found["config"]["temperature"] == ANIMALS.temperature


def test_a_table_is_read_by_pandas_as_it_is(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    write(tmp_path / "out.csv", NAMES[:3])
    frame = pandas.read_csv(tmp_path / "out.csv")
    assert list(frame.columns) == ["name", "label", "uncertainty", "prob_cat", "prob_dog", "prob_eel"]
    assert list(frame["name"]) == NAMES[:3]


def test_cut_anywhere_it_goes_on(path) -> None:
    """The partial file ends as the kill left it: within a number, a name or its line break."""
    write(path)
    whole, partial = path.read_bytes(), path.with_name(path.name + ".partial")
    within = whole.index(b"two")
    for length in {*range(0, len(whole), len(whole) // 12), *range(within, within + 6), len(whole)}:
        path.unlink(missing_ok=True)
        partial.write_bytes(whole[:length])
        RECORD.save_for(partial)
        kept = write(path, resume=True)
        assert path.read_bytes() == whole, length
        assert kept == set(NAMES[: len(kept)])
        assert others(path) == set()


def test_line_breaks_within_quotes_do_not_end_a_record() -> None:
    def whole(content: bytes, style: str) -> list[bytes]:
        return list(whole_records(io.BytesIO(content), style))

    assert whole(b'name\n"a\nb",1\n"c\nd', "csv") == [b"name\n", b'"a\nb",1\n']
    assert whole(b'name\n"a ""x""\nb"\n', "csv") == [b"name\n", b'"a ""x""\nb"\n']
    assert whole(b'{"a": 1}\n{"b', "jsonl") == [b'{"a": 1}\n']
    assert whole(b"name", "csv") == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("weights", "1" * 64, "weights 000000000000, now 111111111111"),
        ("steps", 3, "steps 10, now 3"),
        ("num_samples", 4, "num_samples 1, now 4"),
        ("seed", 7, "seed 0, now 7"),
        ("precision", "bf16", "precision fp32, now bf16"),
        ("tta", "flips", "tta none, now flips"),
        ("version", "0.0", "version"),
        ("config", {**RECORD.config, "temperature": 0.5, "crop_mode": "squash"}, "the model's crop_mode, temperature"),
    ],
)
def test_what_was_made_otherwise_is_not_mixed_and_not_lost(path, capsys, field: str, value: Any, said: str) -> None:
    write(path, NAMES[:2])
    before = path.read_bytes()
    other = dataclasses.replace(RECORD, **{field: value})
    assert write(path, record=other, resume=True) == set()
    assert said in (text := capsys.readouterr().err) and "none of it is kept" in text and "predicted anew" in text
    assert names_in(path) == NAMES
    assert path.with_name(path.name + ".old").read_bytes() == before
    assert RECORD.differences(path.with_name(path.name + ".old")) == [] != RECORD.differences(path)
    # A third way: what was set aside first stays.
    write(path, record=RECORD, resume=True)
    assert {f"{path.name}.old", f"{path.name}.old2"} <= others(path)


def test_another_name_of_the_same_model_goes_on(path) -> None:
    write(path, NAMES[:2])
    assert write(path, record=dataclasses.replace(RECORD, model="local-dir:copy"), resume=True) == set(NAMES[:2])


def test_without_its_record_nothing_says_what_made_it(path, capsys) -> None:
    write(path, NAMES[:2])
    (path.parent / f"{path.name}.run.json").unlink()
    assert write(path, resume=True) == set()
    assert f"there is no {path.name}.run.json beside it" in capsys.readouterr().err
    assert len(names_in(path.with_name(path.name + ".old"))) == 2


def test_a_run_that_stops_leaves_the_old_file_and_says_how_to_go_on(path, capsys) -> None:
    write(path, NAMES[:1])
    before = path.read_bytes()
    with (
        pytest.raises(KeyboardInterrupt),
        PredictionFile(path, path.suffix[1:], ANIMALS, RECORD, False) as file,
    ):
        file.write(predicted(NAMES[1:3]))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert f"{path.name}.partial has 2 predictions; the same command with --resume goes on" in capsys.readouterr().err
    assert write(path, NAMES[1:], resume=True) == set(NAMES[1:3])
    assert names_in(path) == NAMES[1:]


def test_a_run_that_is_stopped_while_the_disk_takes_its_first_batch_loses_nothing(path, capsys, monkeypatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
        PredictionFile(path, path.suffix[1:], ANIMALS, RECORD, False) as file,
    ):
        patch.setattr(os, "fsync", interrupted)
        file.write(predicted(NAMES[:2]))
    assert f"{path.name}.partial has a first batch; the same command with --resume" in capsys.readouterr().err
    assert write(path, resume=True) == set(NAMES[:2]) and names_in(path) == NAMES


def test_images_that_changed_since_are_told_apart(path, tmp_path) -> None:
    picture = tmp_path / "a.png"
    picture.touch()
    write(path, NAMES[:2])
    for kept in (path, path.with_name(path.name + ".partial")):
        if kept != path:
            os.replace(path, kept)
            os.replace(f"{path}.run.json", f"{kept}.run.json")
        os.utime(kept, (1000, 1000))
        with PredictionFile(path, path.suffix[1:], ANIMALS, RECORD, True) as file:
            assert file.made == 1000 and is_newer(picture, file.made) and not is_newer(picture, 2**40)
    assert not is_newer(tmp_path / "gone.png", 0) and not is_newer(None, 0)


def test_a_run_that_begins_anew_keeps_what_an_interrupted_one_had(path, capsys) -> None:
    partial = path.with_name(path.name + ".partial")
    write(path, NAMES[:3])
    os.replace(path, partial)
    write(path, NAMES[3:])
    assert names_in(path) == NAMES[3:]
    assert len(path.with_name(path.name + ".partial.old").read_bytes().splitlines()) >= 3
    assert "partial.old has what" in capsys.readouterr().err


def test_a_run_that_predicts_nothing_leaves_nothing(path) -> None:
    for before in (None, NAMES[:2]):
        if before:
            write(path, before)
        content = path.read_bytes() if before else None
        with (
            pytest.raises(ValueError, match="none"),
            PredictionFile(path, path.suffix[1:], ANIMALS, RECORD, False),
        ):
            raise ValueError("none could be read")
        assert (path.read_bytes() if path.exists() else None) == content and others(path) == set()


def test_a_full_disk_keeps_the_old_file_and_names_it(path, monkeypatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(path, NAMES[:2])
    before = path.read_bytes()
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        PredictionFile(path, path.suffix[1:], ANIMALS, RECORD, False) as file,
    ):
        monkeypatch.setattr(os, "fsync", full)
        file.write(predicted(NAMES))
    assert caught.value.filename == str(path) and path.read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_write_one_file(path, resume: bool) -> None:
    pytest.importorskip("fcntl")
    partial = path.with_name(path.name + ".partial")
    write(path, NAMES[:1])
    os.replace(path, partial)
    os.replace(f"{path}.run.json", f"{partial}.run.json")
    with PredictionFile(path, path.suffix[1:], ANIMALS, RECORD, resume) as file:
        if not resume:
            file.write(predicted(NAMES[:1]))
        # Locks may belong to a process: another one asks.
        process = os.fork()
        if process == 0:
            try:
                write(path)
            except ValueError as error:
                os._exit("another run is writing it" in str(error))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1
    assert names_in(path) == NAMES[:1]


def test_links_and_permissions_stay(path, tmp_path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / path.name
    write(real, NAMES[:1])
    real.chmod(0o600)
    path.symlink_to(real)
    write(path)
    assert path.is_symlink() and names_in(real) == NAMES and stat.S_IMODE(real.stat().st_mode) == 0o600
    assert others(real) == set() and others(path) == {"real"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_gets_every_line_and_stays(path) -> None:
    received: list[bytes] = []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()), daemon=True)
    reader.start()
    write(path)
    reader.join(10)
    assert path.is_fifo() and others(path) == set() and not (path.parent / f"{path.name}.run.json").exists()
    path.unlink()
    path.write_bytes(received[0])
    assert names_in(path) == NAMES


def test_a_device_stays_one_and_a_full_one_is_named(tmp_path) -> None:
    for name in ("null", "full"):
        if not Path("/dev", name).is_char_device():
            pytest.skip("no such devices here")
        (tmp_path / f"{name}.csv").symlink_to(f"/dev/{name}")
    write(tmp_path / "null.csv")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(tmp_path / "full.csv")
    assert caught.value.filename == str(tmp_path / "full.csv")
    assert Path("/dev/null").is_char_device() and Path("/dev/full").is_char_device()
    assert {path.name for path in tmp_path.iterdir()} == {"null.csv", "full.csv"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label,uncertainty,prob_cat,prob_dog\na.png,cat,0.1,0.9,0.1\n", "holds no predictions of this model"),
        ("patient,age\n1,70\n", "holds no predictions of this model"),
        ("name,label,uncertainty,prob_cat,prob_dog,prob_eel\na.png,cat,0.1\n", "row 2 is not whole"),
    ],
)
def test_what_is_no_such_table_is_left_alone(tmp_path, content: str, message: str) -> None:
    (tmp_path / "out.csv").write_text(content)
    RECORD.save_for(tmp_path / "out.csv")
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "out.csv", resume=True)
    assert (tmp_path / "out.csv").read_text() == content and others(tmp_path / "out.csv") == set()


def test_the_digest_of_weights_tells_models_apart() -> None:
    model, same = tiny_model(), tiny_model()
    assert weights_digest(model) == weights_digest(same)
    next(same.parameters()).data.view(-1)[0] += 1e-6
    assert weights_digest(model) != weights_digest(same)
