"""Training steps that are replayed from a recording: here with a stand-in that keeps its rules on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import QUICK, tiny_model
from torch import Tensor

import diffmiczoo
from diffmiczoo.runtime import cuda_graph
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.graphed import can_be_graphed
from diffmiczoo.training.optimization import Optimization
from diffmiczoo.training.stages import create_stages, trainable

RECIPE = QUICK.replace(dcg_epochs=1, diffusion_epochs=1, encoder_start="trained", ema_decay=0.9, drop_path=0.2)
CPU = torch.device("cpu")


class StandIn:
    """Computes once to warm up and once to record, as a GPU does, and replays from the static inputs."""

    recordings = 0

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Any, ...], beside: object) -> None:
        function(*inputs)
        self.function, self.inputs, self.outputs = function, inputs, function(*inputs)
        type(self).recordings += 1

    def replay(self) -> None:
        self.outputs.copy_(self.function(*self.inputs))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr(StandIn, "recordings", 0)
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", StandIn)
    return StandIn


def run(manifest: Path, output: Path) -> diffmiczoo.TrainingResult:
    return diffmiczoo.fit(tiny_model(), manifest, recipe=RECIPE, output=output, progress=False)


def test_a_recorded_run_is_the_run(manifest_csv: Path, tmp_path: Path, stand_in: type[StandIn]) -> None:
    recorded = run(manifest_csv, tmp_path / "recorded")
    assert stand_in.recordings == 3, "one for each stage"
    cuda_graph.RECORDERS.pop("cpu")
    plain = run(manifest_csv, tmp_path / "plain")
    found, wanted = recorded.model.state_dict(), plain.model.state_dict()
    assert [row["train_loss"] for row in recorded.history] == [row["train_loss"] for row in plain.history]
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def optimization(batch: int, **fields: Any) -> tuple[Optimization, Tensor, Tensor]:
    model = tiny_model()
    recipe = RECIPE.replace(batch_size=batch, encoder_start="given", drop_path=0.0, **fields)
    targets = torch.arange(batch) % 2
    images = torch.randn(batch, 3, model.config.input_size, model.config.input_size)
    stage = create_stages(recipe, model.config)[0]
    context = trainable(model, stage, recipe)
    context.__enter__()
    return Optimization(model, stage, recipe, targets.repeat(8), 8, Processes(CPU)), images, targets


def test_a_model_with_hooks_is_not_recorded(stand_in: type[StandIn]) -> None:
    training, *_ = optimization(4)
    assert training.graphed is not None
    model = training.model
    model.dcg.register_forward_hook(lambda *_: None)
    stage = create_stages(training.recipe, model.config)[0]
    again = Optimization(model, stage, training.recipe, torch.arange(32) % 2, 8, Processes(CPU))
    assert again.graphed is None


def test_another_kind_of_batch_is_recorded_anew(stand_in: type[StandIn]) -> None:
    training, images, targets = optimization(4)
    for batch in range(3):
        training.training_step(images, targets, 0, batch)
    assert stand_in.recordings == 1
    training.training_step(images[:2], targets[:2], 0, 3)
    assert stand_in.recordings == 2


def test_what_cannot_be_recorded_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: Callable[..., Tensor], inputs: tuple[Any, ...], beside: object) -> None:
        function(*inputs)
        raise RuntimeError("operation not permitted when stream is capturing")

    wanted, images, targets = optimization(4)
    monkeypatch.setattr(cuda_graph, "_spoiled", False)
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", fails)
    found, *_ = optimization(4)
    found.model.load_state_dict(wanted.model.state_dict())
    with pytest.warns(UserWarning, match="cannot be recorded as a CUDA graph"):
        losses = [found.training_step(images, targets, 0, batch) for batch in range(3)]
    assert losses == [wanted.training_step(images, targets, 0, batch) for batch in range(3)]


def test_what_looks_at_values_or_adds_up_gradients_is_not_recorded(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_be_graphed(RECIPE, CPU, distributed=False)
    assert not can_be_graphed(RECIPE, CPU, distributed=True)
    assert not can_be_graphed(RECIPE, torch.device("mps"), distributed=False)
    for fields in ({"precision": "fp16"}, {"accumulate": 2}, {"compile": True}):
        assert not can_be_graphed(RECIPE.replace(**fields), CPU, distributed=False)
    monkeypatch.setenv("DIFFMICZOO_CUDA_GRAPHS", "0")
    assert not can_be_graphed(RECIPE, CPU, distributed=False)


def losses_gradients_and_buffers(device: torch.device, stage: str) -> tuple[list[float], Tensor, dict[str, Tensor]]:
    """Of six steps: all losses, the first step's gradient, and in the end what BatchNorm has counted."""
    torch.manual_seed(0)
    model, recipe = tiny_model().to(device), RECIPE.replace(drop_path=0.0)
    images, targets = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    chosen = next(each for each in create_stages(recipe, model.config) if each.name == stage)
    with trainable(model, chosen, recipe):
        training = Optimization(model, chosen, recipe, targets.repeat(8), 8, Processes(device))
        losses = [training.training_step(images, targets, 0, 0)]
        found = [parameter.grad for parameter in training.parameters if parameter.grad is not None]
        gradient = torch.cat([each.flatten().cpu() for each in found])
        losses += [training.training_step(images, targets, 0, batch) for batch in range(1, 6)]
    assert training.graphed is None or not training.graphed._failed
    return losses, gradient, {name: buffer.cpu() for name, buffer in model.named_buffers()}


def compare_with_and_without(device: torch.device, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its ten bits, other ones with other kernels, are what AdamW's first steps turn into other weights.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setenv("DIFFMICZOO_CUDA_GRAPHS", "0")
    losses, gradient, buffers = losses_gradients_and_buffers(device, stage)
    monkeypatch.setenv("DIFFMICZOO_CUDA_GRAPHS", "1")
    again, other, counted = losses_gradients_and_buffers(device, stage)
    torch.testing.assert_close(torch.tensor(again), torch.tensor(losses), rtol=1e-3, atol=1e-4)
    assert gradient.norm() > 0 and (other - gradient).norm() < 1e-2 * gradient.norm()
    for name, wanted in buffers.items():
        torch.testing.assert_close(counted[name], wanted, rtol=1e-2, atol=1e-2, msg=name)


@pytest.mark.parametrize("stage", ["global", "local", "diffusion"])
def test_steps_are_those_without_a_recording(
    stage: str, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_with_and_without(CPU, stage, monkeypatch)
    assert stand_in.recordings == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("stage", ["global", "local", "diffusion"])
def test_steps_on_a_gpu_are_those_without_a_recording(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_with_and_without(torch.device("cuda"), stage, monkeypatch)
