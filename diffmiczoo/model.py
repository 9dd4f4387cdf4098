"""`DiffMICv2`: images → priors → condition → sample → scores, and what is trained and predicted with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.labels import names_of
from diffmiczoo.diffusion import losses, sampling
from diffmiczoo.diffusion.samplers import create_sampler
from diffmiczoo.diffusion.schedule import NoiseSchedule
from diffmiczoo.diffusion.start_noise import FixedNoise
from diffmiczoo.errors import InvalidTypeError, InvalidValueError, warn
from diffmiczoo.hub.mixin import PretrainedModel
from diffmiczoo.images.preprocessing import check_batch
from diffmiczoo.inference.exportable import ExportableModel
from diffmiczoo.inference.limits import usable_gate
from diffmiczoo.inference.predictor import PredictOptions, PredictSquares
from diffmiczoo.inference.tensors import PredictionTensors, computed_tensors
from diffmiczoo.inference.timm_interface import TimmInterface, check_pool
from diffmiczoo.inference.views import Answer
from diffmiczoo.metrics.recalibrate import RecalibratedModel
from diffmiczoo.nn.class_layers import check_same_layers, rebuild_class_layers
from diffmiczoo.nn.condition import Condition, Priors
from diffmiczoo.nn.create import create_dcg, create_feature_prior
from diffmiczoo.nn.encoders import Pretrained
from diffmiczoo.nn.guidance import build_guidance_map
from diffmiczoo.nn.roi import whole_view
from diffmiczoo.nn.unet import DenoisingUNet
from diffmiczoo.runtime.cuda_graph import graphed
from diffmiczoo.runtime.modes import eval_mode, frozen, seeded_generator
from diffmiczoo.runtime.settings import Runtime
from diffmiczoo.trust.gate import Gate


class DiffMICv2(FixedNoise, TimmInterface, ExportableModel, RecalibratedModel, PretrainedModel):
    """DiffMIC-v2 classifier: a DCG model guides a diffusion over labels, conditioned on image features.

    Args:
        config: what the model is.
        pretrained_backbones: start timm encoders from pretrained weights, see `create_encoder`; for EfficientSAM see
            `diffmiczoo.zoo.encoder_weights.fetch_efficientsam`.

    Attributes:
        config: the `DiffMICConfig`.
        trained: whether the weights come from training; `predict` warns while they do not.
        dcg: τ_D, trained first and frozen afterwards.
        feature_prior, unet: what the diffusion stage trains; absent where the DCG predicts alone.

    Raises:
        ValueError: an encoder or the sampler is unknown, or an encoder cannot take its image size.

    Source: DiffMIC-v2 (IEEE TMI 2025), section III.
    """

    def __init__(self, config: DiffMICConfig, *, pretrained_backbones: Pretrained = False) -> None:
        super().__init__()
        self._config = config
        self.trained = False
        self.weights_name: str | None = None
        self.dcg = create_dcg(config, pretrained_backbones)
        if config.predictor == "diffusion":
            self.feature_prior = create_feature_prior(config, pretrained_backbones)
            self.unet = DenoisingUNet(config)
        self.schedule = NoiseSchedule(config)
        for name in ("default_noise", "default_step_noise"):
            self.register_buffer(name, None, persistent=False)
        self._fix_noise(torch.get_default_device(), torch.get_default_dtype())

    @property
    def config(self) -> DiffMICConfig:
        """What the model is; fields that do not shape its weights (sampling, calibration, names) may be changed."""
        return self._config

    @config.setter
    def config(self, config: DiffMICConfig) -> None:
        check_same_layers(self._config, config, self)
        self._reconfigure(config)

    def _reconfigure(self, config: DiffMICConfig) -> None:
        schedule = NoiseSchedule(config)
        create_sampler(config.sampler, schedule)
        self._config, self.schedule = config, schedule
        self._fix_noise(self.default_noise.device, self.default_noise.dtype)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:
        """Computes what no weights file holds, after the tensors of one were assigned to a model without memory."""
        self._fix_noise(device, dtype)
        self.to(device, dtype)

    # ------------------------------------------------------------------ the path of a batch

    def priors(self, images: Tensor) -> Priors:
        """Runs the DCG model: global and local prior, saliency, ROIs and their attention (eq. 1-3).

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them; one channel, (B, 1, S, S), is grey.

        Raises:
            ValueError: the shape is neither.
        """
        return self.dcg(check_batch(images, self.config), self.config)

    def condition(self, images: Tensor) -> Condition:
        """Computes everything that does not depend on the timestep (eq. 1-6).

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.

        Raises:
            ValueError: the shape is not (B, 3, S, S).
            TypeError: the DCG predicts alone, there is no diffusion to condition.
        """
        return self.condition_from_priors(images, self.priors(images))

    def condition_from_priors(self, images: Tensor, priors: Priors) -> Condition:
        """Adds guidance map and image feature prior to what `priors` returned for the same images (eq. 4-6).

        Raises:
            TypeError: the DCG predicts alone, there is no diffusion to condition.
        """
        if (predictor := self.config.predictor) != "diffusion":
            raise InvalidTypeError(f"predictor={predictor!r} has no diffusion; use priors, or call the model")
        guidance_map = build_guidance_map(priors.global_prior, priors.local_prior, self.config)
        whole = whole_view(images.expand(-1, 3, -1, -1), self.config)
        feature_prior = self.feature_prior(whole, priors.rois)
        return Condition.of(priors, guidance_map, feature_prior, self.feature_prior.logits(feature_prior))

    def predict_noise(self, y_t: Tensor, t: int | Tensor, condition: Condition) -> Tensor:
        """Denoising network ε_θ(y_t, M, F, t), (B, C, Np, Np) (eq. 8).

        Args:
            y_t: (B, C, Np, Np), the noisy labels.
            t: 0..T-1: one timestep for all, (B,) one per image, or (B, Np, Np) one per noise point.
            condition: of the same B images.
        """
        if not isinstance(t, int) and t.ndim == 1:
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
        """Runs the sampler and returns the ŷ_0 map, (B, C, Np, Np), the mean over `num_samples` runs (Algorithm 2).

        Args:
            condition: of B images.
            steps: of the sampler, 1..T; the config's `sampling_steps` by default.
            y_T: (B or 1, C, Np, Np) or (num_samples, B or 1, C, Np, Np), where sampling starts, instead of a draw.
            num_samples: independent runs to average, ≥ 1; the config's `num_samples` by default.
            generator: on the condition's device; draws noise for every image. Without it all images share the model's
                own fixed noise, so that a prediction does not depend on the batch.

        Raises:
            ValueError: `steps` or `num_samples` is out of range, or `num_samples` is not that of `y_T`.
        """
        config, batch = self.config, len(condition.guidance_map)
        steps = config.sampling_steps if steps is None else steps
        if y_T is None:
            runs = config.num_samples if num_samples is None else num_samples
            noise = self.sampling_noise(steps, runs, batch, generator=generator)
            return self._sample(condition, steps, noise).mean(0)
        start = (y_T if y_T.ndim == 5 else y_T[None]).expand(-1, *condition.guidance_map.shape)
        if num_samples not in (None, len(start)):
            raise InvalidValueError(f"num_samples={num_samples} does not go with the {len(start)} starts of y_T")
        noise = sampling.SamplingNoise(start, None)
        if self.sampler.needs_noise:
            noise = self.sampling_noise(steps, len(start), batch, generator=generator)
        return sampling.denoise_runs(self.unet, self.sampler, condition, steps, start, noise.step_noise).mean(0)

    def _sample(self, condition: Condition, steps: int, noise: sampling.SamplingNoise) -> Tensor:
        start = sampling.initial_sample(self.config, condition, noise.initial)
        once = sampling.points_share_bands(self.config, self.sampler)
        return sampling.denoise_runs(
            self.unet, self.sampler, condition, steps, start, noise.step_noise, equal_points=once
        )

    def forward(self, images: Tensor) -> Tensor:
        """Maps preprocessed images (B, 3, S, S) to scores (B, C): the mean of the ŷ_0 map, about 0..1.

        Where the DCG predicts alone they are its logits 0.5 · (ŷ_g + ŷ_l). `predict` pools the two, so that its label
        may be another one than the highest score's.
        """
        return self.scores(images, self.priors(images))

    def scores(
        self, images: Tensor, priors: Priors, steps: int | None = None, noise: sampling.SamplingNoise | None = None
    ) -> Tensor:
        """Returns what `forward` does, from priors that are known and with given random numbers.

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.
            priors: of these images.
            steps: of the sampler, 1..T; the config's `sampling_steps` by default.
            noise: from `sampling_noise`; the model's own fixed numbers by default.
        """
        return self.answer(images, priors, steps, noise).scores

    def answer(
        self, images: Tensor, priors: Priors, steps: int | None = None, noise: sampling.SamplingNoise | None = None
    ) -> Answer:
        """Returns all that probabilities are made from: what `scores` does, the priors, ŷ_F; and the runs' spread."""
        if self.config.predictor != "diffusion":
            return Answer(priors.dcg_logits, priors, priors.dcg_logits[:, :0], priors.features)
        steps = self.config.sampling_steps if steps is None else steps
        noise = noise or self.sampling_noise(steps, self.config.num_samples)
        diffuse = partial(self._diffuse, steps)
        scores, logits, features, spread = graphed(self, (self.config, steps), diffuse, images, priors, noise)
        return Answer(scores, priors, logits, features, spread if len(noise.initial) > 1 else None)

    def _diffuse(self, steps: int, images: Tensor, priors: Priors, noise: sampling.SamplingNoise) -> list[Tensor]:
        condition = self.condition_from_priors(images, priors).to(noise.initial.dtype)
        scores, spread = sampling.scores_of(self._sample(condition, steps, noise))
        logits = scores[:, :0] if condition.feature_logits is None else condition.feature_logits
        return [scores, logits, condition.feature_prior, spread]

    # ------------------------------------------------------------------ training

    def training_loss(
        self,
        images: Tensor,
        targets: Tensor,
        generator: torch.Generator | None = None,
        *,
        weights: Tensor | None = None,
        drawn: losses.TrainingNoise | None = None,
    ) -> Tensor:
        """Diffusion loss with a timestep and a noise draw per point (eq. 7, 9); the DCG stays frozen.

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.
            targets: (B,) class numbers, or (B, C) with 0..1 per class.
            generator: of the images' device, for timesteps and noise; the global one by default.
            weights: (B, C) ≥ 0, of the terms, see `diffmiczoo.diffusion.losses.Balance`; 1 by default.
            drawn: timesteps and noise, instead of drawing them.

        Raises:
            ValueError: `targets` has another shape.
        """
        labels = losses.label_vectors(targets.to(images.device), self.config)
        drawn = drawn or losses.sample_training_noise(self.config, len(labels), generator, labels.device)
        with frozen(self.dcg):
            priors = self.priors(images)
        condition = self.condition_from_priors(images, priors)
        return losses.diffusion_loss(self.unet, self.schedule, self.config, condition, labels, drawn, weights)

    def dcg_loss(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        weights: Tensor | None = None,
        class_loss: losses.ClassLoss = losses.cross_entropy,
    ) -> Tensor:
        """Loss of the DCG stage: cross-entropy (multi-label: binary) of the global plus that of the local prior.

        Args:
            images: (B, 3, S, S) float, as `preprocess` gives them.
            targets: (B,) class numbers, or (B, C) with 0..1 per class.
            weights: (B, C) ≥ 0, of the terms, see `diffmiczoo.diffusion.losses.Balance`; 1 by default.
            class_loss: in place of the cross-entropy, see `diffmiczoo.diffusion.class_losses`.

        Raises:
            ValueError: `targets` has another shape.
        """
        labels = losses.label_vectors(targets.to(images.device), self.config)
        priors = self.dcg.training_priors(check_batch(images, self.config), self.config)
        return losses.dcg_loss(priors, labels, self.config, weights, class_loss)

    # ------------------------------------------------------------------ prediction

    def prediction_function(self, steps: int, num_samples: int, options: PredictOptions) -> PredictSquares:
        """Returns what computes the tensors of a prediction for squares, see `ImageClassifier`."""
        # Seed 0 is the noise that belongs to the weights, whatever torch's generator draws.
        generator = seeded_generator(options.seed) if options.seed else None
        noise = self.sampling_noise(steps, num_samples, generator=generator)
        if self.config.predictor == "diffusion" and self.sampler.timesteps(steps)[0] == 0:
            warn(
                f"steps={steps} samples at timestep 0 only, where labels hold no noise: the prediction is the random "
                f"start, not the image. This model is meant for {self.config.sampling_steps} steps"
            )
        runtime = replace(options.runtime, precision=options.precision, record_at_once=options.fill_batches)
        noise, tta = noise.to(self.default_noise), options.tta or self.config.tta
        gate = usable_gate(self.trust, self.config)
        return partial(self._predict_squares, steps=steps, noise=noise, runtime=runtime, tta=tta, gate=gate)

    def _predict_squares(
        self,
        squares: Tensor,
        steps: int,
        noise: sampling.SamplingNoise,
        runtime: Runtime,
        tta: str,
        gate: Gate | None,
    ) -> PredictionTensors:
        def compute(view: Tensor) -> Answer:
            return self.answer(view, self.dcg(view, self.config, batch_invariant=True), steps, noise)

        with eval_mode(self):
            return computed_tensors(squares, self.config, self.default_noise, runtime, tta, compute, gate)

    # ------------------------------------------------------------------ classes

    def reset_classifier(
        self, num_classes: int, class_names: Sequence[str] | None = None, global_pool: str | None = None
    ) -> None:
        """Changes the classes: rebuilds the four layers that depend on them and marks the model untrained.

        Where old and new classes have names, the rows of those that are in both are kept.

        Args:
            num_classes: C ≥ 2.
            class_names: C names; "class_0", "class_1", … by default.
            global_pool: timm's argument, which may also come second; "avg" is what there is.

        Warns:
            UserWarning: names the layers that were rebuilt, and the classes whose rows were kept.

        Raises:
            ValueError: `num_classes` is out of range, or does not fit `class_names`.
        """
        class_names = check_pool(class_names, global_pool, num_classes)
        old, names = self.config, () if class_names is None else names_of(class_names)
        self._reconfigure(old.uncalibrated().replace(num_classes=num_classes, class_names=names, ordinal=False))
        rebuilt = rebuild_class_layers(self, old, self.config)
        self.trained, self.trust, self.recalibration = False, None, None
        warn(f"num_classes is now {num_classes}: {rebuilt}; fit the model before you predict")
