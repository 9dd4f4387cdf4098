"""Checks and times the package on a GPU, in stages that each write their results at once, one line of JSON per result.

    python tools/pack_gpu_check.py --data ../shared/data          once, on the machine that has the pictures
    python tools/gpu_check.py --output check.jsonl                on a GPU, in a checkout with the folder `.gpu`
    python tools/gpu_check.py --device cpu --quick --output x.jsonl      a dry run of every stage

Stages in the order of their importance, because a run may be cut: facts of the machine; `answers` of the weights that
ship against a CPU's; the suite's `tests` that need a GPU; `speed` of predictions and `parts` of one; `training` steps,
the loss `curve` beside a CPU's; `loading`; `memory` that runs out; `compiled` training. A stage that fails writes its
traceback and the next one begins. A stage has a budget of seconds, looked at before each of its measurements.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKED = str(ROOT / ".gpu" / "site")
# What was packed comes last, so that what is installed wins.
sys.path[:] = [str(ROOT), *sys.path, PACKED]

import numpy as np
import torch
from torch import Tensor

import diffmiczoo
from diffmiczoo.benchmark.inference import OURS, SLOW, Variant, benchmark
from diffmiczoo.benchmark.parts import benchmark_parts
from diffmiczoo.benchmark.roofline import Roofline, measure_roofline
from diffmiczoo.benchmark.timing import now, peak_mib, reset_peak
from diffmiczoo.benchmark.training import TrainVariant, benchmark_training
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import as_items
from diffmiczoo.images.loading import read_squares
from diffmiczoo.inference.decisions import decide
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.cuda_graph import drop_graphs
from diffmiczoo.runtime.settings import FAST, PLAIN, Runtime, training_runtime
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.optimization import Optimization
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import create_stages, trainable

#: Of the loss curve that is compared with a CPU's.
CURVE_STEPS, CURVE_BATCH = 50, 8

#: What learns to classify without a file of weights: the paper's size and the one that ships.
PAPER, NANO = "diffmicv2_resnet18", "diffmicv2_nano"


@dataclass
class Check:
    """What stages share.

    Attributes:
        device: on which everything runs.
        pack: folder that `pack_gpu_check.py` wrote.
        quick: small models and few repetitions, for dry runs.
        write: writes a result.
        left: seconds that the present stage has left.
        models: those that stages share.
    """

    device: torch.device
    pack: Path
    quick: bool
    write: Callable[..., None]
    left: Callable[[], float]
    models: dict[str, DiffMICv2] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def untrained(self, size: str) -> DiffMICv2:
        """Returns a model with random weights, "paper" or "nano", that nobody may change: the large one takes long."""
        if size not in self.models:
            name, small = {
                "paper": (PAPER, {"latent_dim": 64, "image_size": 64, "raw_encoder": "resnet18"}),
                "nano": (NANO, {"image_size": 64}),
            }[size]
            torch.manual_seed(0)
            fields = small if self.quick else {}
            self.models[size] = diffmiczoo.create_model(name, num_classes=7, device=self.device, **fields)
            self.models[size].trained = True
        return self.models[size]


# ---------------------------------------------------------------------- what the packing side uses too


def squares_of(files: list[bytes], config: DiffMICConfig) -> list[Tensor]:
    return list(read_squares(as_items(files), config))


def predicted(model: DiffMICv2, images: Any, runtime: Runtime, precision: str, batch_size: int = 32) -> Prediction:
    options = PredictOptions(batch_size=batch_size, precision=precision, runtime=runtime, progress=False)
    return model.predictor(options).predict(as_items(images))


def loss_curve(pack: Path, device: torch.device, steps: int, batch: int) -> list[float]:
    """Returns the losses of the diffusion stage from weights that ship, on real pictures, in full precision."""
    name = "diffmicv2_nano.ham10000"
    with np.load(pack / f"{name}.npz") as stored:
        files, truth = packed_files(stored)[: 4 * batch], stored["truth"][: 4 * batch]
    model = diffmiczoo.create_model(name, pretrained=True, device=device)
    images = model.preprocess(files)
    targets = torch.tensor([model.config.class_names.index(label) for label in truth])
    recipe = Recipe(batch_size=batch, diffusion_lr=1e-4, diffusion_epochs=CURVE_STEPS // 4 + 1, ema_decay=0.0)
    losses = []
    with optimization(model, recipe, targets) as step:
        for number in range(steps):
            rows = slice(number % 4 * batch, number % 4 * batch + batch)
            losses.append(step(images[rows], targets[rows], number // 4, number % 4))
    return losses


def packed_files(stored: Any) -> list[bytes]:
    ends = np.cumsum(stored["lengths"])
    content = stored["files"].tobytes()
    return [content[end - length : end] for end, length in zip(ends, stored["lengths"], strict=True)]


@contextmanager
def optimization(model: DiffMICv2, recipe: Recipe, targets: Tensor) -> Iterator[Callable[..., float]]:
    stage = create_stages(recipe, model.config)[-1]
    with trainable(model, stage, recipe):
        batches = max(len(targets) // recipe.batch_size, 1)
        made = Optimization(model, stage, recipe, targets, batches, Processes(model.default_noise.device))
        yield made.training_step


# ---------------------------------------------------------------------- stages


def facts(check: Check) -> None:
    import timm

    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "timm": timm.__version__}
    check.write(**versions, processors=os.cpu_count(), threads=torch.get_num_threads())
    if check.cuda:
        found = torch.cuda.get_device_properties(check.device)
        check.write(
            card=found.name,
            memory_gib=found.total_memory / 2**30,
            capability=f"{found.major}.{found.minor}",
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            conv_tf32=torch.backends.cudnn.allow_tf32,
            matmul_tf32=torch.backends.cuda.matmul.allow_tf32,
        )
    roofline = limits(check)
    check.write(flops=roofline.flops, bandwidth=roofline.bandwidth)


_limits: dict[torch.device, Roofline] = {}


def limits(check: Check) -> Roofline:
    """Returns the measured products and copies of the device, with TF32 beside the others on a GPU."""
    if check.device not in _limits:
        roofline = measure_roofline(check.device, ("fp32", "bf16", "fp16") if check.cuda else ("fp32", "bf16"), 3)
        if check.cuda:
            with tf32(True):
                roofline.flops["tf32"] = measure_roofline(check.device, ("fp32",), 3).flops["fp32"]
        _limits[check.device] = roofline
    return _limits[check.device]


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Sets whether products and convolutions of full precision may use TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def ways(check: Check) -> dict[str, Runtime]:
    """Returns the ways to predict that are compared: precisions, TF32, channels first, the whole in a graph."""
    bf16, fp32_graph = replace(FAST, precision="bf16"), replace(FAST, graph=True)
    found = {
        "fp32": FAST,
        "bf16": bf16,
        "bf16, graph": replace(bf16, graph=True),
        "fp32, graph": fp32_graph,
        "fp16": replace(FAST, precision="fp16"),
        "fp32, tf32": replace(FAST, tf32=True),
        "bf16, tf32, graph": replace(bf16, tf32=True, graph=True),
        "bf16, tf32": replace(bf16, tf32=True),
    }
    return {name: runtime for name, runtime in found.items() if check.cuda or runtime.precision != "fp16"}


def answers(check: Check) -> None:
    """Compares every way with the CPU's answers, one way after the other, so that a cut run has all weights."""
    known = {}
    for path in sorted(path for path in check.pack.glob("*.npz") if path.stem != "curve"):
        with np.load(path) as file:
            stored = dict(file)
        count = 16 if check.quick else len(stored["lengths"])
        model = diffmiczoo.create_model(path.stem, pretrained=True, device=check.device)
        started = time.perf_counter()
        squares = squares_of(packed_files(stored)[:count], model.config)
        decoding = time.perf_counter() - started
        same = [zlib.crc32(square.numpy().tobytes()) for square in squares] == stored["checksums"][:count].tolist()
        check.write(weights=path.stem, pictures=count, same_pixels=same, decoding_seconds=decoding)
        known[path.stem] = model, squares, stored
    for way, runtime in ways(check).items():
        for name, (model, squares, stored) in known.items():
            if check.left() < 0:
                return
            attempt(check, {"weights": name, "way": way}, lambda: compared(model, squares, runtime, stored))  # noqa: B023


