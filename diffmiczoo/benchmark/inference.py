"""Speed of this machine: the plain order of work and ours side by side, each optimisation also switched off alone."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.benchmark.roofline import Roofline
from diffmiczoo.benchmark.timing import Spread, markdown_table, now, peak_mib, reset_peak
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion.sampling import initial_sample, sampling_loop
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.compiled import CompiledModules
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.settings import PLAIN, PREDICT, Runtime, using
from diffmiczoo.zoo.complexity import count_macs

# Seconds from which on a run is not made twice.
_LONG = 1.0


@dataclass(frozen=True)
class Variant:
    """One way to compute the same predictions.

    Attributes:
        name: for the table.
        runtime: which optimisations are on.
        encode_once: F's encoders run once per image; otherwise again in every step, as the released program does (the
            DCG runs once in either).
        compiled: encoders through torch.compile.
    """

    name: str
    runtime: Runtime = PREDICT
    encode_once: bool = True
    compiled: bool = False

    def without(self, what: str, **switches: Any) -> Variant:
        """Returns this variant with switches of its runtime changed."""
        return replace(self, name=f"{self.name}, without: {what}", runtime=replace(self.runtime, **switches))


#: The plain order of work.
SLOW = Variant("plain order of work, fp32", PLAIN, encode_once=False)
OURS = Variant("ours, fp32")


def variants(half: str = "bf16", compiled: bool = False, integers: bool = False, graphs: bool = False) -> list[Variant]:
    """Returns the rows of the table: plain, ours, and ours with each optimisation switched off alone.

    Args:
        half: "bf16" or "fp16".
        compiled: also with encoders through torch.compile.
        integers: also with the U-Net's hidden layers in 8-bit integers.
        graphs: the device can record CUDA graphs: also without them.
    """
    best = Variant(f"ours, {half}", replace(PREDICT, precision=half))
    rows = [
        SLOW,
        OURS,
        best,
        # Step by step it is not what is recorded.
        replace(
            best.without("encode once, CUDA graphs" if graphs else "encode once", graph=not graphs), encode_once=False
        ),
        best.without("equal points once", equal_points=False),
        best.without("folding", fold=False),
        best.without("folding encoders", fold_encoders=False),
        best.without("packing weights", pack=False),
        best.without("keeping memory", keep_memory=False),
        best.without("channels last", channels_last=False),
    ]
    if graphs:
        rows.append(best.without("CUDA graphs", graph=False))
    if integers:
        rows.append(Variant("ours, int8", replace(PREDICT, precision="int8")))
    if compiled:
        # What is compiled launches its kernels by itself.
        eager = replace(best.runtime, graph=False)
        rows.append(replace(best, name=f"{best.name}, compiled", compiled=True, runtime=eager))
    return rows


def meaningful(rows: list[Variant], config: DiffMICConfig) -> list[Variant]:
    """Leaves out, of a model without a diffusion, all rows but the first that differ in what only a diffusion does."""
    if config.predictor == "diffusion":
        return rows
    found = {row: replace(row.runtime, equal_points=True, fold=True) for row in reversed(rows)}
    kept = {(runtime, row.compiled): row for row, runtime in found.items() if runtime.precision != "int8"}
    return [row for row in rows if row in kept.values()]


@dataclass(frozen=True)
class Timing:
    """What one variant took.

    Attributes:
        variant: its name.
        seconds: median for one batch; `fastest` and `slowest` of all runs.
        images_per_second: batch / seconds.
        ratio: to the first variant of the table.
        gmac: multiply-accumulates for one image, in 10⁹.
        max_difference: largest difference of a score from the first variant's.
        peak_mib: of the process so far, or of the GPU during this variant.
        precision: of matrix products and convolutions.
    """

    variant: str
    seconds: float
    fastest: float
    slowest: float
    images_per_second: float
    ratio: float
    gmac: float
    max_difference: float
    peak_mib: float
    precision: str


def benchmark(
    model: DiffMICv2,
    *,
    batch_size: int = 32,
    repeats: int = 5,
    rows: list[Variant] | None = None,
    progress: bool | None = None,
) -> list[Timing]:
    """Times `DiffMICv2.scores` for one batch of random images, from the same start for all variants.

    The start is drawn per band of equal |i - j|, as in the released program, so that all variants have the same scores.
    Variants take turns, so that a slow moment of the machine does not hit one of them alone.

    Args:
        model: on its device; its own sampling steps.
        batch_size: images computed at once, ≥ 1.
        repeats: timed runs of each variant after one to warm up, ≥ 1.
        rows: the first is what the others are compared with; `variants()` by default.
        progress: show a bar; by default where the standard error is a terminal.
    """
    images = random_images(model, batch_size)
    with same_start(model), eval_mode(model), torch.inference_mode():
        return _timed(model, images, meaningful(rows or variants(), model.config), repeats, progress)


def random_images(model: DiffMICv2, count: int) -> Tensor:
    """Returns normalised images (count, 3, S, S) on the model's device, the same in every run."""
    size = model.config.input_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)).to(model.default_noise)


@contextlib.contextmanager
def same_start(model: DiffMICv2) -> Iterator[None]:
    """Lets a model start from one draw per band of equal |i - j|, so that all variants have the same scores."""
    own = model.config
    model.config = own.replace(shared_noise=True, init="gaussian", num_samples=1)
    try:
        yield
    finally:
        model.config = own


