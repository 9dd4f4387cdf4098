"""From items that hold images to a `Prediction`, in batches of bounded memory; runs no network itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidTypeError, InvalidValueError
from diffmiczoo.images.items import ImageError, Item
from diffmiczoo.images.loading import read_sized_squares
from diffmiczoo.images.preprocessing import Square
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.tensors import PredictionTensors, concatenated, selected
from diffmiczoo.inference.views import VIEWS
from diffmiczoo.runtime.cuda_graph import drop_graphs, is_out_of_memory
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.settings import PREDICT, Runtime
from diffmiczoo.trust.stored import Trust

#: Squares (B, 3, S, S), uint8 or float in [0, 1] → the tensors of their prediction, on the CPU.
PredictSquares = Callable[[Tensor], PredictionTensors]

#: Images from which on freed memory stays in the process between batches. A single picture has no large feature maps,
#: and giving memory back would take longer than keeping it saves.
WORTH_KEEPING_MEMORY = 8


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How images are predicted; the fields mean what the arguments of `DiffMICv2.predict` do.

    Attributes:
        steps, num_samples: the model's own where they are None.
        runtime: what computes faster; its precision is the field beside it.
        precision: "auto" only until a predictor is made, which has the one that was chosen.
        tta: a name of `inference.views.VIEWS`; the model's own where it is None.
        defer_error: None for no promise.
        fill_batches: compute `batch_size` images always, copies of one where there are fewer. How many there are at
            once changes the last bits of an answer, which images there are and where does not: so an answer is the
            same to the bit whatever comes with it.

    Raises:
        ValueError: a field is out of range.
        TypeError: a field is not a whole number.
    """

    steps: int | None = None
    batch_size: int = 32
    num_samples: int | None = None
    seed: int = 0
    on_error: str = "raise"
    precision: str = "fp32"
    progress: bool | None = None
    runtime: Runtime = PREDICT
    tta: str | None = None
    defer_error: float | None = None
    on_foreign: str = "flag"
    fill_batches: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "num_samples", "seed"):
            value = getattr(self, name)
            if value is None and name in ("steps", "num_samples"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise InvalidTypeError(f"{name}={value!r} must be a whole number")
            low, high = (0, 2**63 - 1) if name == "seed" else (1, 2**31 - 1)
            if not low <= value <= high:
                raise InvalidValueError(f"{name}={value} must be within {low}..{high}")
        if self.on_error not in ("raise", "skip"):
            raise InvalidValueError(f"on_error={self.on_error!r} must be 'raise' or 'skip'")
        if self.on_foreign not in ("flag", "refuse"):
            raise InvalidValueError(f"on_foreign={self.on_foreign!r} must be 'flag' or 'refuse'")
        if self.tta is not None and self.tta not in VIEWS:
            raise InvalidValueError(f"tta={self.tta!r} must be one of {', '.join(map(repr, VIEWS))}, or None")


@dataclass(frozen=True)
class Batch:
    """What became of some images.

    Attributes:
        items: those that could be read.
        sizes: (H, W) of each of these, upright.
        errors: name → message of the others.
        tensors: of the prediction, a row per item; None without items.
    """

    items: list[Item]
    sizes: list[tuple[int, int]]
    errors: dict[str, str]
    tensors: PredictionTensors | None


@dataclass
class Predictor:
    """Reads images, hands them to a model in batches, and puts together what it says.

    Args:
        predict_squares: what the model computes.
        config: the model's.
        options: how.
        steps: of the sampler.
        num_samples: runs of the sampler.
        trained: whether the model's weights come from training.
        model_name: what people call the model.
        class_labels: class → what people call it.
        trust: what the weights know about their limits.
    """

    predict_squares: PredictSquares
    config: DiffMICConfig
    options: PredictOptions
    steps: int
    num_samples: int
    trained: bool
    model_name: str = ""
    class_labels: dict[str, str] = field(default_factory=dict)
    trust: Trust | None = None
    # How many images are computed at once: fewer after the memory of a GPU was too small.
    _limit: int = field(init=False)

    def __post_init__(self) -> None:
        self._limit = self.options.batch_size

    @property
    def tta(self) -> str:
        """Name of the views that are averaged."""
        return self.options.tta or self.config.tta

    def predict(self, items: list[Item]) -> Prediction:
        """Predicts all images.

        Raises:
            ImageError: an image cannot be read, or with `on_error="skip"` none can; the message names them.
        """
        batches = list(self._batches(items))
        errors = {name: message for batch in batches for name, message in batch.errors.items()}
        tensors = [batch.tensors for batch in batches if batch.tensors is not None]
        if not tensors:
            raise ImageError("images", "none could be read: " + "; ".join(errors.values()))
        read = [item for batch in batches for item in batch.items]
        sizes = [size for batch in batches for size in batch.sizes]
        return self._prediction(read, sizes, errors, concatenated(tensors))

    def predict_batches(self, items: Collection[Item]) -> Iterator[tuple[Prediction | None, dict[str, str]]]:
        """Does what `predict` does, one batch after the other: memory does not grow with the number of images.

        Yields:
            The batch's prediction, None where none of its images could be read, and name → message of those that
            could not.
        """
        for batch in self._batches(items):
            found, tensors = None, batch.tensors
            if tensors is not None:
                found = self._prediction(batch.items, batch.sizes, batch.errors, tensors)
            yield found, batch.errors

    def predict_squares_of(self, items: list[Item], squares: list[Square]) -> Prediction:
        """Predicts images that were read already; their names need not be unique.

        Args:
            items: B ≥ 1 images, kept in the prediction.
            squares: what was read of each.
        """
        pixels, sizes = [square.pixels for square in squares], [square.size for square in squares]
        return self._prediction(items, sizes, {}, self._predict_within_memory(_stacked(pixels)))

    def _batches(self, items: Collection[Item]) -> Iterator[Batch]:
        options = self.options
        keeps_memory = options.runtime.keep_memory and len(items) >= WORTH_KEEPING_MEMORY
        squares = read_sized_squares(items, self.config)
        with (
            keep_memory() if keeps_memory else nullcontext(),
            progress_bar(len(items), "predict", "img", options.progress) as bar,
        ):
            for pairs in _chunks(zip(items, squares, strict=True), options.batch_size):
                yield self._batch(pairs)
                bar.update(len(pairs))

    def _batch(self, pairs: list[tuple[Item, Square | ImageError]]) -> Batch:
        failed = {item.name: square for item, square in pairs if isinstance(square, ImageError)}
        if failed and self.options.on_error == "raise":
            raise next(iter(failed.values()))
        errors = {name: str(error) for name, error in failed.items()}
        squares = [square for _, square in pairs if isinstance(square, Square)]
        items = [item for item, square in pairs if isinstance(square, Square)]
        pixels, sizes = [square.pixels for square in squares], [square.size for square in squares]
        found = Batch(items, sizes, errors, self._predict_within_memory(_stacked(pixels)) if pixels else None)
        return self._without_foreign(found) if self.options.on_foreign == "refuse" else found

    def _without_foreign(self, batch: Batch) -> Batch:
        """Takes pictures that are unlike the training pictures for errors."""
        if batch.tensors is None or batch.tensors.ood_score is None:
            return batch
        scores = batch.tensors.ood_score.tolist()
        foreign = {
            item.name: ImageError(item.name, f"unlike the training pictures (ood_score {score:.2f}, above 1)")
            for item, score in zip(batch.items, scores, strict=True)
            if score > 1
        }
        if foreign and self.options.on_error == "raise":
            raise next(iter(foreign.values()))
        rows = [row for row, score in enumerate(scores) if not score > 1]
        tensors = PredictionTensors(**selected(batch.tensors, rows)) if rows else None
        errors = batch.errors | {name: str(error) for name, error in foreign.items()}
        return Batch([batch.items[row] for row in rows], [batch.sizes[row] for row in rows], errors, tensors)

    def _predict_within_memory(self, squares: Tensor) -> PredictionTensors:
        """Predicts a batch; where memory runs out, half as many images at once from then on."""
        found: list[PredictionTensors] = []
        done = 0
        while done < len(squares):
            part = squares[done : done + self._limit]
            filled = _filled(part, self._limit) if self.options.fill_batches else part
            tensors = self._predict_if_it_fits(filled)
            if tensors is None:
                self._limit = len(filled) // 2
                drop_graphs()
                continue
            if len(filled) > len(part):
                tensors = PredictionTensors(**selected(tensors, list(range(len(part)))))
            found.append(tensors)
            done += len(part)
        return concatenated(found)

    def _predict_if_it_fits(self, squares: Tensor) -> PredictionTensors | None:
        """Predicts some images; returns None on out-of-memory if they can still be split.

        A function of its own, so that the tensors of a failed attempt are freed when it returns.
        """
        try:
            return self.predict_squares(squares)
        except RuntimeError as error:
            if len(squares) == 1 or not is_out_of_memory(error):
                raise
        return None

    def _prediction(
        self, items: list[Item], sizes: list[tuple[int, int]], errors: dict[str, str], tensors: PredictionTensors
    ) -> Prediction:
        return Prediction(
            names=[item.name for item in items],
            items=items,
            sizes=sizes,
            errors=errors,
            config=self.config,
            steps=self.steps,
            seed=self.options.seed,
            precision=self.options.precision,
            num_samples=self.num_samples,
            tta=self.tta,
            trained=self.trained,
            model_name=self.model_name,
            class_labels=self.class_labels,
            trust=self.trust,
            defer_error=self.options.defer_error,
            **vars(tensors),
        )


def _stacked(squares: list[Tensor]) -> Tensor:
    """Returns pixels as they were read, a byte each where all are: a quarter of what would go to a GPU normalised."""
    if all(square.dtype == torch.uint8 for square in squares):
        return torch.stack(squares)
    return torch.stack([square.float() / 255 if square.dtype == torch.uint8 else square.float() for square in squares])


def _filled(squares: Tensor, count: int) -> Tensor:
    """Returns squares with as many copies of the first behind them as there are too few."""
    missing = count - len(squares)
    return torch.cat([squares, squares[:1].expand(missing, -1, -1, -1)]) if missing > 0 else squares


def _chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk
