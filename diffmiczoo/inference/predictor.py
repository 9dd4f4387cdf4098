"""From anything that holds an image to a `Prediction`, in batches of bounded memory."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffmiczoo.diffusion.sampling import Draws
from diffmiczoo.images import preprocessing
from diffmiczoo.images.items import ImageError, Item, as_items
from diffmiczoo.images.loading import read_squares
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.probabilities import scores_to_probs, uncertainty
from diffmiczoo.nn.condition import fused_prior
from diffmiczoo.nn.priors import exact_priors
from diffmiczoo.runtime.malloc import kept_memory
from diffmiczoo.runtime.modes import evaluation_mode, seeded_generator
from diffmiczoo.runtime.module_walk import tensors_of
from diffmiczoo.runtime.precision import PRECISIONS, autocast, check_precision

if TYPE_CHECKING:
    from diffmiczoo.model import DiffMICv2

#: Items of a batch that were read, name → message of the others, and the tensors of the answers, empty without items.
Answered = tuple[list[Item], dict[str, str], dict[str, Tensor]]

_LAYING_OUT = threading.Lock()

#: Images from which on freed memory is kept between batches.
WORTH_KEEPING_MEMORY = 8


def predict(
    model: DiffMICv2,
    images: Any,
    steps: int | None,
    batch_size: int,
    num_samples: int | None,
    seed: int,
    on_error: str,
    precision: str,
    progress: bool | None,
) -> Prediction:
    """Does what `DiffMICv2.predict` describes."""
    num_samples = model.config.num_samples if num_samples is None else num_samples
    steps = model.config.sampling_steps if steps is None else steps
    _check_arguments(on_error, steps=steps, batch_size=batch_size, num_samples=num_samples, seed=seed)
    items = as_items(images)
    _warn_if_untrained(model)
    _warn_if_noise(model, steps)
    kept: list[Item] = []
    errors: dict[str, str] = {}
    rows: list[dict[str, Tensor]] = []
    draws = model.draw_noise(steps, num_samples, generator=seeded_generator(seed))
    answers = _answered(model, items, steps, draws, batch_size, precision, on_error)
    for read, failed, row in tqdm_batches(answers, len(items), progress):
        kept += read
        errors |= failed
        rows += [row] if row else []
    if not rows:
        raise ImageError("images", "none could be read: " + "; ".join(errors.values()))
    return _prediction(model, kept, errors, rows, steps, seed, num_samples)


def predict_batches(
    model: DiffMICv2,
    items: list[Item],
    *,
    steps: int | None = None,
    batch_size: int = 32,
    num_samples: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    precision: str = "fp32",
    progress: bool | None = None,
) -> Iterator[tuple[Prediction | None, dict[str, str]]]:
    """Does what `predict` does, and yields the answers of each batch when it has them: memory does not grow.

    Args:
        model: as for `DiffMICv2.predict`, like all others.
        items: as `as_items` gives them.
        steps: of the sampler.
        batch_size: images computed at once.
        num_samples: sampler runs to average.
        seed: of the starting noise.
        on_error: "raise", or "skip".
        precision: "fp32", "bf16", "fp16" or "int8".
        progress: show a bar.

    Yields:
        The batch's prediction, None where none of its images could be read, and name → message of those that could not.
    """
    num_samples = model.config.num_samples if num_samples is None else num_samples
    steps = model.config.sampling_steps if steps is None else steps
    _check_arguments(on_error, steps=steps, batch_size=batch_size, num_samples=num_samples, seed=seed)
    _warn_if_untrained(model)
    _warn_if_noise(model, steps)
    draws = model.draw_noise(steps, num_samples, generator=seeded_generator(seed))
    answers = _answered(model, items, steps, draws, batch_size, precision, on_error)
    for read, failed, row in tqdm_batches(answers, len(items), progress):
        yield (_prediction(model, read, failed, [row], steps, seed, num_samples) if row else None), failed


def tqdm_batches(answers: Iterator[Answered], count: int, progress: bool | None) -> Iterator[Answered]:
    """Passes batches on and counts their images on a bar."""
    hide = None if progress is None else not progress
    with tqdm(total=count, desc="predict", unit="img", disable=hide) as bar:
        for answer in answers:
            yield answer
            bar.update(len(answer[0]) + len(answer[1]))


def _answered(
    model: DiffMICv2,
    items: list[Item],
    steps: int,
    draws: Draws,
    batch_size: int,
    precision: str,
    on_error: str,
) -> Iterator[Answered]:
    """Yields the items of each batch that could be read, what is wrong with the others, and the answers."""
    like = model.default_noise
    check_precision(precision, like.device)
    _lay_out(model)
    draws = draws.to(like)
    limit = _Limit(batch_size)
    # A single picture has no large feature maps, and giving memory back would take longer than they save.
    memory = kept_memory() if len(items) >= WORTH_KEEPING_MEMORY else nullcontext()
    with memory:
        for batch in _batches(zip(items, read_squares(items, model.config), strict=True), batch_size):
            failed = {item.name: square for item, square in batch if isinstance(square, ImageError)}
            if failed and on_error == "raise":
                raise next(iter(failed.values()))
            good = [(item, square) for item, square in batch if isinstance(square, Tensor)]
            row: dict[str, Tensor] = {}
            if good:
                squares = _stacked([square for _, square in good])
                # Only around the work: whoever takes the answers computes in contexts of their own.
                with evaluation_mode(model), torch.inference_mode(), autocast(precision, like.device):
                    row = _answer_within(limit, model, squares, steps, draws, PRECISIONS[precision])
            yield [item for item, _ in good], {name: str(error) for name, error in failed.items()}, row


def _stacked(squares: list[Tensor]) -> Tensor:
    """Returns pixels as they were read, a byte each where all are: a quarter of what would go to a GPU normalised."""
    if all(square.dtype == torch.uint8 for square in squares):
        return torch.stack(squares)
    return torch.stack([square.float() / 255 if square.dtype == torch.uint8 else square.float() for square in squares])


def _lay_out(model: DiffMICv2) -> None:
    """Puts weights into the layout in which convolutions take less time on CPUs; they stay what they are.

    Once: to change a weight's memory while another thread computes with it would give that thread wrong answers.
    """
    with _LAYING_OUT:
        if not all(_is_laid_out(tensor) for tensor in tensors_of(model)):
            model.to(memory_format=torch.channels_last)


def _is_laid_out(tensor: Tensor) -> bool:
    return tensor.ndim != 4 or tensor.is_contiguous(memory_format=torch.channels_last)


def _prediction(
    model: DiffMICv2,
    items: list[Item],
    errors: dict[str, str],
    rows: list[dict[str, Tensor]],
    steps: int,
    seed: int,
    num_samples: int,
) -> Prediction:
    return Prediction(
        names=[item.name for item in items],
        items=items,
        errors=errors,
        config=model.config,
        steps=steps,
        seed=seed,
        num_samples=num_samples,
        trained=model.trained,
        **{key: torch.cat([row[key] for row in rows]) for key in rows[0]},
    )


@dataclass
class _Limit:
    """How many images are computed at once; fewer after the memory of a GPU was too small."""

    images: int


def _answer_within(
    limit: _Limit, model: DiffMICv2, squares: Tensor, steps: int, draws: Draws, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Returns the tensors of a `Prediction` for one batch; where memory runs out, from half as many images at once."""
    rows: list[dict[str, Tensor]] = []
    done = 0
    while done < len(squares):
        part = squares[done : done + limit.images]
        row = _answer_if_it_fits(model, part, steps, draws, dtype)
        if row is not None:
            rows.append(row)
            done += len(part)
            continue
        limit.images = len(part) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}


