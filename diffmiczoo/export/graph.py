"""A model as one function without a choice left: bytes of squares in, all that a prediction says out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from diffmiczoo.diffusion import sampling
from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.inference.limits import deferral_limit, settings_of, usable_gate
from diffmiczoo.inference.probabilities import scores_to_probs, uncertainty
from diffmiczoo.inference.tensors import pool_members
from diffmiczoo.inference.views import Answer, mean_over_views
from diffmiczoo.model import DiffMICv2
from diffmiczoo.trust.conformal import SetRules
from diffmiczoo.trust.gate import Gate

#: Name of the input: squares as preprocessing leaves them, (B, S, S, 3) uint8.
INPUT = "pictures"

#: Name of an output → its shape and what it holds, in this order; a file has those that the model has.
OUTPUTS = {
    "probs": "(B, C) float32: calibrated probabilities",
    "labels": "(B, C) bool: which labels are given",
    "scores": "(B, C) float32: means of the sampler's map",
    "uncertainty": "(B,) float32: 0 = sure, 1 = knows nothing",
    "spread": "(B, C) float32: standard deviation of the scores over the runs of the sampler",
    "rois": "(B, K, 4) int64: left, top, right, bottom in pixels of the square; right and bottom are exclusive",
    "attention": "(B, K) float32: weights of the ROIs, in sum 1",
    "saliency": "(B, C, h, w) float32: logits",
    "sets": "(B, A, C) bool: prediction sets by class, one per level of `alphas`",
    "ood_score": "(B,) float32: distance from the training pictures, above 1 unlike them",
    "in_distribution": "(B,) bool: ood_score is at most 1",
    "deferred": "(B,) bool: a person should see it, see `defer_error`",
}


@dataclass(frozen=True)
class GraphSettings:
    """What is built into a graph.

    Attributes:
        steps, num_samples: of the sampler.
        sets: rules of the prediction sets, None where there are none for these steps and runs.
        gate: of the weights, None where there is none.
        unsure: the uncertainty above which a person should see a picture, None for no such output.
        notes: sentences on what is left out, and why.
    """

    steps: int
    num_samples: int
    sets: SetRules | None
    gate: Gate | None
    unsure: float | None
    notes: tuple[str, ...] = ()


def graph_settings(
    model: DiffMICv2, steps: int | None, num_samples: int | None, defer_error: float | None
) -> GraphSettings:
    """Decides what a model's graph can hold.

    Raises:
        ValueError: the weights cannot promise `defer_error`, or not for these steps and runs.

    Warns:
        UserWarning: what the weights know about their limits is for other steps or runs, and is left out.
    """
    config, trust, notes = model.config, model.trust, []
    steps = config.sampling_steps if steps is None else steps
    runs = config.num_samples if num_samples is None else num_samples
    here = settings_of(config) | {"sampling_steps": steps, "num_samples": runs, "tta": config.tta}
    changed = [] if trust is None else trust.changed(here)
    sets = None if trust is None or changed else trust.sets
    if changed:
        notes.append(f"no prediction sets: they were calibrated for another prediction: {'; '.join(changed)}")
    elif sets is None:
        notes.append("no prediction sets: the weights have none")
    gate = usable_gate(trust, config)
    if gate is None:
        notes.append("no out-of-distribution score: the weights have no gate")
    if config.temperature is None:
        notes.append("probabilities are not calibrated: take them for a ranking only")
    unsure = None
    if defer_error is not None:
        unsure = deferral_limit(trust, defer_error)
        if changed:
            raise InvalidValueError(f"defer_error={defer_error}: deferral was calibrated for {'; '.join(changed)}")
    if changed:
        warn(notes[0])
    return GraphSettings(steps, runs, sets, gate, unsure, tuple(notes))


class ExportedModel(nn.Module):
    """Maps squares (B, S, S, 3) uint8 to the outputs that `names` lists.

    The sampler's steps are unrolled, and what it starts from is the model's own noise, as `predict` has it by default.

    Args:
        model: in float32, on the CPU, in eval mode.
        settings: what is built in.

    Attributes:
        names: of the outputs, in their order.
    """

    noise: Tensor
    step_noise: Tensor | None
    gate_mean: Tensor
    gate_axes: Tensor
    gate_scales: Tensor

    def __init__(self, model: DiffMICv2, settings: GraphSettings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        drawn = model.sampling_noise(settings.steps, settings.num_samples)
        self.register_buffer("noise", drawn.initial.clone(), persistent=False)
        step_noise = None if drawn.step_noise is None else drawn.step_noise.clone()
        self.register_buffer("step_noise", step_noise, persistent=False)
        if settings.gate is not None:
            _keep(self, "gate", settings.gate)
        present = {
            "spread": model.config.predictor == "diffusion" and settings.num_samples > 1,
            "sets": settings.sets is not None,
            "ood_score": settings.gate is not None,
            "in_distribution": settings.gate is not None,
            "deferred": settings.unsure is not None,
        }
        self.names = [name for name in OUTPUTS if present.get(name, True)]

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs in the order of `names`."""
        config = self.model.config
        images = normalize(rearrange(pictures, "b h w c -> b c h w"), config)
        answer = mean_over_views(images, config.tta, self._answer)
        priors = answer.priors
        members = pool_members(priors.global_prior, priors.local_prior, answer.feature_logits)
        probs = scores_to_probs(answer.scores, config, members)
        left_top = priors.roi_top_left.flip(-1)
        labels, unsure = self._labels(probs), uncertainty(probs, config.task)
        found = {
            "probs": probs,
            "labels": labels,
            "scores": answer.scores,
            "uncertainty": unsure,
            **({} if answer.spread is None else {"spread": answer.spread}),
            "rois": torch.cat([left_top, left_top + config.roi_size], dim=-1),
            "attention": priors.roi_attention,
            "saliency": priors.saliency,
            **self._limits(answer, labels, probs, unsure),
        }
        # An input or a constant cannot be an output twice, nor one output another.
        return tuple(found[name].clone() for name in self.names)

    def _answer(self, images: Tensor) -> Answer:
        """Does what `DiffMICv2.answer` does."""
        model, priors = self.model, self.model.priors(images)
        if model.config.predictor != "diffusion":
            return Answer(priors.dcg_logits, priors, priors.dcg_logits[:, :0], priors.features)
        condition = model.condition_from_priors(images, priors)
        start = sampling.initial_sample(model.config, condition, self.noise)
        runs = sampling.denoise_runs(
            model.unet, model.sampler, condition, self.settings.steps, start, self.step_noise
        ).mean((3, 4))
        scores, spread = runs.mean(0), runs.std(0, correction=0) if len(runs) > 1 else None
        logits = scores[:, :0] if condition.feature_logits is None else condition.feature_logits
        return Answer(scores, priors, logits, condition.feature_prior, spread)

    def _labels(self, probs: Tensor) -> Tensor:
        """Returns what `inference.decisions.decide` does."""
        config = self.model.config
        if config.task == "multilabel":
            return probs >= probs.new_tensor(config.thresholds or [0.5])
        ranked = probs
        if config.label_adjustment:
            ranked = probs * probs.new_tensor([math.exp(value) for value in config.label_adjustment])
        classes = torch.arange(config.num_classes, device=probs.device)
        return ranked.argmax(1, keepdim=True) == classes

    def _limits(self, answer: Answer, labels: Tensor, probs: Tensor, unsure: Tensor) -> dict[str, Tensor]:
        """Returns prediction sets, score of the gate and deferral, of these those that there are."""
        found: dict[str, Tensor] = {}
        if (rules := self.settings.sets) is not None:
            lowest = [[0.0 if low is None else least_single(low) for low in rule.by_class] for rule in rules.rules]
            found["sets"] = (probs[:, None] >= probs.new_tensor(lowest)) | labels[:, None]
        if self.settings.gate is not None and answer.features is not None:
            found["ood_score"] = self._ood_score(answer.features, self.settings.gate)
            found["in_distribution"] = found["ood_score"] <= 1
        if self.settings.unsure is not None:
            found["deferred"] = unsure > largest_single(self.settings.unsure)
            if "in_distribution" in found:
                found["deferred"] = found["deferred"] | ~found["in_distribution"]
        return found

    def _ood_score(self, features: Tensor, gate: Gate) -> Tensor:
        """Returns what `Gate.score` does, in single precision."""
        centred = features - self.gate_mean
        along = (centred @ self.gate_axes.mT) ** 2
        squared = (along * self.gate_scales**2).sum(1)
        if gate.rest:
            squared = squared + gate.rest**2 * ((centred**2).sum(1) - along.sum(1)).clamp_min(0)
        return squared.sqrt() / gate.limit


def _keep(module: nn.Module, name: str, gate: Gate) -> None:
    for part in ("mean", "axes", "scales"):
        values = np.ascontiguousarray(getattr(gate, part), dtype=np.float32)
        module.register_buffer(f"{name}_{part}", torch.from_numpy(values.copy()), persistent=False)


def least_single(value: float) -> float:
    """Returns the smallest float32 that is at least `value`: any float32 reaches both or none."""
    single = np.float32(value)
    return float(single if float(single) >= value else np.nextafter(single, np.float32(np.inf)))


def largest_single(value: float) -> float:
    """Returns the largest float32 that is at most `value`."""
    return -least_single(-value)