def compared(model: DiffMICv2, squares: list[Tensor], runtime: Runtime, stored: dict[str, Any]) -> dict[str, Any]:
    """Predicts twice, since a graph is made when a shape comes again, and compares both with the CPU's answers."""
    count = len(squares)
    rows: dict[str, Any] = {}
    for turn in ("first", "second"):
        started = now(model.default_noise.device)
        found = predicted(model, squares, runtime, runtime.precision, batch_size=8 if count < 32 else 50)
        rows[f"{turn}_seconds"] = now(model.default_noise.device) - started
        for name in ("probs", "scores", "global_logits", "local_logits"):
            gap = np.abs(np.asarray(getattr(found, name)) - stored[name][:count]).max()
            rows[f"{name}_gap"] = max(rows.get(f"{name}_gap", 0.0), float(gap))
    probs, wanted = np.asarray(found.probs), stored["probs"][:count]
    config = model.config
    labels = [
        decide(torch.from_numpy(each), config.task, config.thresholds, config.label_adjustment)
        for each in (probs, wanted)
    ]
    rows["same_labels"] = float((labels[0] == labels[1]).float().mean())
    rows["same_rois"] = float((np.asarray(found.rois) == stored["rois"][:count]).all((1, 2)).mean())
    return rows


def tests(check: Check) -> None:
    files = sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()
    )
    # The contract of models is a module of its own, which this file collects.
    files.append("tests/test_contract.py")
    chosen = "gpu" if check.cuda else "gpu and not gpu"
    options = ["-m", chosen, "-q", "--tb=short", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    options += ["-n", "6"] if check.cuda and not check.quick else []
    program = (
        f"import sys; sys.path[:] = [{str(ROOT)!r}, *sys.path, {PACKED!r}]; import pytest; "
        f"sys.exit(pytest.main({[*options, *files]!r}))"
    )
    limit = max(check.left(), 10.0)
    try:
        ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=limit)
        _, _, failures = ran.stdout.partition("= FAILURES =")
        check.write(code=ran.returncode, failures=failures[:6000], tail=ran.stdout[-6000:], errors=ran.stderr[-2000:])
    except subprocess.TimeoutExpired as error:
        # Bytes, also where text was asked for.
        printed = error.stdout or b""
        text = printed if isinstance(printed, str) else printed.decode(errors="replace")
        check.write(code=None, tail=text[-6000:], limit=limit)


