"""What needs a GPU: the CPU's answers in every precision, with and without graphs, and within little memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from factories import registered_model, small_model
from torch import Tensor

import diffmiczoo
from diffmiczoo.images.items import as_items
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime import cuda_graph
from diffmiczoo.runtime.cuda_graph import drop_graphs
from diffmiczoo.runtime.devices import as_device
from diffmiczoo.runtime.settings import FAST, PLAIN, PREDICT, Runtime, using

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

NAMES = ("diffmicv2_nano", "diffmicv2_resnet18", "diffmicv1_resnet18", "timm/resnet18")


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Iterator[DiffMICv2]:
    """A model of a registered name, small, on the GPU; nobody may change it."""
    fields: dict[str, Any] = {"num_classes": 3}
    if request.param.startswith("timm/"):
        model = diffmiczoo.create_model(request.param, **fields, image_size=64, roi_size=32)
    else:
        model = registered_model(request.param, **fields).eval()
    model.trained = True
    yield model
    drop_graphs()


def squares(model: DiffMICv2, count: int = 7) -> list[Tensor]:
    size, generator = model.config.input_size, torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator) for _ in range(count)]


def predicted(model: DiffMICv2, runtime: Runtime = FAST, batch_size: int = 3, **options: Any) -> Prediction:
    options = {"batch_size": batch_size, "progress": False, "runtime": runtime, **options}
    return model.predictor(PredictOptions(**options)).predict(as_items(squares(model)))


@contextmanager
def on(model: DiffMICv2, device: str) -> Iterator[DiffMICv2]:
    model.to(device)
    try:
        yield model
    finally:
        model.to("cpu")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 5e-2), ("fp16", 5e-2)])
def test_answers_are_the_cpus(model: DiffMICv2, precision: str, tolerance: float) -> None:
    wanted = predicted(model)
    with on(model, "cuda"):
        found = predicted(model, precision=precision)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.global_logits, wanted.global_logits, rtol=1e-4, atol=1e-4)
    # The DCG is in full precision whatever the rest is.
    assert torch.equal(found.rois, wanted.rois)
    top = wanted.probs.topk(2, dim=1).values
    sure = top[:, 0] - top[:, 1] > 2 * tolerance
    assert torch.equal(found.probs.argmax(1)[sure], wanted.probs.argmax(1)[sure])


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.filterwarnings("error:this cannot be recorded")
def test_graphs_give_the_same_answers(
    model: DiffMICv2, precision: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = []
    replay = cuda_graph._CudaRecording.replay
    monkeypatch.setattr(cuda_graph._CudaRecording, "replay", lambda self: (replays.append(self), replay(self))[1])
    with on(model, "cuda"):
        wanted = predicted(model, precision=precision, batch_size=batch_size)
        runtime = replace(FAST, graph=True)
        for _ in range(2):
            found = predicted(model, runtime, precision=precision, batch_size=batch_size)
            torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.saliency, wanted.saliency, rtol=1e-4, atol=1e-4)
            assert torch.equal(found.rois, wanted.rois)
    assert replays


@pytest.mark.gpu
@on_gpu
def test_filled_batches_have_the_same_bits_with_any_company(model: DiffMICv2) -> None:
    pictures = as_items(squares(model))
    with on(model, "cuda"):
        predictor = model.predictor(PredictOptions(batch_size=8, fill_batches=True, progress=False))
        together = predictor.predict(pictures)
        alone = [predictor.predict([picture]) for picture in pictures]
    for row, found in enumerate(alone):
        assert torch.equal(found.scores[0], together.scores[row]) and torch.equal(found.probs[0], together.probs[row])


@pytest.mark.gpu
@on_gpu
@pytest.mark.filterwarnings("error:this cannot be recorded")
def test_threads_with_models_of_their_own_predict_at_once() -> None:
    models = [small_model(trained=True).to("cuda") for _ in range(4)]
    wanted = [predicted(model) for model in models]

    def predict(place: int) -> list[Prediction]:
        return [predicted(models[place], PREDICT, batch_size=size) for size in (1, 2, 3) for _ in range(3)]

    with ThreadPoolExecutor(4) as pool:
        for place, found in enumerate(pool.map(predict, range(4))):
            for each in found:
                torch.testing.assert_close(each.scores, wanted[place].scores, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@on_gpu
def test_graphs_follow_the_weights(model: DiffMICv2) -> None:
    runtime = replace(FAST, graph=True)
    with on(model, "cuda"):
        for _ in range(2):
            predicted(model, runtime)
        weight = next(model.dcg.parameters())
        before = weight.detach().clone()
        with torch.no_grad():
            weight.neg_()
        wanted, found = predicted(model), [predicted(model, runtime) for _ in range(2)]
        with torch.no_grad():
            weight.copy_(before)
    for each in found:
        torch.testing.assert_close(each.scores, wanted.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@on_gpu
def test_full_precision_has_no_tf32() -> None:
    torch.manual_seed(0)
    conv, image = torch.nn.Conv2d(64, 64, 3), torch.randn(4, 64, 32, 32)
    with torch.no_grad():
        wanted = conv(image)
        with using(PLAIN, torch.device("cuda")):
            found = conv.cuda()(image.cuda()).cpu()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("graph", [False, True])
def test_too_little_memory_halves_the_batch(graph: bool) -> None:
    model = small_model(trained=True, image_size=256, roi_size=64).to("cuda")
    generator = torch.Generator().manual_seed(0)
    items = as_items([torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8, generator=generator) for _ in range(600)])
    runtime = replace(FAST, graph=graph)
    wanted = model.predictor(PredictOptions(batch_size=8, runtime=runtime, progress=False)).predict(items)
    drop_graphs()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 300 * 2**20) / total)
    try:
        predictor = model.predictor(PredictOptions(batch_size=600, runtime=runtime, progress=False))
        found = predictor.predict(items)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= predictor._limit < 600
    torch.testing.assert_close(found.probs, wanted.probs, rtol=1e-4, atol=1e-4)


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_device(None) == as_device("cpu") == torch.device("cpu") and as_device("cuda:1").index == 1
    for here, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=here: here)
        assert as_device("auto") == torch.device(device)


def test_auto_is_taken_by_create_model() -> None:
    model = diffmiczoo.create_model("diffmicv2_nano", pretrained=True, device="auto")
    assert model.default_noise.is_cuda == torch.cuda.is_available()
