"""`DiffMICv2`: images → condition → sample → prediction; nothing else knows the whole path."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion import losses, sampling
from diffmiczoo.diffusion.schedule import NoiseSchedule
from diffmiczoo.hub.mixin import PretrainedModel
from diffmiczoo.images import preprocessing
from diffmiczoo.inference import predictor as inference
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.nn.class_layers import rebuild_class_layers
from diffmiczoo.nn.condition import Condition, fused_prior
from diffmiczoo.nn.dcg import DCG
from diffmiczoo.nn.encoders import FeaturePrior, create_encoder
from diffmiczoo.nn.guidance import build_guidance_map
from diffmiczoo.nn.priors import dcg_priors
from diffmiczoo.nn.unet import DenoisingUNet
from diffmiczoo.runtime.modes import frozen, seeded_generator


class DiffMICv2(PretrainedModel, nn.Module):
    """DiffMIC-v2 classifier: a DCG model guides a diffusion over labels, conditioned on image features.

    Args:
        config: what the model is.
        pretrained_backbones: start the timm encoders from timm's pretrained weights; for EfficientSAM see
            `diffmiczoo.zoo.encoder_weights.fetch_efficientsam`.

    Attributes:
        config: the `DiffMICConfig`.
        trained: whether the weights come from training; `predict` warns while they do not.
        dcg: τ_D, trained first and frozen afterwards.
        feature_prior, unet: what the diffusion stage trains; absent where the DCG answers alone.

    Raises:
        ValueError: an encoder is unknown or cannot take its image size.

    Source: DiffMIC-v2 (IEEE TMI 2025), section III.
    """

    default_noise: Tensor

    def __init__(self, config: DiffMICConfig, *, pretrained_backbones: bool = False) -> None:
        super().__init__()
        self._config = config
        self.trained = False
        self.weights_name: str | None = None

        def encoder(name: str, size: int, out_index: int) -> nn.Module:
            return create_encoder(name, size, out_index, pretrained_backbones)

        global_encoder = encoder(config.dcg_encoder, config.image_size, config.dcg_out_index)
        local_encoder = None
        if config.predictor != "global":
            local_encoder = encoder(config.dcg_encoder, config.roi_size, config.local_out_index)
        self.dcg = DCG(global_encoder, local_encoder, config)
        if config.predictor == "diffusion":
            raw_encoder = encoder(config.raw_encoder, config.image_size, config.raw_out_index)
            roi_encoder = None
            if config.roi_features:
                roi_encoder = encoder(config.roi_encoder, config.roi_size, config.roi_out_index)
            self.feature_prior = FeaturePrior(raw_encoder, roi_encoder, config)
            self.unet = DenoisingUNet(config)
        self.schedule = NoiseSchedule(config)
        self.register_buffer("default_noise", self._fixed_noise().to(torch.get_default_device()), persistent=False)

    @property
    def config(self) -> DiffMICConfig:
        """What the model is; fields that do not shape its weights (sampling, calibration, names) may be changed."""
        return self._config

    @config.setter
    def config(self, config: DiffMICConfig) -> None:
        self._config = config
        self.schedule.clip_sample = config.clip_sample
        self.default_noise = self._fixed_noise().to(self.default_noise)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:
        """Computes what no weights file holds, after the tensors of one were assigned to a model without memory."""
        self.default_noise = self._fixed_noise().to(device, dtype)
        self.to(device, dtype)

    def encoders(self) -> list[nn.Module]:
        """Returns the backbones of the DCG and of the image feature prior."""
        return [child for part in self.children() for name, child in part.named_children() if "encoder" in name]

    def _fixed_noise(self) -> Tensor:
        """Returns the noise that all images start from, (num_samples, C, Np, Np)."""
        return sampling.draw_start(self.config, self.config.num_samples, 1, seeded_generator(0))[:, 0]

    # ------------------------------------------------------------------ the path of a batch

    def priors(self, images: Tensor) -> dict[str, Tensor]:
        """Runs the DCG model: global and local prior, saliency, ROIs and their attention (eq. 1-3).

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.

        Returns:
            `Condition`'s fields of these names.
        """
        preprocessing.check_batch(images, self.config)
        return dcg_priors(self.dcg, self.config, images)

    def condition(self, images: Tensor) -> Condition:
        """Computes everything that does not depend on the timestep (eq. 1-6).

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.

        Raises:
            ValueError: the shape is not (B, 3, S, S).
            TypeError: the DCG answers alone, there is no diffusion to condition.
        """
        return self.complete(images, self.priors(images))

    def complete(self, images: Tensor, priors: dict[str, Tensor]) -> Condition:
        """Adds guidance map and image feature prior to what `priors` returned for the same images (eq. 4-6).

        Raises:
            TypeError: the DCG answers alone, there is no diffusion to condition.
        """
        if self.config.predictor != "diffusion":
            raise TypeError(f"predictor={self.config.predictor!r} has no diffusion; use priors, or call the model")
        return Condition(
            guidance_map=build_guidance_map(priors["global_prior"], priors["local_prior"], self.config),
            feature_prior=self.feature_prior(images, priors["rois"]),
            **priors,
        )

    def predict_noise(self, y_t: Tensor, t: int | Tensor, condition: Condition) -> Tensor:
        """Denoising network ε_θ(y_t, M, F, t), (B, C, Np, Np) (eq. 8).

        Args:
            y_t: (B, C, Np, Np), the noisy labels.
            t: 0..T-1: one timestep for all, (B,) one per image, or (B, Np, Np) one per noise point.
            condition: of the same B images.
        """
        if isinstance(t, int):
            t = torch.full((1,), t, device=y_t.device)
        if t.ndim == 1:
            t = rearrange(t, "b -> b 1 1")
        noise: Tensor = self.unet(y_t, t, condition.guidance_map, condition.feature_prior)
        return noise

    def sample(
        self,
        condition: Condition,
        steps: int | None = None,
        y_T: Tensor | None = None,
        num_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Runs the sampler and returns the ŷ_0 map, (B, C, Np, Np), the mean over `num_samples` runs (Alg. 2).

        Args:
            condition: of B images.
            steps: of the sampler, 1..T; the config's `sampling_steps` by default.
            y_T: (B or 1, C, Np, Np) or (num_samples, B or 1, C, Np, Np), where sampling starts; replaces the draw.
            num_samples: independent runs to average, ≥ 1; the config's `num_samples` by default.
            generator: on the condition's device; draws noise for every image. Without it all images share the model's
                own fixed noise, so that an answer does not depend on the batch.

        Raises:
            ValueError: `steps` or `num_samples` is out of range.
        """
        config, batch = self.config, len(condition.guidance_map)
        steps = config.sampling_steps if steps is None else steps
        runs = config.num_samples if num_samples is None else num_samples
        if y_T is not None:
            given = y_T if y_T.ndim == 5 else y_T[None]
            start, runs = given.expand(-1, *condition.guidance_map.shape), len(given)
        draws = self.draw_noise(steps, runs, batch, generator=generator)
        if y_T is not None:
            return sampling.denoise(self, condition, steps, start, draws.steps)
        start = sampling.start_from(config, condition, draws.start)
        return sampling.denoise(self, condition, steps, start, draws.steps, sampling.has_equal_points(config))

    def draw_noise(
        self, steps: int, num_samples: int, batch: int = 1, *, generator: torch.Generator | None = None
    ) -> sampling.Draws:
        """Draws the random numbers of a prediction.

        Args:
            steps: of the sampler, 1..T.
            num_samples: runs, ≥ 1.
            batch: images that get their own; only with a generator.
            generator: without it these are the model's own fixed numbers, one set for all images.

        Raises:
            ValueError: `steps` or `num_samples` is out of range.
        """
        self.schedule.timesteps(steps)
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples} must be at least 1")
        if generator is not None:
            return sampling.draw(self.config, steps, num_samples, batch, generator)
        if self.config.sampler == "ddim" and num_samples == len(self.default_noise):
            return sampling.Draws(self.default_noise[:, None], None)
        return sampling.draw(self.config, steps, num_samples, 1, seeded_generator(0)).to(self.default_noise)

    def forward(self, images: Tensor) -> Tensor:
        """Maps preprocessed images (B, 3, S, S) to scores (B, C): the mean of the ŷ_0 map, about 0..1.

        Where the DCG answers alone they are its logits 0.5 · (ŷ_g + ŷ_l). `predict` pools the two, so that its label
        may be another one than the highest score's.
        """
        return self.scores(images, self.priors(images), self.config.sampling_steps, None)

    def scores(
        self,
        images: Tensor,
        priors: dict[str, Tensor],
        steps: int,
        draws: sampling.Draws | None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Returns what `forward` does, from priors that are known and with given random numbers.

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.
            priors: what `priors` returns for them.
            steps: of the sampler, 1..T.
            draws: from `draw_noise`; the model's own fixed numbers by default.
            dtype: of the sampler's matrix products; its state keeps the type of `draws`.
        """
        if self.config.predictor != "diffusion":
            return fused_prior(priors)
        condition = self.complete(images, priors)
        draws = draws or self.draw_noise(steps, self.config.num_samples)
        condition = condition.to(draws.start.dtype)
        start = sampling.start_from(self.config, condition, draws.start)
        equal = sampling.has_equal_points(self.config)
        return sampling.denoise(self, condition, steps, start, draws.steps, equal, dtype=dtype).mean((2, 3))

    # ------------------------------------------------------------------ training

    def training_loss(
        self,
        images: Tensor,
        targets: Tensor,
        generator: torch.Generator | None = None,
        *,
        weights: Tensor | None = None,
        draws: losses.Draws | None = None,
    ) -> Tensor:
        """Diffusion loss with a timestep and a noise draw per point (eq. 7, 9); the DCG stays frozen.

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.
            targets: (B,) class numbers, or (B, C) with 0..1 per class.
            generator: of the images' device, for timesteps and noise; the global one by default.
            weights: (B, C) ≥ 0, of the terms, see `diffmiczoo.diffusion.losses.Balance`; 1 by default.
            draws: timesteps and noise, instead of drawing them.

        Raises:
            ValueError: `targets` has another shape.
        """
        labels = losses.label_vectors(targets, self.config)
        draws = draws or losses.draw(self.config, len(labels), generator, labels.device)
        with frozen(self.dcg):
            priors = self.priors(images)
        return losses.diffusion_loss(self, self.complete(images, priors), labels, draws, weights)

    def dcg_loss(self, images: Tensor, targets: Tensor, *, weights: Tensor | None = None) -> Tensor:
        """Loss of the DCG stage: cross-entropy (multi-label: binary) of the global plus that of the local prior.

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.
            targets: (B,) class numbers, or (B, C) with 0..1 per class.
            weights: (B, C) ≥ 0, of the terms, see `diffmiczoo.diffusion.losses.Balance`; 1 by default.

        Raises:
            ValueError: `targets` has another shape.
        """
        labels = losses.label_vectors(targets, self.config)
        return losses.dcg_loss(self.priors(images), labels, self.config, weights)

    # ------------------------------------------------------------------ prediction

    def preprocess(self, images: Any) -> Tensor:
        """Turns what `predict` takes into (B, 3, S, S) normalised float32.

        Raises:
            ImageError: an image cannot be read or has a wrong range; the message names it.
        """
        return preprocessing.preprocess(images, self.config)

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
    ) -> Prediction:
        """Classifies images and tells how sure it is and where it looked.

        The answer for an image is the same alone, in any batch and in any order, because all images start from the
        noise that `seed` gives; it equals to the float's last digits, as the order of sums may differ. The mode of the
        model and the global random state are left as found.

        Args:
            images: a path, a directory, a PIL image, an array or a tensor (uint8, or float in [0, 1]; HWC, CHW or
                grey; four dimensions are a batch), or a list of these.
            steps: DDIM steps, 1..T; the config's `sampling_steps` by default.
            batch_size: images computed at once, ≥ 1.
            num_samples: runs of the sampler to average, ≥ 1; the config's `num_samples` by default.
            seed: of the starting noise.
            on_error: "raise", or "skip" to leave out what cannot be read and report it in `Prediction.errors`.
            precision: "fp32", or "bf16" or (on GPUs) "fp16" for the products of the U-Net and of large encoders: up to
                twice as fast for the paper's size where the processor has them. The DCG, small encoders on CPUs and
                the sampler's state stay in fp32. "int8" (on CPUs) is "bf16" with 8-bit integers in the U-Net's two
                hidden layers: faster where they are large, as the paper's.
            progress: show a bar; by default where the standard error is a terminal.

        Raises:
            ImageError: an image cannot be read, is too large or has a wrong range; the message names it.
            ValueError: an argument is out of range, there are no images, or none could be read.
            TypeError: an argument is not a whole number.

        Warns:
            UserWarning: the model is not trained, or sampling in so few steps answers with its starting noise.
        """
        return inference.predict(self, images, steps, batch_size, num_samples, seed, on_error, precision, progress)

    # ------------------------------------------------------------------ classes

    def reset_classifier(self, num_classes: int, class_names: Sequence[str] | None = None) -> None:
        """Changes the number of classes: rebuilds the four layers that depend on it and marks the model untrained.

        Args:
            num_classes: C ≥ 2.
            class_names: C names; "class_0", "class_1", … by default.

        Warns:
            UserWarning: names the layers that were rebuilt.

        Raises:
            ValueError: `num_classes` is out of range, or does not fit `class_names`.
        """
        names = tuple(class_names or ())
        old_classes = self.config.num_classes
        self.config = self.config.uncalibrated().replace(num_classes=num_classes, class_names=names, ordinal=False)
        rebuilt = ", ".join(rebuild_class_layers(self, num_classes, old_classes))
        self.trained = False
        warnings.warn(
            f"num_classes is now {num_classes}: {rebuilt} were rebuilt with random weights; fit the model before you "
            "predict",
            UserWarning,
            stacklevel=2,
        )