def speed(check: Check) -> None:
    # What matters most first: the stage may be cut.
    large, few = (2, 2) if check.quick else (256, 32)
    for size, batch in (("paper", few), ("paper", 1), ("nano", large), ("nano", 1), ("nano", few), ("paper", large)):
        if check.left() < 0:
            return
        model, where = check.untrained(size), {"size": size, "batch": batch}
        repeats = 1 if check.quick else 5 if batch == 1 else 3
        attempt(check, where, lambda: timed_rows(check, model, batch, repeats, where))  # noqa: B023
        if size == "nano" and batch == large:
            attempt(check, where, lambda: from_memory(check, model, batch))  # noqa: B023
        drop_graphs()


def from_memory(check: Check, model: DiffMICv2, batch: int) -> None:
    """Times `predict` as a whole for pictures that lie in memory as squares of bytes."""
    pixels = model.config.input_size
    squares = torch.randint(0, 256, (4 * batch, 3, pixels, pixels), dtype=torch.uint8)
    for way in ("fp32", "bf16", "bf16, graph", "bf16, tf32, graph"):
        runtime = ways(check)[way]
        taken = []
        for _ in range(3):
            started = now(check.device)
            predicted(model, squares, runtime, runtime.precision, batch)
            taken.append(now(check.device) - started)
        check.write(
            size="nano", batch=batch, way=f"predict from memory, {way}", images_per_second=4 * batch / taken[-1]
        )


def timed_rows(check: Check, model: DiffMICv2, batch: int, repeats: int, where: dict[str, Any]) -> None:
    """Times all ways for one batch, and writes a row of each with its share of what the device can multiply."""
    rows = [
        SLOW,
        replace(SLOW, name="plain order of work, fp32 with TF32", runtime=replace(PLAIN, tf32=True)),
        *(replace(OURS, name=f"ours, {name}", runtime=runtime) for name, runtime in ways(check).items()),
        Variant("ours, bf16, channels first", replace(FAST, precision="bf16", channels_last=False)),
        Variant("ours, bf16, encoders not folded", replace(FAST, precision="bf16", fold_encoders=False)),
    ]
    for row in benchmark(model, batch_size=batch, repeats=repeats, rows=rows, progress=False):
        share = limits(check).fraction(row.gmac, row.images_per_second, row.precision)
        check.write(**where, **vars(row), share_of_products=share)