def _answer_if_it_fits(
    model: DiffMICv2, squares: Tensor, steps: int, draws: Draws, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """Returns None where memory is too small for several images; what was computed is free once this has returned."""
    like = model.default_noise
    try:
        images = preprocessing.normalize(squares.to(like.device), model.config).to(like)
        return _answer(model, images, steps, draws, dtype)
    except torch.OutOfMemoryError:
        if len(squares) == 1:
            raise
    return None


def _answer(model: DiffMICv2, images: Tensor, steps: int, draws: Draws, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the tensors of a `Prediction` for one batch, on the CPU."""
    images = images.to(memory_format=torch.channels_last)
    priors = exact_priors(model.dcg, model.config, images)
    own = dtype if dtype != torch.float32 else None
    left_top = priors["roi_top_left"].flip(-1)
    row = _on_cpu(
        {
            "scores": model.scores(images, priors, steps, draws, own),
            "dcg_scores": fused_prior(priors),
            "rois": torch.cat([left_top, left_top + model.config.roi_size], dim=-1),
            "roi_attention": priors["roi_attention"],
            "saliency": priors["saliency"],
        }
    )
    probs = scores_to_probs(row["scores"], model.config, row["dcg_scores"])
    return row | {"probs": probs, "uncertainty": uncertainty(probs, model.config.task)}


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors (B, …) as float32 on the CPU, brought there at once: every transfer waits for the device."""
    flat = torch.cat([tensor.flatten(1).float() for tensor in tensors.values()], dim=1).cpu()
    parts = flat.split([tensor.shape[1:].numel() for tensor in tensors.values()], dim=1)
    return {name: part.reshape(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}


def _warn_if_untrained(model: DiffMICv2) -> None:
    if not model.trained:
        warnings.warn(
            "this model is not trained: its answers mean nothing. Load weights with pretrained=True, or train it "
            "with diffmiczoo.fit",
            UserWarning,
            stacklevel=4,
        )


def _warn_if_noise(model: DiffMICv2, steps: int) -> None:
    """The timesteps are spaced evenly from 0 upwards, so a single step starts and ends at 0."""
    if model.config.predictor == "diffusion" and model.schedule.timesteps(steps)[0] == 0:
        warnings.warn(
            f"steps={steps} samples at timestep 0 only, where labels hold no noise: the answer is the random start, "
            f"not the image. This model is meant for {model.config.sampling_steps} steps",
            UserWarning,
            stacklevel=4,
        )


def _check_arguments(on_error: str, **counts: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name}={value!r} must be a whole number")
        low, high = (0, 2**63 - 1) if name == "seed" else (1, 2**31 - 1)
        if not low <= value <= high:
            raise ValueError(f"{name}={value} must be within {low}..{high}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r} must be 'raise' or 'skip'")


def _batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch
