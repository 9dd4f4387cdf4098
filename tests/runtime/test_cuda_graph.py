"""Recorded calls: on GPUs as CUDA graphs; here with a stand-in that keeps their rules on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from factories import registered_model, small_model
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

import diffmiczoo
from diffmiczoo.images.items import as_items
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.runtime import cuda_graph
from diffmiczoo.runtime.cuda_graph import MOST_GRAPHS, drop_graphs, graphed
from diffmiczoo.runtime.settings import FAST, PLAIN, using
from diffmiczoo.runtime.weight_cache import remembered
from diffmiczoo.training.readiness import make_trainable

CPU = torch.device("cpu")
GRAPH = replace(PLAIN, graph=True)


class StandIn:
    """Records on the CPU: replays compute from the static inputs, into the tensors that were returned first."""

    def __init__(self) -> None:
        self.recorded: list[StandIn] = []
        self.replays = 0

    def __call__(self, function, inputs, beside) -> StandIn:
        recording = StandIn()
        with remembered() as recording.used:
            # Cloned: a replay cannot write into values that are expanded.
            recording.outputs = cuda_graph._mapped(function(*inputs), torch.clone)
        recording.again = lambda: function(*inputs)
        recording.beside = beside
        self.recorded.append(recording)
        return recording

    def replay(self) -> None:
        self.replays += 1
        for old, new in zip(cuda_graph._tensors(self.outputs), cuda_graph._tensors(self.again()), strict=True):
            old.copy_(new)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    recorder = StandIn()
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", recorder)
    yield recorder
    drop_graphs()


@dataclass(frozen=True)
class Pair:
    x: torch.Tensor
    y: torch.Tensor | None


def double(module: nn.Module, pair: Pair) -> Pair:
    return Pair(module(pair.x) * 2, pair.y)


def test_the_second_call_is_recorded_and_gives_what_the_function_does(recorder) -> None:
    module = nn.Linear(3, 2).eval()
    answers = []
    with torch.inference_mode(), using(GRAPH, CPU):
        for seed in range(4):
            x = torch.full((5, 3), float(seed))
            answers.append(graphed(module, "double", lambda pair: double(module, pair), Pair(x, None)))
            assert len(recorder.recorded) == (seed > 0)
        for seed, answer in enumerate(answers):
            torch.testing.assert_close(answer.x, module(torch.full((5, 3), float(seed))) * 2)
            assert answer.y is None
    assert recorder.recorded[0].replays == 3, "the recording's own outputs are never handed out"


def test_what_a_graph_depends_on_is_its_key(recorder) -> None:
    module, x = nn.Linear(3, 2).eval(), torch.ones(5, 3)

    def call(x: torch.Tensor, key: str = "a", runtime: Any = GRAPH) -> None:
        with torch.inference_mode(), using(runtime, CPU):
            graphed(module, key, module, x)

    for call_once in (
        lambda: call(x),
        lambda: call(x[:2]),
        lambda: call(x, "b"),
        lambda: call(x, runtime=replace(GRAPH, channels_last=True)),
        lambda: call(torch.ones(3, 5).T),
    ):
        before = len(recorder.recorded)
        for _ in range(3):
            call_once()
        assert len(recorder.recorded) == before + 1
    assert recorder.recorded[0].beside is None and recorder.recorded[1].beside is recorder.recorded[0]


def test_changed_weights_are_recorded_again(recorder) -> None:
    module, x = nn.Linear(3, 2).eval(), torch.ones(5, 3)

    def answer() -> torch.Tensor:
        with torch.inference_mode(), using(GRAPH, CPU):
            return graphed(module, "a", module, x)

    before = [answer() for _ in range(3)][-1]
    with torch.no_grad():
        module.weight.add_(1)
    after = [answer() for _ in range(3)]
    assert len(recorder.recorded) == 2
    for found in after:
        torch.testing.assert_close(found, before + 3)


def test_few_graphs_are_kept(recorder) -> None:
    module = nn.Linear(3, 2).eval()
    with torch.inference_mode(), using(GRAPH, CPU):
        for rows in (*range(1, MOST_GRAPHS + 2), 1):
            for _ in range(2):
                graphed(module, "a", module, torch.ones(rows, 3))
    assert len(recorder.recorded) == MOST_GRAPHS + 2, "the first was dropped, and is recorded again"


WRONG = (
    "off",
    "gradients",
    "training",
    "hooks",
    "hooks everywhere",
    "compiled",
    "compiled in place",
    "watched",
    "other",
)


@pytest.mark.parametrize("why", WRONG)
def test_nothing_is_recorded_where_it_would_not_be_right(recorder, why: str) -> None:
    linear, x, everywhere = nn.Linear(3, 2), torch.ones(5, 3), None
    module = nn.Sequential(torch.compile(linear, backend="eager") if why == "compiled" else linear)
    module.train(why == "training")
    if why == "hooks":
        linear.register_forward_hook(lambda *_: None)
    elif why == "hooks everywhere":
        everywhere = register_module_forward_hook(lambda *_: None)
    elif why == "compiled in place":
        linear.compile(backend="eager")
    elif why == "other":
        linear.forward = lambda x: x[:, :2]
    watched = _WaitsForTheDevice() if why == "watched" else nullcontext()
    try:
        with torch.set_grad_enabled(why == "gradients"), using(PLAIN if why == "off" else GRAPH, CPU), watched:
            for _ in range(3):
                torch.testing.assert_close(graphed(module, "a", module, x), module(x))
    finally:
        if everywhere is not None:
            everywhere.remove()
    assert not recorder.recorded


def test_what_was_recorded_goes_when_the_module_is_elsewhere(recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = nn.Linear(3, 2).eval(), torch.ones(5, 3)
    with torch.inference_mode(), using(GRAPH, CPU):
        for _ in range(2):
            graphed(module, "a", module, x)
        assert module in cuda_graph._cache._entries
        monkeypatch.delitem(cuda_graph.RECORDERS, "cpu")
        graphed(module, "a", module, x)
    assert module not in cuda_graph._cache._entries


def test_training_frees_what_predictions_recorded(recorder) -> None:
    model = small_model(trained=True)
    model.predict([torch.zeros(3, 64, 64, dtype=torch.uint8)] * 4, batch_size=2, progress=False)
    assert model in cuda_graph._cache._entries
    make_trainable(model, diffmiczoo.Recipe())
    assert model not in cuda_graph._cache._entries


def test_inference_mode_and_no_grad_have_recordings_of_their_own(recorder) -> None:
    module, x = nn.Linear(3, 2).eval(), torch.ones(5, 3)
    with using(GRAPH, CPU):
        for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
            with mode():
                for value in range(3):
                    torch.testing.assert_close(graphed(module, "a", module, x * value), module(x * value))
    assert len(recorder.recorded) == 2


def test_one_recording_at_a_time_whatever_the_model_and_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, inside = StandIn(), []

    def record(function, inputs, beside) -> StandIn:
        inside.append(1)
        assert len(inside) == 1, "another recording is under way"
        time.sleep(0.02)
        found = recorder(function, inputs, beside)
        inside.pop()
        return found

    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", record)

    def predict(seed: int) -> None:
        module = nn.Linear(3, 2).eval()
        for value in range(4):
            x = torch.full((5, 3), float(seed + value))
            with torch.inference_mode(), using(GRAPH, CPU):
                torch.testing.assert_close(graphed(module, "a", module, x), module(x))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(predict, range(6)))
    assert len(recorder.recorded) == 6
    drop_graphs()


def test_a_spoiled_recording_switches_graphs_off(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def record(*_: object) -> None:
        tries.append(1)
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(cuda_graph, "_spoiled", False)
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", record)
    modules, x = [nn.Linear(3, 2).eval() for _ in range(2)], torch.ones(5, 3)
    with torch.inference_mode(), using(GRAPH, CPU):
        graphed(modules[0], "a", modules[0], x)
        with pytest.warns(UserWarning, match="previous error during capture"):
            graphed(modules[0], "a", modules[0], x)
        for module in modules * 3:
            torch.testing.assert_close(graphed(module, "a", module, x), module(x))
    assert len(tries) == 1 and not cuda_graph.graphs_allowed()
    drop_graphs()


def test_what_is_recorded_holds_what_it_calls(recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "replay", lambda self: None)  # a GPU's replay runs no Python
    outer, inner, x = nn.Linear(3, 2).eval(), nn.Linear(2, 2).eval(), torch.ones(5, 3)

    def both(x: torch.Tensor) -> torch.Tensor:
        hidden = outer(x)
        for _ in range(3):  # a recording of its own would begin at the second
            hidden = graphed(inner, "inner", inner, hidden)
        return hidden

    with torch.inference_mode(), using(replace(GRAPH, record_at_once=True), CPU):
        found = graphed(outer, "outer", both, x)
    torch.testing.assert_close(found, inner(inner(inner(outer(x)))))
    assert len(recorder.recorded) == 1


def test_filled_batches_are_replayed_from_the_first_on(recorder) -> None:
    model, picture = small_model(trained=True), as_items([torch.zeros(3, 64, 64, dtype=torch.uint8)])
    predictor = model.predictor(PredictOptions(batch_size=3, fill_batches=True, progress=False))
    for count in (1, 2):
        predictor.predict(picture)
        assert [each.replays for each in recorder.recorded] == [count] * len(recorder.recorded) != []
    before = len(recorder.recorded)
    drop_graphs()
    predictor.predict(picture)
    assert [each.replays for each in recorder.recorded[before:]] == [1] * before, "recorded anew, and replayed at once"


def test_what_cannot_be_recorded_is_computed_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graph, "_spoiled", False)
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", refuse)
    module, x = nn.Linear(3, 2).eval(), torch.ones(5, 3)
    with torch.inference_mode(), using(GRAPH, CPU):
        graphed(module, "a", module, x)
        with pytest.warns(UserWarning, match="cannot be recorded as a CUDA graph .operation not permitted"):
            torch.testing.assert_close(graphed(module, "a", module, x), module(x))
        torch.testing.assert_close(graphed(module, "a", module, x), module(x))
    drop_graphs()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Tried to allocate 36.00 MiB. Process 689 has 66.00 MiB memory in use. " * 20),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle); Process 689"),
    ],
)
def test_too_little_memory_to_record_is_said_in_a_few_words(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(cuda_graph, "_spoiled", False)

    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", refuse)
    module, x = nn.Linear(3, 2).eval(), torch.ones(5, 3)
    with torch.inference_mode(), using(GRAPH, CPU):
        graphed(module, "a", module, x)
        with pytest.warns(UserWarning, match="too little memory is left") as said:
            torch.testing.assert_close(graphed(module, "a", module, x), module(x))
    drop_graphs()
    assert cuda_graph.graphs_allowed(), "others may find room"
    assert "Process" not in str(said[0].message)


def test_predict_records_unless_the_environment_says_no(recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(trained=True)
    pictures = [torch.zeros(3, 64, 64, dtype=torch.uint8)] * 4
    monkeypatch.setenv("DIFFMICZOO_CUDA_GRAPHS", "0")
    wanted = model.predict(pictures, batch_size=2, progress=False)
    assert not recorder.recorded
    monkeypatch.delenv("DIFFMICZOO_CUDA_GRAPHS")
    found = model.predict(pictures, batch_size=2, progress=False)
    assert recorder.recorded
    torch.testing.assert_close(found.scores, wanted.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"sampler": "ancestral", "num_samples": 2}, {"predictor": "dcg"}])
def test_predictions_are_those_without_a_graph(recorder, fields: dict[str, Any]) -> None:
    model = small_model(trained=True, **fields)
    squares = [
        torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
        for n in range(7)
    ]

    def predicted(runtime: Any, **options: Any) -> Any:
        return model.predictor(PredictOptions(batch_size=2, runtime=runtime, **options)).predict(as_items(squares))

    wanted, found = predicted(FAST), predicted(replace(FAST, graph=True))
    assert recorder.recorded and all(recording.replays for recording in recorder.recorded)
    for name in ("probs", "scores", "global_logits", "rois", "saliency"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-6)
    # Other start noise is an input and no part of the recording.
    other = predicted(replace(FAST, graph=True), seed=1)
    torch.testing.assert_close(other.scores, predicted(FAST, seed=1).scores, rtol=0, atol=1e-6)


def test_a_recording_keeps_what_caches_gave_it(recorder) -> None:
    model = small_model(trained=True)
    squares = [torch.zeros(3, 64, 64, dtype=torch.uint8)] * 4
    runtime = replace(FAST, graph=True)
    model.predictor(PredictOptions(batch_size=2, runtime=runtime)).predict(as_items(squares))
    used = [type(value).__name__ for recording in recorder.recorded for value in recording.used]
    assert used.count("FoldedUNet") == 1 and len(used) == 5, "and the folded copies of the four encoders"


class FakeStream:
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def wait_stream(self, other: FakeStream) -> None:
        self.calls.append(f"{self.name} waits for {other.name}")


class FakeGraph:
    def pool(self) -> str:
        return f"pool of {id(self)}"

    def replay(self) -> None:
        pass


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, of which there is none here."""
    calls: list[str] = []

    @contextmanager
    def on_stream(stream: FakeStream) -> Iterator[None]:
        calls.append(f"on {stream.name}")
        yield

    @contextmanager
    def capture(graph: FakeGraph, pool: object, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
        calls.append(f"capture on {stream.name}, {'no pool' if pool is None else pool}, {capture_error_mode}")
        yield

    for name, fake in {
        "current_stream": lambda: FakeStream("main", calls),
        "Stream": lambda: FakeStream("side", calls),
        "CUDAGraph": FakeGraph,
        "stream": on_stream,
        "graph": capture,
        "set_stream": lambda stream: calls.append(f"back to {stream.name}"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return calls


def test_a_recording_on_cuda_warms_up_on_another_stream(calls) -> None:
    def compute(x: torch.Tensor) -> torch.Tensor:
        calls.append(f"compute, autocast cache {torch.is_autocast_cache_enabled()}")
        return x + 1

    first = cuda_graph.record_on_cuda(compute, (torch.ones(2),), None)
    assert calls == [
        "side waits for main",
        "on side",
        "compute, autocast cache False",
        "main waits for side",
        "capture on side, no pool, thread_local",
        "compute, autocast cache False",
        "back to main",
    ]
    assert torch.is_autocast_cache_enabled() and torch.equal(first.outputs, torch.full((2,), 2.0))
    first.replay()
    calls.clear()
    second = cuda_graph.record_on_cuda(compute, (torch.ones(2),), first)
    assert f"capture on side, {first.graph.pool()}, thread_local" in calls and second.stream is first.stream


def test_a_capture_that_fails_leaves_the_callers_stream(calls) -> None:
    def compute(x: torch.Tensor) -> torch.Tensor:
        if calls[-1].startswith("capture"):
            raise RuntimeError("operation not permitted when stream is capturing")
        return x

    with pytest.raises(RuntimeError, match="not permitted"):
        cuda_graph.record_on_cuda(compute, (torch.ones(2),), None)
    assert calls[-1] == "back to main" and torch.is_autocast_cache_enabled()


class _WaitsForTheDevice(TorchDispatchMode):
    """Collects the operations that look at values or bring some from the host, which no capture allows."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        name = operation.name().removeprefix("aten::").partition(".")[0]
        boolean = name in ("index", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in given[1]
        )
        if boolean or name in (
            "_local_scalar_dense",
            "nonzero",
            "equal",
            "is_nonzero",
            "lift_fresh",
            "masked_select",
            "unique",
        ):
            self.found.append(name)
        return operation(*given, **(options or {}))


@pytest.mark.parametrize("name", ["diffmicv2_nano", "diffmicv2_resnet18", "diffmicv1_resnet18", "timm/resnet18"])
def test_nothing_that_is_recorded_waits_for_the_device(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mode = _WaitsForTheDevice()
    recorder = StandIn()

    def record(function, inputs, beside) -> StandIn:
        with mode:
            return recorder(function, inputs, beside)

    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", record)
    fields = {"num_classes": 3, "image_size": 64, "roi_size": 32}
    plain = name.startswith("timm/")
    model = diffmiczoo.create_model(name, **fields) if plain else registered_model(name, **fields).eval()
    model.trained = True
    squares = [torch.zeros(3, 64, 64, dtype=torch.uint8)] * 4
    # Packed layers are for CPUs, and what they do is none of the graph's.
    runtime = replace(FAST, graph=True, pack=False)
    model.predictor(PredictOptions(batch_size=2, runtime=runtime)).predict(as_items(squares))
    assert len(recorder.recorded) == (2 if plain else 3) and not mode.found
    drop_graphs()