def parts(check: Check) -> None:
    for size, model in ((size, check.untrained(size)) for size in ("paper", "nano")):
        for batch in (2,) if check.quick else (32, 1):
            for precision in ("bf16", "fp32"):
                if check.left() < 0:
                    return
                for row in benchmark_parts(model, batch_size=batch, repeats=3, precision=precision, progress=False):
                    check.write(size=size, batch=batch, precision=precision, **vars(row))


def training(check: Check) -> None:
    batch = 4 if check.quick else 64
    plain = TrainVariant("straightforward, fp32", PLAIN, channels_last=False, fused=False)
    ours = TrainVariant("ours, bf16", training_runtime("bf16"))
    for size, model in ((size, check.untrained(size)) for size in ("paper", "nano")):
        for allowed in (False, True):
            if check.left() < 0:
                return
            variants = [plain] if not allowed else [plain, ours]
            with tf32(allowed):
                for row in benchmark_training(model, batch_size=batch, repeats=3, rows=variants, progress=False):
                    found = vars(row) | {"stage_of_training": row.stage}
                    del found["stage"]
                    check.write(size=size, batch=batch, tf32=allowed, **found)
        for precision, allowed, last in (
            ("fp32", False, False),
            ("fp32", True, False),
            ("bf16", True, False),
            ("bf16", True, True),
        ):
            if check.left() < 0:
                return
            recipe = Recipe(batch_size=batch, precision=precision)
            where = {"size": size, "batch": batch, "way": f"fit's step, {precision}", "tf32": allowed, "last": last}
            attempt(check, where, lambda: step_rate(check, size, recipe, allowed, last))  # noqa: B023


