"""What a run tells its callbacks, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import QUICK, OnStep, tiny_model

import diffmiczoo
from diffmiczoo.training.callbacks import Callback


class Record(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def on_step(self, stage: str, epoch: int, batch: int) -> None:
        self.calls.append(("step", stage, epoch, batch))

    def on_epoch(self, row: dict[str, Any]) -> None:
        self.calls.append(("epoch", row["stage"], row["epoch"]))

    def on_checkpoint(self, path: Path) -> None:
        self.calls.append(("checkpoint", path.name))

    def on_end(self) -> None:
        self.calls.append(("end",))


def test_callbacks_follow_the_run(manifest_csv, tmp_path) -> None:
    record, recipe = Record(), QUICK.replace(dcg_epochs=1, diffusion_epochs=1, batch_size=12)
    options = {"output": tmp_path / "run", "callbacks": [Callback(), record], "progress": False}
    diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, **options)
    stages = [
        [("step", name, 0, 0), ("step", name, 0, 1), ("epoch", name, 1), ("checkpoint", "checkpoint.pt")]
        for name in ("dcg", "diffusion")
    ]
    assert record.calls == [*stages[0], *stages[1], ("end",)]


def test_callbacks_end_with_an_error_too(manifest_csv, tmp_path) -> None:
    def fail(*_) -> None:
        raise RuntimeError("the network drive is gone")

    record = Record()
    options = {"output": tmp_path / "run", "callbacks": [OnStep(fail), record], "progress": False}
    with pytest.raises(RuntimeError, match="network drive"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, **options)
    assert record.calls == [("end",)]


def test_tensorboard(manifest_csv, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = diffmiczoo.fit(
        tiny_model(),
        manifest_csv,
        recipe=QUICK.replace(dcg_epochs=1),
        output=tmp_path / "run",
        tensorboard=True,
        progress=False,
    )
    events = EventAccumulator(str(result.output / "tensorboard"))
    events.Reload()
    values = [event.value for event in events.Scalars("diffusion/train_loss")]
    assert values == pytest.approx([row["train_loss"] for row in result.history[1:]])
