"""`precision="auto"`: what is tried, what is chosen, and what is remembered. No test depends on real time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import pictures, small_model
from torch import Tensor

from diffmiczoo.engines.predictor import BatchPredictor
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import cache_directory
from diffmiczoo.inference import auto_precision as auto
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.inference.tensors import PredictionTensors
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime import machine


@pytest.fixture(scope="module")
def model() -> DiffMICv2:
    found = small_model()
    found.trained = True
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a machine that has all precisions, in a process that remembers nothing."""
    monkeypatch.setattr(machine, "cache_directory", lambda topic: tmp_path / topic)
    monkeypatch.setattr(auto, "_is_here", lambda precision, device: True)
    auto._chosen.clear()
    return tmp_path / "precision"


class Stub:
    """Computes in given times, by a clock of its own, and notes what it was asked."""

    def __init__(self, model: DiffMICv2, seconds: dict[str, float], off: dict[str, float] | None = None) -> None:
        self.seconds, self.off = seconds, off or {}
        self.time, self.asked = 0.0, []
        squares = torch.zeros(8, 3, model.config.input_size, model.config.input_size, dtype=torch.uint8)
        self.answer = model.predictor(auto_options()).predict_squares(squares)

    def __call__(self, precision: str, squares: Tensor) -> PredictionTensors:
        self.asked.append((precision, len(squares)))
        self.time += self.seconds[precision] * len(squares)
        return replace(self.answer, probs=self.answer.probs + self.off.get(precision, 0.0))

    def clock(self) -> float:
        return self.time

    def probe(self, model: DiffMICv2, batch: int = 1, warm: int = 0) -> auto.Probe:
        return auto.probe(list(self.seconds), model.config, batch, self, self.clock, warm)


def auto_options() -> PredictOptions:
    return PredictOptions(num_samples=1, progress=False)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"fp32": 4, "bf16": 2, "int8": 1}, "int8"),
        ({"fp32": 4, "bf16": 2, "int8": 3}, "bf16"),
        ({"fp32": 4, "bf16": 2, "int8": 1.95}, "bf16"),
        ({"fp32": 4, "bf16": 3.9, "int8": 3.9}, "fp32"),
        ({"fp32": 1, "bf16": 2, "int8": 3}, "fp32"),
        ({"fp32": 4, "bf16": 5, "int8": 3}, "int8"),
    ],
)
def test_the_fastest_is_chosen_where_it_is_worth_its_rounding(
    model: DiffMICv2, seconds: dict[str, float], chosen: str
) -> None:
    found = Stub(model, seconds).probe(model)
    assert found.precision == chosen
    assert found.milliseconds == pytest.approx({name: 1000 * value for name, value in seconds.items()})


def test_a_precision_whose_answers_differ_is_not_even_timed(model: DiffMICv2) -> None:
    seconds = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0}
    found = Stub(model, seconds, off={"int8": 0.06}).probe(model)
    assert found.precision == "bf16" and set(found.milliseconds) == {"fp32", "bf16"}
    assert found.differences["int8"] == pytest.approx(0.06, abs=1e-6)
    assert Stub(model, seconds, off={"bf16": 0.03, "int8": 0.03}).probe(model).precision == "int8"


def test_another_label_or_roi_is_no_answer_of_the_weights(model: DiffMICv2) -> None:
    answer = Stub(model, {"fp32": 1}).answer
    assert auto._difference(answer, answer, model.config) == 0
    turned = replace(answer, probs=answer.probs.flip(1))
    assert auto._difference(answer, turned, model.config) == float("inf")
    assert auto._difference(answer, replace(answer, rois=answer.rois + 1), model.config) == float("inf")


def test_the_probe_ends_in_time(model: DiffMICv2) -> None:
    slow = Stub(model, {"fp32": 4, "bf16": 2, "int8": 1})
    slow.probe(model, batch=8)
    assert slow.asked == [(name, 8) for name in ("fp32", "bf16", "int8")] * 2
    fast = Stub(model, {"fp32": 0.004, "bf16": 0.002, "int8": 0.001})
    fast.probe(model)
    assert fast.asked[3:] == [(name, 1) for name in ("fp32", "bf16", "int8")] * auto._TURNS


def test_what_a_gpu_does_once_is_not_timed(model: DiffMICv2) -> None:
    slow_at_first = Stub(model, {"fp32": 0.01, "bf16": 0.005})
    compute = Stub.__call__

    class Recording(Stub):
        def __call__(self, precision: str, squares: Tensor) -> PredictionTensors:
            calls = self.asked.count((precision, len(squares)))
            self.time += 10.0 if calls < 3 else 0.0
            return compute(self, precision, squares)

    slow_at_first.__class__ = Recording
    found = slow_at_first.probe(model, warm=3)
    assert found.precision == "bf16" and found.milliseconds == pytest.approx({"fp32": 10, "bf16": 5})
    assert len(slow_at_first.asked) == 2 + 2 * 3 + 2 * auto._TURNS


@pytest.mark.parametrize(("capability", "here"), [((7, 5), False), ((8, 0), True)])
@pytest.mark.filterwarnings("error")
def test_what_a_gpu_emulates_is_not_tried(
    capability: tuple[int, int], here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert auto._is_here("bf16", torch.device("cuda")) is here
    assert auto._is_here("fp32", torch.device("cuda")) and not auto._is_here("int8", torch.device("cuda"))


def choose(model: DiffMICv2, stub: Callable[..., PredictionTensors], batch_size: int = 1, settings: str = "") -> str:
    return auto.auto_precision(model, model.config, torch.device("cpu"), batch_size, settings, stub)


@pytest.fixture
def stub(model: DiffMICv2, monkeypatch: pytest.MonkeyPatch) -> Stub:
    found = Stub(model, {"fp32": 0.4, "bf16": 0.2, "int8": 0.3})
    monkeypatch.setattr(auto.time, "perf_counter", found.clock)
    return found


def test_what_was_measured_is_remembered(model: DiffMICv2, stub: Stub, cache: Path) -> None:
    assert choose(model, stub) == "bf16"
    asked = len(stub.asked)
    assert choose(model, stub) == "bf16"
    auto._chosen.clear()
    assert choose(model, stub, batch_size=7) == "bf16"
    assert len(stub.asked) == asked
    (file,) = cache.iterdir()
    written = json.loads(file.read_text())
    assert written["precision"] == "bf16" and set(written["milliseconds"]) == {"fp32", "bf16", "int8"}
    assert {"device", "torch", "threads", "batch", "model", "version", "settings"} == set(written["key"])


def test_other_work_is_measured_by_itself(model: DiffMICv2, stub: Stub, cache: Path) -> None:
    for batch_size, settings in ((1, ""), (8, ""), (32, ""), (1, "3 steps")):
        choose(model, stub, batch_size, settings)
    assert len(list(cache.iterdir())) == 3


def test_other_weights_are_measured_by_themselves(stub: Stub, cache: Path) -> None:
    own = small_model()
    choose(own, stub)
    with torch.no_grad():
        own.unet.out_conv.weight.add_(1)
    choose(own, stub)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"precision": "fp8"}', "\x00"])
def test_a_file_that_cannot_be_read_is_written_anew(model: DiffMICv2, stub: Stub, cache: Path, content: str) -> None:
    choose(model, stub)
    (file,) = cache.iterdir()
    if "fp8" in content:
        content = json.dumps({**json.loads(file.read_text()), "precision": "fp8"})
    file.write_text(content)
    auto._chosen.clear()
    assert choose(model, stub) == "bf16"
    assert json.loads(file.read_text())["precision"] == "bf16"


def test_without_a_place_to_write_it_is_measured_again(
    model: DiffMICv2, stub: Stub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.joinpath("file").touch()
    # No directory can be made below a file, whoever runs the tests.
    monkeypatch.setattr(machine, "cache_directory", lambda topic: cache.parent / "file" / topic)
    assert choose(model, stub) == "bf16"
    auto._chosen.clear()
    asked = len(stub.asked)
    assert choose(model, stub) == "bf16"
    assert len(stub.asked) == 2 * asked and not cache.exists()


def test_two_at_once_find_the_same_and_leave_one_whole_file(model: DiffMICv2, stub: Stub, cache: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(choose(model, stub))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["bf16"] * 4
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["precision"] == "bf16"


def test_another_process_that_wrote_meanwhile_is_replaced_whole(cache: Path) -> None:
    key = {"device": "cpu"}
    machine.remember("precision", key, {"precision": "bf16"})
    machine.remember("precision", key, {"precision": "int8"})
    assert machine.recalled("precision", key) == {"key": key, "precision": "int8"}
    assert machine.recalled("precision", {"device": "another"}) is None
    assert [file.suffix for file in cache.iterdir()] == [".json"]


def test_predict_says_what_was_chosen_and_computes_that(
    model: DiffMICv2, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = auto.Probe("bf16", {}, {})
    monkeypatch.setattr(auto, "probe", lambda *_, warm: wanted)
    found = model.predict(pictures(2), num_samples=2, precision="auto")
    given = model.predict(pictures(2), num_samples=2, precision="bf16")
    assert found.precision == given.precision == found.to_dict()["precision"] == "bf16"
    assert torch.equal(found.probs, given.probs)
    assert model.predict(pictures(1), num_samples=2).precision == "fp32"


def test_the_probe_of_a_real_model_gives_an_answer_that_is_its_own(
    model: DiffMICv2, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "_TURNS", 1)
    monkeypatch.setattr(auto, "CANDIDATES", {"fp32": 0.0, "bf16": 1.0})
    found = model.predict(pictures(2), num_samples=2, precision="auto", batch_size=2)
    assert found.precision in auto.CANDIDATES
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["differences"]["fp32"] == 0


def test_a_machine_without_half_precision_computes_in_full(
    model: DiffMICv2, stub: Stub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "_is_here", lambda precision, device: precision == "fp32")
    assert choose(model, stub) == "fp32"
    assert not stub.asked and not cache.exists()


def test_what_is_sent_to_other_machines_names_the_precision(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "probe", lambda *_, warm: auto.Probe("bf16", {}, {}))
    predictor = BatchPredictor("diffmicv2_busi", precision="auto", device="cpu", threads=torch.get_num_threads())
    assert predictor.precision == predictor.settings["precision"] == "bf16"
    assert "auto" not in predictor.__reduce__()[1]


def test_a_plain_precision_is_not_measured(model: DiffMICv2, cache: Path) -> None:
    model.predict(pictures(1), num_samples=2, precision="bf16")
    assert not cache.exists()
    with pytest.raises(InvalidValueError, match="precision='half'"):
        model.predict(pictures(1), precision="half")


def test_the_cache_lies_beside_the_hub() -> None:
    assert cache_directory("precision").parent == cache_directory("verified").parent