def step_rate(check: Check, size: str, recipe: Recipe, allowed: bool, last: bool, steps: int = 5) -> dict[str, float]:
    """Times steps of the diffusion stage; the weights in channels last only where asked for, pictures always are."""
    model = deepcopy(check.untrained(size))
    if last:
        model.to(memory_format=torch.channels_last)
    pixels = model.config.input_size
    images = torch.randn(recipe.batch_size, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    images = images.pin_memory() if check.cuda else images
    targets = torch.arange(recipe.batch_size) % model.config.num_classes
    taken = []
    reset_peak(check.device)
    with tf32(allowed), optimization(model, recipe, targets) as step:
        for number in range(2 if check.quick else 2 + steps):
            started = now(check.device)
            step(images, targets, number, 0)
            taken.append(now(check.device) - started)
    seconds = statistics.median(taken[1 if check.quick else 2 :])
    return {
        "images_per_second": recipe.batch_size / seconds,
        "seconds": seconds,
        "first_seconds": taken[0],
        "peak_mib": peak_mib(check.device),
    }


def curve(check: Check) -> None:
    wanted = np.load(check.pack / "curve.npz")["losses"]
    steps = 6 if check.quick else len(wanted)
    for allowed in (False, True):
        with tf32(allowed):
            found = np.array(loss_curve(check.pack, check.device, steps, CURVE_BATCH))
        gaps = np.abs(found - wanted[:steps]) / np.abs(wanted[:steps])
        check.write(
            tf32=allowed, largest=float(gaps.max()), at_step=int(gaps.argmax()), of_ten=float(gaps[:10].max()),
            last=float(found[-1]), cpu_last=float(wanted[steps - 1]),
        )  # fmt: skip


def loading(check: Check) -> None:
    for name, pretrained in ((NANO, True), (PAPER, False)):
        if check.quick and name == PAPER:
            continue
        reset_peak(check.device)
        started = now(check.device)
        model = diffmiczoo.create_model(name, pretrained=pretrained, num_classes=None, device=check.device)
        seconds = now(check.device) - started
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 2**20
        check.write(
            name=name, pretrained=pretrained, seconds=seconds, weights_mib=size, peak_mib=peak_mib(check.device),
            host_peak_mib=peak_mib(torch.device("cpu")),
        )  # fmt: skip


def memory(check: Check) -> None:
    """Predicts with too little memory for the batch: it has to be halved, and the answers have to stay."""
    model = check.untrained("nano")
    pixels = model.config.input_size
    count = 16 if check.quick else 512
    generator = torch.Generator().manual_seed(0)
    squares = [torch.randint(0, 256, (3, pixels, pixels), dtype=torch.uint8, generator=generator) for _ in range(count)]
    for name, runtime in (("fp32", FAST), ("fp32, graph", replace(FAST, graph=True))):
        wanted = np.asarray(predicted(model, squares, runtime, "fp32", batch_size=8 if check.quick else 64).probs)
        predictor = model.predictor(PredictOptions(batch_size=count, progress=False, runtime=runtime, precision="fp32"))
        with little_memory(check):
            found = np.asarray(predictor.predict(as_items(squares)).probs)
        gap = float(np.abs(found - wanted).max())
        check.write(way=name, batch_in_the_end=predictor._limit, of=count, probs_gap=gap)


@contextmanager
def little_memory(check: Check) -> Iterator[None]:
    """Allows what is in use and about a hundredth of the memory besides."""
    if not check.cuda:
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(check.device).total_memory
    used = torch.cuda.memory_reserved(check.device)
    torch.cuda.set_per_process_memory_fraction((used + 700 * 2**20) / total, check.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, check.device)


def compiled(check: Check) -> None:
    """Times steps through torch.compile, in a process of its own that can be ended when it takes too long."""
    for size in ("nano", "paper"):
        if check.left() < 5:
            return
        program = (
            "import gpu_check, json, torch; "
            f"check = gpu_check.Check(torch.device({str(check.device)!r}), None, {check.quick}, print, lambda: 99.0); "
            f"recipe = gpu_check.Recipe(batch_size={4 if check.quick else 64}, precision='bf16', compile=True); "
            f"print(json.dumps(gpu_check.step_rate(check, {size!r}, recipe, True, True)))"
        )
        limit = min(60.0, check.left())
        try:
            ran = subprocess.run(
                [sys.executable, "-c", program], cwd=ROOT / "tools", capture_output=True, text=True, timeout=limit
            )
            row = json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 else {"error": ran.stderr[-2000:]}
        except subprocess.TimeoutExpired:
            row = {"error": f"not done in {limit:.0f} s"}
        check.write(size=size, **row)


#: Stage → the seconds that it may take on a GPU.
STAGES: dict[Callable[[Check], None], float] = {
    facts: 15,
    answers: 90,
    tests: 120,
    speed: 80,
    parts: 10,
    training: 30,
    curve: 15,
    loading: 10,
    memory: 10,
    compiled: 60,
}


# ---------------------------------------------------------------------- running them


def attempt(check: Check, where: dict[str, Any], measure: Callable[[], dict[str, Any] | None]) -> None:
    """Measures and writes what was found, or the traceback; nothing where the measurement wrote its rows itself."""
    try:
        found = measure()
    except Exception:
        check.write(**where, error=traceback.format_exc())
        if check.cuda:
            torch.cuda.empty_cache()
        return
    if found is not None:
        check.write(**where, **found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines; what it holds is kept")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pack", type=Path, default=ROOT / ".gpu")
    parser.add_argument("--seconds", type=float, default=200, help="no stage begins after so many")
    parser.add_argument("--stage", action="append", choices=[stage.__name__ for stage in STAGES])
    parser.add_argument("--quick", action="store_true", help="small models, few pictures and repetitions")
    arguments = parser.parse_args()
    started, models = time.perf_counter(), {}
    with arguments.output.open("a") as output:
        for stage, budget in STAGES.items():
            left = arguments.seconds - (time.perf_counter() - started)
            if (arguments.stage is None or stage.__name__ in arguments.stage) and left > 0:
                run_stage(stage, min(budget, left), arguments, output, started, models)


def run_stage(
    stage: Callable[[Check], None],
    budget: float,
    arguments: Any,
    output: Any,
    started: float,
    models: dict[str, DiffMICv2],
) -> None:
    begun = time.perf_counter()

    def write(**row: Any) -> None:
        line = json.dumps({"stage": stage.__name__, "at": round(time.perf_counter() - started, 2), **row}, default=str)
        print(line, file=output, flush=True)
        print(line if len(line) < 1000 else line[:1000] + " …", flush=True)

    def left() -> float:
        return budget - (time.perf_counter() - begun)

    device = torch.device(arguments.device)
    if device.type == "cuda":
        # Some of PyTorch's functions want the number.
        device = torch.device("cuda", torch.cuda.current_device())
    check = Check(device, arguments.pack, arguments.quick, write, left, models)
    attempt(check, {}, lambda: stage(check))
    drop_graphs()
    if check.cuda:
        torch.cuda.empty_cache()
    write(done=True, seconds=round(time.perf_counter() - begun, 2))


if __name__ == "__main__":
    main()
