"""`DiffMICv2`: images → condition → sample → prediction; nothing else knows the whole path."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from diffmiczoo import inference, preprocessing
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion import NoiseSchedule
from diffmiczoo.modes import frozen, seeded_generator
from diffmiczoo.nn.classes import rebuild_class_layers
from diffmiczoo.nn.dcg import DCG
from diffmiczoo.nn.encoders import FeaturePrior, create_encoder
from diffmiczoo.nn.guidance import band_index, interpolate_over_points
from diffmiczoo.nn.roi import cells_to_pixels, crop_rois, roi_cells, select_roi_cells
from diffmiczoo.nn.unet import DenoisingUNet
from diffmiczoo.prediction import Prediction

#: The released program weights its loss by 1 + 10 · (1 - p) (spec: `loss="focal"`).
FOCAL_WEIGHT = 10.0


@dataclass(frozen=True)
class Condition:
    """All that the denoiser knows of a batch of images; computed once, used in every sampling step.

    Shapes: `global_prior`, `local_prior` (B, C) logits; `guidance_map` M (B, C, Np, Np); `feature_prior` F (B, H);
    `saliency` (B, C, h, w) logits; `rois` (B, K, 3, r, r) normalised pixels; `roi_top_left` (B, K, 2) row and column
    in pixels; `roi_attention` α (B, K), sums to 1.
    """

    global_prior: Tensor
    local_prior: Tensor
    guidance_map: Tensor
    feature_prior: Tensor
    saliency: Tensor
    rois: Tensor
    roi_top_left: Tensor
    roi_attention: Tensor

    @property
    def dcg_scores(self) -> Tensor:
        """The DCG's own prediction 0.5 · (ŷ_g + ŷ_l), (B, C) logits."""
        return 0.5 * (self.global_prior + self.local_prior)