def computed_fraction_of_points(config: DiffMICConfig) -> float:
    """Returns the fraction of noise points that are computed: one per band, with 1 × 1 kernels."""
    return 1 / config.num_points if config.kernel_size == 1 else 1.0


def _timed(model: DiffMICv2, images: Tensor, rows: list[Variant], repeats: int, progress: bool | None) -> list[Timing]:
    runs = [_prepared(model, images, variant) for variant in rows]
    seconds: list[list[float]] = [[] for _ in rows]
    scores: list[Tensor] = []
    peaks: list[float] = []
    with progress_bar(len(rows) * (repeats + 1), "benchmark", "run", progress) as bar:
        for repeat in range(repeats + 1):
            for variant, run, times in zip(rows, runs, seconds, strict=True):
                reset_peak(images.device)
                taken, found = _warm(run, variant, images.device)
                bar.update()
                if repeat == 0:
                    scores.append(found)
                    peaks.append(peak_mib(images.device))
                else:
                    times.append(taken)
    first = statistics.median(seconds[0])
    macs = count_macs(model.config.replace(num_samples=1))
    return [
        Timing(
            variant=variant.name,
            seconds=(spread := Spread.of(times)).median,
            fastest=spread.fastest,
            slowest=spread.slowest,
            images_per_second=len(images) / spread.median,
            ratio=first / spread.median,
            gmac=_gmac(model.config, macs, variant),
            max_difference=float((found - scores[0]).abs().max()),
            peak_mib=peak,
            precision=variant.runtime.precision,
        )
        for variant, times, found, peak in zip(rows, seconds, scores, peaks, strict=True)
    ]


def _warm(run: Callable[[], Tensor], variant: Variant, device: torch.device) -> tuple[float, Tensor]:
    """Times a warm run: one untimed run fills caches and the allocator."""
    with keep_memory() if variant.runtime.keep_memory else contextlib.nullcontext():
        found = _clocked(run, device)
        # Long runs are not repeated: warm-up no longer matters, but for pages that were given back to the system.
        return _clocked(run, device) if variant.runtime.keep_memory or found[0] < _LONG else found


def _clocked(run: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    started = now(device)
    scores = run()
    return now(device) - started, scores.float().cpu()


def _prepared(model: DiffMICv2, images: Tensor, variant: Variant) -> Callable[[], Tensor]:
    """Returns a function that computes the scores of all images as the variant does."""
    compiled = CompiledModules(model.encoders()) if variant.compiled else None
    pictures = images.to(memory_format=torch.channels_last) if variant.runtime.channels_last else images
    once = variant.encode_once or model.config.predictor != "diffusion"
    compute = scores_encoding_once if once else scores_encoding_in_every_step

    def run() -> Tensor:
        with compiled.active() if compiled else contextlib.nullcontext(), using(variant.runtime, images.device):
            return compute(model, pictures)

    return run


def scores_encoding_once(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns the scores of images as `predict` computes them."""
    return model.scores(images, model.dcg(images, model.config, batch_invariant=True))


def scores_encoding_in_every_step(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns the scores of images with F's encoders in the sampling loop, as the released program runs them."""
    priors = model.dcg(images, model.config, batch_invariant=True)
    noise = model.sampling_noise(model.config.sampling_steps, 1)

    def encode_and_predict_noise(y_t: Tensor, t: int, guidance_map: Tensor, feature_prior: Tensor) -> Tensor:
        condition = model.condition_from_priors(images, priors).to(images.dtype)
        return model.predict_noise(y_t, t, condition).float()

    condition = model.condition_from_priors(images, priors).to(images.dtype)
    guidance_map = condition.guidance_map
    start = initial_sample(model.config, condition, noise.initial)[0]
    step_noise = None if noise.step_noise is None else noise.step_noise[:, 0].expand(-1, *start.shape)
    timesteps, mean = model.sampler.timesteps(model.config.sampling_steps), model.schedule.mean(guidance_map)
    parts = (guidance_map, condition.feature_prior, mean, step_noise)
    return sampling_loop(encode_and_predict_noise, model.sampler, timesteps, start, *parts).mean((2, 3))


def _gmac(config: DiffMICConfig, macs: dict[str, int], variant: Variant) -> float:
    runtime = variant.runtime
    once = runtime.equal_points and runtime.fold and variant.encode_once
    fraction = computed_fraction_of_points(config) if once else 1.0
    encodings = 1 if variant.encode_once else config.sampling_steps
    return (macs["dcg"] + macs["feature_prior"] * encodings + macs["unet"] * fraction * config.sampling_steps) / 1e9


def inference_table(timings: list[Timing], roofline: Roofline | None = None) -> str:
    """Returns timings as a Markdown table; with roofline also which part of the fastest matrix product each rate is."""
    columns = ("way to compute", "images/s", "×", "ms/image", "GMAC/image", "of the limit", "largest difference")
    return markdown_table(columns, (_cells(row, roofline) for row in timings))


def _cells(row: Timing, roofline: Roofline | None) -> list[str]:
    precision = "bf16" if row.precision == "int8" else row.precision
    return [
        row.variant,
        f"{row.images_per_second:.2f}",
        f"{row.ratio:.1f}",
        f"{1000 / row.images_per_second:.1f}",
        f"{row.gmac:.1f}",
        f"{roofline.fraction(row.gmac, row.images_per_second, precision):.0%}" if roofline else "–",
        f"{row.max_difference:.1e}",
    ]
