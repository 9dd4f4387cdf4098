"""Denoising seen: label maps and hidden features at every step of the sampler, and figures of them (paper's fig. 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from diffmiczoo.diffusion.sampling import initial_sample, sampling_loop
from diffmiczoo.errors import InvalidTypeError, InvalidValueError, MissingExtraError
from diffmiczoo.images.items import as_items
from diffmiczoo.images.preprocessing import preprocess
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.condition import Condition
from diffmiczoo.nn.unet import DenoisingUNet
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.text import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EMBEDDINGS = ("pca", "tsne")

_INK, _FAINT = "#1b2733", "#5b6773"
_PANEL = 2.2

#: Neighbours that t-SNE takes for near; few images have fewer.
_PERPLEXITY = 30


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What the sampler does with images, step by step: S steps, n runs.

    Attributes:
        timesteps: S, from noise to labels.
        labels: (S + 1, n, B, C, Np, Np) float32: y before each step, and at the end ŷ_0.
        features: (S, B, H) float32: what the U-Net's last layer is given, mean over runs and noise points.
        guidance_map: M, (B, C, Np, Np).
        names: of the images.
        class_names: of the C classes.
    """

    timesteps: tuple[int, ...]
    labels: Tensor
    features: Tensor
    guidance_map: Tensor
    names: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def scores(self) -> Tensor:
        """(S + 1, n, B, C): the mean over the noise points; the last of them, averaged over the runs, is predicted."""
        return self.labels.mean((-2, -1))


@torch.no_grad()
def trace(
    model: DiffMICv2,
    images: Any,
    *,
    steps: int | None = None,
    num_samples: int | None = None,
    batch_size: int = 32,
    progress: bool | None = None,
) -> Trajectory:
    """Samples as `predict` does and keeps what lies between noise and labels.

    Args:
        model: with a diffusion.
        images: as `DiffMICv2.predict` takes them.
        steps: of the sampler; the model's own by default.
        num_samples: runs; the model's own by default.
        batch_size: images computed at once.
        progress: show a bar; by default where the standard error is a terminal.

    Raises:
        TypeError: the model has no diffusion.
        ValueError: `steps` or `num_samples` is out of range.
        ImageError: an image cannot be read.
    """
    config = model.config
    if config.predictor != "diffusion":
        raise InvalidTypeError(f"predictor={config.predictor!r} has no diffusion whose steps could be shown")
    items = as_items(images)
    PredictOptions(steps=steps, num_samples=num_samples, batch_size=batch_size)  # refuses what is out of range
    steps = config.sampling_steps if steps is None else steps
    runs = config.num_samples if num_samples is None else num_samples
    found = []
    with eval_mode(model), progress_bar(len(items), "trace", "img", progress) as bar:
        for start in range(0, len(items), batch_size):
            part = items[start : start + batch_size]
            condition = model.condition(preprocess(part, config).to(model.default_noise))
            found.append((*_steps_of(model, condition, steps, runs), condition.guidance_map))
            bar.update(len(part))
    labels, features, guidance = zip(*found, strict=True)
    return Trajectory(
        timesteps=tuple(model.sampler.timesteps(steps)),
        labels=torch.cat(labels, 2).float().cpu(),
        features=torch.cat(features, 1).float().cpu(),
        guidance_map=torch.cat(guidance).float().cpu(),
        names=tuple(item.name for item in items),
        class_names=tuple(config.labels),
    )


def _steps_of(model: DiffMICv2, condition: Condition, steps: int, runs: int) -> tuple[Tensor, Tensor]:
    """Returns y before each step and at the end, and the hidden features of each step."""
    noise = model.sampling_noise(steps, runs).to(model.default_noise)
    y = initial_sample(model.config, condition, noise.initial).flatten(0, 1)
    guidance, features = (
        repeat(each, "b ... -> (n b) ...", n=runs) for each in (condition.guidance_map, condition.feature_prior)
    )
    added = None
    if noise.step_noise is not None:
        added = noise.step_noise.expand(-1, runs, len(condition.guidance_map), -1, -1, -1).flatten(1, 2)
    seen: list[Tensor] = []

    def denoiser(y: Tensor, t: int, guidance_map: Tensor, feature_prior: Tensor) -> Tensor:
        seen.append(y)
        predicted: Tensor = model.unet(y, t, guidance_map, feature_prior)
        return predicted

    sampler = model.sampler
    timesteps, mean = sampler.timesteps(steps), sampler.schedule.mean(guidance)
    with _hidden_features(model.unet) as hidden:
        end = sampling_loop(denoiser, sampler, timesteps, y, guidance, features, mean, added)
    means = [rearrange(each, "(n b) h i j -> n b h i j", n=runs).mean((0, 3, 4)) for each in hidden]
    return torch.stack([*seen, end]).unflatten(1, (runs, -1)), torch.stack(means)


@contextmanager
def _hidden_features(unet: DenoisingUNet) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    handle = unet.out_conv.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


# ---------------------------------------------------------------------- figures


