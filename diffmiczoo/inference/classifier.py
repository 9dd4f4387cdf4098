"""`ImageClassifier`: what every model that predicts images has in common; runs no network itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import warn
from diffmiczoo.images.items import as_items
from diffmiczoo.images.preprocessing import preprocess
from diffmiczoo.images.transform import ModelTransform
from diffmiczoo.inference.auto_precision import AUTO, auto_precision
from diffmiczoo.inference.limits import check_limits
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.predictor import PredictOptions, Predictor, PredictSquares
from diffmiczoo.inference.tensors import PredictionTensors
from diffmiczoo.runtime.cuda_graph import RECORDERS, graphs_allowed
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.module_walk import is_as_written
from diffmiczoo.runtime.precision import check_precision
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.settings import FAST, using
from diffmiczoo.trust.stored import Trust


class ImageClassifier:
    """A model that takes anything that holds images and returns a `Prediction`.

    A subclass has the attributes below and says in `prediction_function` what it computes for a batch of squares.

    Attributes:
        config: what the model is.
        trained: whether the weights come from training.
        default_noise: a tensor on the model's device.
        trust: what the weights know about their limits; None where nothing was fitted.
        display_name, class_labels: what people call the model and its classes, see `Prediction`.
    """

    config: DiffMICConfig
    trained: bool
    default_noise: Tensor
    trust: Trust | None = None
    display_name: str
    class_labels: dict[str, str]

    def prediction_function(self, steps: int, num_samples: int, options: PredictOptions) -> PredictSquares:
        """Returns what maps squares (B, 3, S, S), uint8 or float in [0, 1], to the tensors of their prediction."""
        raise NotImplementedError

    def forward_features(self, images: Tensor) -> Tensor:
        """Returns (B, 1 + n, H) for preprocessed images, the features first."""
        raise NotImplementedError

    def preprocess(self, images: Any) -> Tensor:
        """Turns what `predict` takes into (B, 3, S, S) normalised float32.

        Raises:
            ImageError: an image cannot be read or has a wrong range; the message names it.
        """
        return preprocess(images, self.config)

    @property
    def transform(self) -> ModelTransform:
        """`preprocess` for one picture as a torchvision transform: PIL image, path, array or tensor → (3, S, S)."""
        return ModelTransform(self.config)

    @property
    def classes_(self) -> np.ndarray:
        """The C class names in the order of `predict_proba`'s columns, as scikit-learn's classifiers hold them."""
        return np.array(self.config.labels)

    def predict_proba(self, images: Any, *, batch_size: int = 32) -> np.ndarray:
        """Returns the probabilities of `predict` as scikit-learn's classifiers do, (N, C) float32 in [0, 1].

        Args:
            images: as `predict` takes them.
            batch_size: images computed at once.

        Raises:
            ImageError, ValueError, TypeError: as `predict` does.
        """
        return self.predict(images, batch_size=batch_size).probs.numpy()

    def embed(self, images: Any, *, batch_size: int = 32, progress: bool | None = None) -> Tensor:
        """Returns a vector of features per image, (N, H) float32 on the CPU: F of eq. 6, without the classes.

        Args:
            images: as `predict` takes them.
            batch_size: images computed at once.
            progress: show a bar; by default where the standard error is a terminal.

        Raises:
            ImageError, ValueError, TypeError: as `predict` does.
        """
        items, rows, device = as_items(images), [], self.default_noise.device
        bar = progress_bar(len(items), "embed", "img", progress)
        with eval_mode(cast(nn.Module, self)), torch.inference_mode(), using(FAST, device), bar:
            for start in range(0, len(items), batch_size):
                batch = self.preprocess(items[start : start + batch_size]).to(self.default_noise)
                batch = batch.contiguous(memory_format=torch.channels_last)
                rows.append(self.forward_features(batch)[:, 0].float().cpu())
                bar.update(len(batch))
        return torch.cat(rows)

    def predict(
        self,
        images: Any,
        steps: int | None = None,
        *,
        batch_size: int = 32,
        num_samples: int | None = None,
        seed: int = 0,
        on_error: str = "raise",
        precision: str = "fp32",
        progress: bool | None = None,
        tta: str | None = None,
        defer_error: float | None = None,
        on_foreign: str = "flag",
    ) -> Prediction:
        """Classifies images and tells how sure it is and where it looked.

        The prediction for an image is the same alone, in any batch and in any order, because all images start from the
        noise that `seed` gives, up to floating-point rounding. The model's mode and memory layout, the caller's
        autocast and the global random state neither matter nor change. From 8 images on `malloc` keeps freed
        memory for as long as it runs, unless DIFFMICZOO_KEEP_MEMORY=0 is in the environment (`runtime.malloc`).

        Args:
            images: a path, a directory, a pattern, a URL, a PIL image, an array or a tensor (uint8, or float in [0, 1];
                HWC, CHW or grey; four dimensions are a batch), bytes, an open file, a table with a column of files, a
                Dataset, an iterator, or a list of these; see `diffmiczoo.images.items.as_items`.
            steps: of the sampler, 1..T; the config's `sampling_steps` by default.
            batch_size: images computed at once, ≥ 1.
            num_samples: runs of the sampler to average, ≥ 1; the config's `num_samples` by default.
            seed: of the starting noise.
            on_error: "raise", or "skip" to leave out what cannot be read and report it in `Prediction.errors`.
            precision: "fp32", or "bf16" or (on GPUs) "fp16" for the products of the U-Net and of large encoders: up to
                twice as fast for the paper's size where the processor has them. The DCG, small encoders on CPUs and
                the sampler's state stay in fp32. "int8" (on CPUs) is "bf16" with 8-bit integers in the U-Net's two
                hidden layers, for large ones as the paper's: on some processors faster, on others slower. "auto" times
                them once on this machine for batches of `batch_size` and takes the fastest whose labels are fp32's on
                eight made pictures (others may differ), see `inference.auto_precision`; `Prediction.precision` says it.
            progress: show a bar; by default where the standard error is a terminal.
            tta: views of each picture to average, see `inference.views.mean_over_views`: "none", "hflip" (2, and twice
                the time), "flips" (4) or "rotations" (8, quarter turns too); the config's `tta` by default, with which
                probabilities were calibrated.
            defer_error: the largest share of errors, such as 0.05, among the pictures that no person sees;
                `Prediction.deferred` tells which ones somebody should. It holds with 90 % confidence for pictures of
                the kind that the weights were calibrated on (docs/trust.md).
            on_foreign: "flag" pictures that are unlike the training pictures (`Prediction.in_distribution`), or
                "refuse" them, which is an error as `on_error` treats them.

        Raises:
            ImageError: an image cannot be read, is too large or has a wrong range; the message names it.
            ValueError: an argument is out of range, there are no images, none could be read, or the weights cannot
                promise `defer_error` or have no gate to refuse by.
            TypeError: an argument is not a whole number, or `images` hold something that is none.

        Warns:
            UserWarning: the model is not trained, or sampling in so few steps returns its starting noise.
        """
        options = PredictOptions(
            steps=steps,
            batch_size=batch_size,
            num_samples=num_samples,
            seed=seed,
            on_error=on_error,
            precision=precision,
            progress=progress,
            tta=tta,
            defer_error=defer_error,
            on_foreign=on_foreign,
        )
        return self.predictor(options).predict(as_items(images))

    def predictor(self, options: PredictOptions) -> Predictor:
        """Returns what predicts images as the options say, all at once or batch by batch.

        Raises:
            ValueError: the precision or the number of steps is not for this model or its device.

        Warns:
            UserWarning: as `predict` does.
        """
        config, device = self.config, self.default_noise.device
        if options.precision != AUTO:
            check_precision(options.precision, device)
        if not self.trained:
            warn(
                "this model is not trained: its predictions mean nothing. Load weights with pretrained=True, or train "
                "it with diffmiczoo.fit"
            )
        steps = config.sampling_steps if options.steps is None else options.steps
        runs = config.num_samples if options.num_samples is None else options.num_samples
        check_limits(self.trust, config, options.defer_error, options.on_foreign)
        if options.precision == AUTO:
            options = replace(options, precision=self._auto_precision(steps, runs, options))
        compute = self.prediction_function(steps, runs, options)
        return Predictor(
            compute, config, options, steps, runs, self.trained, self.display_name, self.class_labels, self.trust
        )

    def _auto_precision(self, steps: int, runs: int, options: PredictOptions) -> str:
        def predict_in(precision: str, squares: Tensor) -> PredictionTensors:
            tried = replace(options, precision=precision, defer_error=None)
            return self.prediction_function(steps, runs, tried)(squares)

        work = f"{steps} steps, {runs} runs, tta {options.tta or self.config.tta}"
        model, device = cast(nn.Module, self), self.default_noise.device
        if device.type in RECORDERS:
            recorded = options.runtime.graph and graphs_allowed() and is_as_written(model)
            work += ", recorded" if recorded else ", not recorded"
        return auto_precision(model, self.config, device, options.batch_size, work, predict_in)
