"""The exported file beside `predict`, in one run: the same pictures, the same number of threads, taking turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffmiczoo.benchmark.timing import Spread, markdown_table, now
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.export import formats
from diffmiczoo.export.graph import ExportedModel, graph_settings
from diffmiczoo.export.metadata import describe
from diffmiczoo.inference.certificate import ExportSettings
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.progress import progress_bar

#: Programs that run an exported file.
ENGINES = ("onnx", "openvino")


@dataclass(frozen=True)
class EngineTime:
    """What one program took.

    Attributes:
        engine: "predict", "onnx" or "openvino".
        seconds: median for one batch; `fastest` and `slowest` of all runs.
        images_per_second: batch / seconds.
        ratio: median over the turns of the time of `predict` / this time: above 1 for what is faster.
        max_difference: of a probability from `predict`'s.
    """

    engine: str
    seconds: float
    fastest: float
    slowest: float
    images_per_second: float
    ratio: float
    max_difference: float


def exported_engines(model: DiffMICv2, engines: Sequence[str]) -> dict[str, formats.Answers]:
    """Returns what runs the model's exported file, by engine, on as many threads as torch has.

    Raises:
        ValueError: the model is on a GPU.
        ImportError: an engine is not installed.
    """
    if model.default_noise.device.type != "cpu":
        raise InvalidValueError(f"--engine times CPUs alone, the model is on {model.default_noise.device}")
    settings = ExportSettings()
    with eval_mode(model):
        graph = ExportedModel(model, graph_settings(model, None, None, None)).eval()
        content = formats.onnx_content(graph, describe(model, graph.settings, settings, graph.names), "fp32")
    found: dict[str, formats.Answers] = {}
    for engine in engines:
        if engine == "onnx":
            found[engine] = formats.onnx_answers(content, torch.get_num_threads())
        else:
            found[engine] = formats.openvino_answers(*formats.openvino_files(content), torch.get_num_threads())
    return found


def compare_engines(
    model: DiffMICv2,
    engines: dict[str, formats.Answers],
    *,
    batch_size: int = 32,
    repeats: int = 5,
    progress: bool | None = None,
) -> list[EngineTime]:
    """Times whole predictions from squares in memory to probabilities.

    Args:
        model: on the CPU.
        engines: of `exported_engines`.
        batch_size: images computed at once, ≥ 1.
        repeats: timed turns after one to warm up, ≥ 1.
        progress: show a bar; by default where the standard error is a terminal.
    """
    config, size = model.config, model.config.input_size
    squares = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    tensors = torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()
    compute = model.prediction_function(config.sampling_steps, config.num_samples, PredictOptions())
    ways: dict[str, Callable[[], np.ndarray]] = {"predict": lambda: compute(tensors).probs.numpy()}
    for name, answers in engines.items():
        ways[name] = lambda answers=answers: answers(squares)["probs"]  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    probs: dict[str, np.ndarray] = {}
    cpu = torch.device("cpu")
    with keep_memory(), progress_bar(len(ways) * (repeats + 1), "engines", "run", progress) as bar:
        for repeat in range(repeats + 1):
            for name, run in ways.items():
                started = now(cpu)
                probs[name] = run()
                taken = now(cpu) - started
                bar.update()
                seconds[name] += [taken] if repeat else []
    return [_time(name, seconds, probs, batch_size) for name in ways]


def _time(name: str, seconds: dict[str, list[float]], probs: dict[str, np.ndarray], batch_size: int) -> EngineTime:
    spread = Spread.of(seconds[name])
    turns = zip(seconds["predict"], seconds[name], strict=True)
    return EngineTime(
        engine=name,
        seconds=spread.median,
        fastest=spread.fastest,
        slowest=spread.slowest,
        images_per_second=batch_size / spread.median,
        ratio=statistics.median(own / other for own, other in turns),
        max_difference=float(np.abs(probs[name] - probs["predict"]).max()),
    )


def engines_table(rows: list[EngineTime]) -> str:
    """Returns times as a Markdown table."""
    cells = (
        [
            row.engine,
            f"{row.images_per_second:.1f}",
            f"{1000 * row.seconds:.0f}",
            f"{1000 * row.fastest:.0f} to {1000 * row.slowest:.0f}",
            f"{row.ratio:.2f}",
            f"{row.max_difference:.1e}",
        ]
        for row in rows
    )
    return markdown_table(("engine", "images/s", "ms/batch", "fastest to slowest", "×", "largest |Δp|"), cells)