class DiffMICv2(nn.Module):
    """DiffMIC-v2 classifier: a DCG model guides a diffusion over labels, conditioned on image features.

    Args:
        config: what the model is.
        pretrained_backbones: start the timm encoders from timm's pretrained weights.

    Attributes:
        config: the `DiffMICConfig`.
        trained: whether the weights come from training; `predict` warns while they do not.
        dcg: τ_D, trained first and frozen afterwards.
        feature_prior, unet: what the diffusion stage trains.

    Raises:
        ValueError: an encoder is unknown or cannot take its image size.

    Source: DiffMIC-v2 (IEEE TMI 2025), section III.
    """

    default_noise: Tensor

    def __init__(self, config: DiffMICConfig, *, pretrained_backbones: bool = False) -> None:
        super().__init__()
        self.config = config
        self.trained = False
        self.weights_name: str | None = None

        def encoder(name: str, size: int, out_index: int) -> nn.Module:
            return create_encoder(name, size, out_index, pretrained_backbones and not name.startswith("efficientsam"))

        self.dcg = DCG(
            encoder(config.dcg_encoder, config.image_size, config.dcg_out_index),
            encoder(config.dcg_encoder, config.roi_size, config.local_out_index),
            config,
        )
        self.feature_prior = FeaturePrior(
            encoder(config.raw_encoder, config.image_size, config.raw_out_index),
            encoder(config.roi_encoder, config.roi_size, config.roi_out_index),
            config,
        )
        self.unet = DenoisingUNet(config)
        self.schedule = NoiseSchedule(config)
        noise = self.draw_noise(config.num_samples, generator=seeded_generator(0))[:, 0]
        self.register_buffer("default_noise", noise.to(torch.get_default_device()), persistent=False)

    # ------------------------------------------------------------------ the path of a batch

    def priors(self, images: Tensor) -> dict[str, Tensor]:
        """Runs the DCG model: global and local prior, saliency, ROIs and their attention (eq. 1-3).

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.

        Returns:
            `Condition`'s fields of these names.
        """
        config = self.config
        self._check_images(images)
        saliency, global_prior = self.dcg.global_stream(images)
        grid = (saliency.shape[-2], saliency.shape[-1])
        window = roi_cells(config.roi_size, config.image_size, grid[0])
        cells = select_roi_cells(saliency.detach().float(), config.num_rois, window)
        top_left = cells_to_pixels(cells, grid, config.image_size)
        source = images if config.roi_channels == "rgb" else images[:, :1].expand(-1, 3, -1, -1)
        rois = crop_rois(source, top_left, config.roi_size)
        local_prior, attention = self.dcg.local_stream(rois)
        return {
            "global_prior": global_prior,
            "local_prior": local_prior,
            "saliency": saliency,
            "rois": rois,
            "roi_top_left": top_left,
            "roi_attention": attention,
        }

    def condition(self, images: Tensor) -> Condition:
        """Computes everything that does not depend on the timestep (eq. 1-6).

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.

        Raises:
            ValueError: the shape is not (B, 3, S, S).
        """
        return self._complete(images, self.priors(images))

    def _complete(self, images: Tensor, priors: dict[str, Tensor]) -> Condition:
        activation = {"none": lambda prior: prior, "softmax": lambda prior: prior.softmax(-1), "sigmoid": torch.sigmoid}
        activate = activation[self.config.prior_activation]
        guidance_map = interpolate_over_points(
            activate(priors["global_prior"]), activate(priors["local_prior"]), self.config.num_points
        )
        feature_prior = self.feature_prior(images, priors["rois"])
        return Condition(guidance_map=guidance_map, feature_prior=feature_prior, **priors)

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
        """Runs the DDIM sampler and returns the ŷ_0 map, (B, C, Np, Np), the mean over `num_samples` runs (Alg. 2).

        Args:
            condition: of B images.
            steps: DDIM steps, 1..T; the config's `sampling_steps` by default.
            y_T: (B or 1, C, Np, Np) or (num_samples, B or 1, C, Np, Np), where sampling starts; replaces the draw.
            num_samples: independent runs to average, ≥ 1; the config's `num_samples` by default.
            generator: on the condition's device; draws noise for every image. Without it and without `y_T`, all
                images start from the model's own fixed noise, so that an answer does not depend on the batch.

        Raises:
            ValueError: `steps` or `num_samples` is out of range.
        """
        batch = len(condition.guidance_map)
        runs = self.config.num_samples if num_samples is None else num_samples
        start = self._start(condition, y_T, runs, generator)
        runs = len(start)
        y = rearrange(start, "n b c i j -> (n b) c i j")
        guidance_map = repeat(condition.guidance_map, "b c i j -> (n b) c i j", n=runs)
        feature_prior = repeat(condition.feature_prior, "b h -> (n b) h", n=runs)
        timesteps = self.schedule.timesteps(self.config.sampling_steps if steps is None else steps)
        for t, previous_t in zip(timesteps, [*timesteps[1:], None], strict=True):
            noise = self.unet(y, torch.full((1, 1, 1), t, device=y.device), guidance_map, feature_prior)
            y = self.schedule.ddim_step(y, noise, t, previous_t)
        return rearrange(y, "(n b) c i j -> n b c i j", b=batch).mean(0)

    def _start(
        self, condition: Condition, y_T: Tensor | None, num_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Returns y_T for every run and image, (n, B, C, Np, Np) (eq. 10 and its variants)."""
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples} must be at least 1")
        shape = condition.guidance_map.shape
        if y_T is not None:
            given = y_T if y_T.ndim == 5 else y_T[None]
            return given.expand(-1, *shape)
        if generator is not None:
            noise = self.draw_noise(num_samples, shape[0], generator=generator)
        elif num_samples == len(self.default_noise):
            noise = self.default_noise[:, None]
        else:
            noise = self.draw_noise(num_samples, generator=seeded_generator(0)).to(condition.guidance_map.device)
        noise = noise.to(condition.guidance_map.dtype)
        return noise + condition.guidance_map if self.config.init == "guided" else noise.expand(-1, *shape)

    def draw_noise(self, num_samples: int = 1, batch: int = 1, *, generator: torch.Generator) -> Tensor:
        """Draws starting noise, (num_samples, batch, C, Np, Np), on the generator's device.

        Gaussian per noise point; per band of equal |i - j| with `shared_noise`; for `init="interpolated"` two
        uniform(0, 1) vectors spread like the guidance map.
        """
        points, lead = self.config.num_points, (num_samples, batch, self.config.num_classes)
        device = generator.device
        if self.config.init == "interpolated":
            diagonal = torch.rand(lead, generator=generator, device=device)
            corner = torch.rand(lead, generator=generator, device=device)
            return interpolate_over_points(diagonal, corner, points)
        if self.config.shared_noise:
            bands = torch.randn(*lead, points, generator=generator, device=device)
            return bands[..., band_index(points, device=device)]
        return torch.randn(*lead, points, points, generator=generator, device=device)

    def forward(self, images: Tensor) -> Tensor:
        """Maps preprocessed images (B, 3, S, S) to scores (B, C), about 0..1: the mean of the ŷ_0 map."""
        return self.sample(self.condition(images)).mean((2, 3))

    # ------------------------------------------------------------------ training

    def training_loss(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Diffusion loss with a timestep and a noise draw per point (eq. 7, 9); the DCG stays frozen.

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.
            targets: (B,) class numbers, or (B, C) with 0..1 per class.
            generator: of the images' device, for timesteps and noise; the global one by default.

        Raises:
            ValueError: `targets` has another shape.
        """
        config = self.config
        labels = self._label_vectors(targets)
        with frozen(self.dcg):
            priors = self.priors(images)
        condition = self._complete(images, priors)
        points = config.num_points
        y_0 = repeat(labels, "b c -> b c i j", i=points, j=points)
        t = torch.randint(
            config.num_train_timesteps, (len(images), points, points), device=images.device, generator=generator
        )
        noise = torch.randn(y_0.shape, device=images.device, generator=generator)
        error = (noise - self.predict_noise(self.schedule.add_noise(y_0, noise, t), t, condition)).square()
        error = error.mean((1, 2, 3))
        return (error * self._loss_weight(condition.dcg_scores, labels)).mean()

    def _loss_weight(self, dcg_scores: Tensor, labels: Tensor) -> Tensor | float:
        if self.config.loss == "mse":
            return 1.0
        if self.config.task == "multiclass":
            true_class = (dcg_scores.softmax(-1) * labels).sum(-1)
        else:
            probs = dcg_scores.sigmoid()
            true_class = (labels * probs + (1 - labels) * (1 - probs)).mean(-1)
        return 1 + FOCAL_WEIGHT * (1 - true_class)

    def dcg_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Loss of the DCG stage: cross-entropy (multi-label: binary) of the global plus that of the local prior.

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.
            targets: (B,) class numbers, or (B, C) with 0..1 per class.

        Raises:
            ValueError: `targets` has another shape.
        """
        priors, labels = self.priors(images), self._label_vectors(targets)
        loss = F.cross_entropy if self.config.task == "multiclass" else F.binary_cross_entropy_with_logits
        return loss(priors["global_prior"].float(), labels) + loss(priors["local_prior"].float(), labels)

    def _label_vectors(self, targets: Tensor) -> Tensor:
        """Returns y_0, (B, C) float: one-hot or multi-hot."""
        classes = self.config.num_classes
        if targets.ndim == 2 and targets.shape[1] == classes:
            return targets.float()
        if targets.ndim == 1 and self.config.task == "multiclass":
            return torch.eye(classes, device=targets.device)[targets]
        wanted = f"(B, {classes})" + (" or (B,)" if self.config.task == "multiclass" else "")
        raise ValueError(f"targets of a {self.config.task} model must be {wanted}; found {tuple(targets.shape)}")

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
            progress: show a bar; by default where the standard error is a terminal.

        Raises:
            ImageError: an image cannot be read, is too large or has a wrong range; the message names it.
            ValueError: an argument is out of range, there are no images, or none could be read.
        """
        return inference.predict(self, images, steps, batch_size, num_samples, seed, on_error, progress)

    def _check_images(self, images: Tensor) -> None:
        size = self.config.image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size) or not images.is_floating_point():
            raise ValueError(
                f"expected normalised float images of shape (B, 3, {size}, {size}), found {images.dtype} "
                f"{tuple(images.shape)}; model.preprocess turns files, PIL images and arrays into these"
            )

    # ------------------------------------------------------------------ classes and files

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
        self.config = self.config.replace(num_classes=num_classes, class_names=names, temperature=None)
        like = self.default_noise
        rebuilt = ", ".join(rebuild_class_layers(self, num_classes))
        noise = self.draw_noise(self.config.num_samples, generator=seeded_generator(0))[:, 0]
        self.default_noise = noise.to(like.device, like.dtype)
        self.trained = False
        warnings.warn(
            f"num_classes is now {num_classes}: {rebuilt} were rebuilt with random weights; fit the model before you "
            "predict",
            UserWarning,
            stacklevel=2,
        )

    def save_pretrained(self, directory: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """Writes `model.safetensors` and `config.json` into a directory, made if need be.

        Args:
            directory: where to; `create_model("local-dir:<directory>", pretrained=True)` reads it.
            dtype: store floating-point tensors as this type, for example `torch.float16`.
        """
        from diffmiczoo.hub import save_directory

        save_directory(self, directory, dtype=dtype)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **options: Any) -> DiffMICv2:
        """Loads a model from a directory or by a registered name, as `create_model(..., pretrained=True)` does.

        Raises:
            FileNotFoundError: there are no weights there.
            ValueError: the files do not belong together.
        """
        from diffmiczoo.registry import create_model

        name = f"local-dir:{os.fspath(source)}" if os.path.isdir(source) else os.fspath(source)
        return create_model(name, pretrained=True, **options)
