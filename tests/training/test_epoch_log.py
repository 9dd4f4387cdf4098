"""What a run says outside of a terminal, and where it is silent."""

from __future__ import annotations

import pytest
from factories import BRIEF, QUICK, tiny_model

import diffmiczoo
from diffmiczoo.training.epoch_log import EpochLog, duration, log_interval
from diffmiczoo.training.stages import create_stages


def rows(stage: str, epochs: int) -> list[dict]:
    common = {"stage": stage, "train_loss": 0.5, "seconds": 30.0, "nll": 0.75, "auroc": 0.9, "accuracy": 0.8}
    return [{**common, "epoch": epoch} for epoch in range(1, epochs + 1)]


def written(every: int, capsys) -> list[str]:
    log = EpochLog(create_stages(QUICK.replace(dcg_epochs=5, diffusion_epochs=3), tiny_model().config), "nll", every)
    for row in rows("dcg", 5) + rows("diffusion", 3):
        log.on_epoch(row)
    output = capsys.readouterr()
    assert not output.out
    return output.err.splitlines()


def test_a_line_per_epoch_with_metrics_and_the_time_that_is_left(capsys) -> None:
    lines = written(1, capsys)
    assert len(lines) == 8
    assert lines[0] == ("dcg epoch 1/5: loss 0.5000, nll 0.7500, accuracy 0.8000, auroc 0.9000; 30 s, about 4 min left")
    assert lines[6].endswith("30 s, about 30 s left") and lines[7].startswith("diffusion epoch 3/3")
    assert lines[7].endswith("30 s, the last one")


def test_fewer_lines_hold_the_last_epoch_of_each_stage(capsys) -> None:
    assert [line.split(":")[0] for line in written(4, capsys)] == [
        "dcg epoch 4/5", "dcg epoch 5/5", "diffusion epoch 3/3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("log_every", "progress", "lines"),
    [(None, None, 1), (None, False, 0), (None, True, 0), (0, None, 0), (3, None, 3), (2, False, 2)],
)
def test_lines_are_for_where_no_bars_are(log_every, progress, lines: int) -> None:
    assert log_interval(log_every, progress) == lines


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "1"])
def test_other_intervals_are_refused(wrong, manifest_csv, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"log_every=.* must be a whole number of at least 0"):
        diffmiczoo.fit(tiny_model(), manifest_csv, output=tmp_path / "run", log_every=wrong)


def test_a_run_writes_them_and_its_result_is_short(manifest_csv, tmp_path, capsys) -> None:
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=BRIEF, output=tmp_path / "run", log_every=1)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if " epoch " in line] == [
        "dcg epoch 1/1", "diffusion epoch 1/2", "diffusion epoch 2/2",
    ]  # fmt: skip
    text = str(result)
    assert len(text.splitlines()) == 2 and "on 8 validation images: accuracy" in text and "best epochs: dcg 1" in text
    assert f'create_model("local-dir:{tmp_path}/run/best", pretrained=True)' in text


def test_an_output_that_cannot_be_is_known_before_data_are_read(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for call in (diffmiczoo.fit, diffmiczoo.finetune):
        with pytest.raises(OSError, match=r"file.* is none"):
            call(tiny_model(), tmp_path / "no such data", output=tmp_path / "file" / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (12_000, "3 h 20 min")]
)
def test_times_are_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration(seconds).replace("1 h 30 min", "90 min") == text