def plot_embedding(
    trajectory: Trajectory, classes: Sequence[Any], method: str = "pca", *, of: str = "features", seed: int = 0
) -> Figure:
    """Draws the images of a trajectory as points in the plane, a panel for each step, coloured by class.

    Each panel is embedded by itself, so that places mean nothing across panels: look at whether classes part.

    Args:
        trajectory: of B ≥ 3 images.
        classes: B names or numbers.
        method: "pca", or "tsne" of scikit-learn (van der Maaten, Hinton, JMLR 2008).
        of: "features", what the U-Net computes in each step, or "labels", the label maps after each step.
        seed: of t-SNE.

    Raises:
        ValueError: an argument is out of range, or there is not one class per image.
        ImportError: matplotlib, or for "tsne" scikit-learn, is not installed.
    """
    if method not in EMBEDDINGS or of not in ("features", "labels"):
        raise InvalidValueError(f"method={method!r} must be one of {EMBEDDINGS}, of={of!r} 'features' or 'labels'")
    count = len(trajectory.names)
    if len(classes) != count or count < 3:
        raise InvalidValueError(f"plot_embedding needs 3 images or more and a class for each; found {count} images")
    named = [each if isinstance(each, str) else str(each) for each in classes]
    values = trajectory.features if of == "features" else trajectory.labels[1:].mean(1).flatten(2)
    figure = new_figure(_PANEL * len(values), _PANEL + 0.75)
    names = list(dict.fromkeys(named))
    for place, (step, t) in enumerate(zip(values, trajectory.timesteps, strict=True)):
        axes = figure.add_subplot(1, len(values), place + 1)
        points = _embedded(step.double().numpy(), method, seed)
        for name in names:
            chosen = points[[each == name for each in named]]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=9, label=plain_text(name), linewidths=0)
        axes.set_title(f"step {place + 1}, t = {t}", fontsize=9, color=_INK)
        axes.set(xticks=[], yticks=[])
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncols=min(len(names), 7), fontsize=8, frameon=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.17, wspace=0.06)
    return figure


def _embedded(values: np.ndarray, method: str, seed: int) -> np.ndarray:
    centred = values - values.mean(0)
    if method == "tsne":
        try:
            from sklearn.manifold import TSNE
        except ImportError as error:
            raise MissingExtraError('method="tsne" needs scikit-learn: pip install "diffmiczoo[tsne]"') from error
        perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
        found: np.ndarray = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(centred)
        return found
    left, strength, _ = np.linalg.svd(centred, full_matrices=False)
    points: np.ndarray = left[:, :2] * strength[:2]
    return points if points.shape[1] == 2 else np.pad(points, ((0, 0), (0, 1)))


def plot_chains(trajectory: Trajectory, row: int = 0, top: int = 3) -> Figure:
    """Draws what happens to one image: its guidance map, its label map after each step, and all chains to their labels.

    A row has a class each: M, then the mean over the runs of y from noise to labels, on one scale. Below are lines for
    each run and class: the mean over the noise points, which at the end is the class's score.

    Args:
        trajectory: of any images.
        row: place of the image.
        top: classes that are drawn, those with the highest scores first, ≥ 1.

    Raises:
        ValueError: `row` or `top` is out of range.
        ImportError: matplotlib is not installed.
    """
    if not 0 <= row < len(trajectory.names) or top < 1:
        raise InvalidValueError(f"row={row} must be within 0..{len(trajectory.names) - 1}, and top={top} at least 1")
    scores = trajectory.scores[:, :, row]
    order = scores[-1].mean(0).argsort(descending=True)[:top].tolist()
    maps = torch.cat([trajectory.guidance_map[row][None], trajectory.labels[:, :, row].mean(1)])
    columns, rows = len(maps), len(order)
    figure = new_figure(1.15 * columns + 1.6, 1.15 * rows + 2.6)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1] * rows + [1.9])
    headings = ["M", "start", *(f"step {step + 1}" for step in range(len(trajectory.timesteps)))]
    for line, number in enumerate(order):
        for place, (values, heading) in enumerate(zip(maps[:, number], headings, strict=True)):
            axes = figure.add_subplot(grid[line, place])
            axes.imshow(values.numpy(), vmin=-1, vmax=2, cmap="viridis", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if line == 0:
                axes.set_title(heading, fontsize=9, color=_INK)
            if place == 0:
                axes.set_ylabel(plain_text(trajectory.class_names[number], 18), fontsize=9, color=_INK)
    _draw_chains(figure.add_subplot(grid[rows, :]), trajectory, scores, order)
    figure.subplots_adjust(left=0.11, right=0.98, top=0.93, bottom=0.09, hspace=0.18, wspace=0.08)
    return figure


def _draw_chains(axes: Axes, trajectory: Trajectory, scores: Tensor, order: list[int]) -> None:
    steps = np.arange(len(scores))
    for line, number in enumerate(order):
        runs, colour = scores[:, :, number].numpy(), f"C{line}"
        axes.plot(steps, runs, color=colour, linewidth=0.8, alpha=0.5)
        axes.plot(steps, runs.mean(1), color=colour, linewidth=2, label=plain_text(trajectory.class_names[number], 30))
    for label in (0, 1):
        axes.axhline(label, color=_FAINT, linewidth=0.6, linestyle=":")
    axes.set_xticks(steps, ["start", *(f"t = {t}" for t in trajectory.timesteps)])
    axes.tick_params(labelsize=8)
    axes.set_ylabel("mean of y over the noise points", fontsize=9, color=_INK)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in inches that pyplot knows nothing of."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError('figures need matplotlib: pip install "diffmiczoo[plot]"') from error
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    return figure
