"""The two stages: what each trains, on which loss, and which scores it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffmiczoo.evaluation.calibration import fit_temperature
from diffmiczoo.evaluation.metrics import Metrics, compute_metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.modes import evaluation_mode
from diffmiczoo.prediction import scores_to_probs
from diffmiczoo.training.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: "dcg" or "diffusion".
        modules: names of the model's children that it trains.
        epochs, lr: from the recipe.
        loss: (model, images, targets) → scalar.
        scores: (model, images) → (B, C), for validation.
        probs: (model, scores, temperature) → (B, C).
    """

    name: str
    modules: tuple[str, ...]
    epochs: int
    lr: float
    loss: Callable[[DiffMICv2, Tensor, Tensor], Tensor]
    scores: Callable[[DiffMICv2, Tensor], Tensor]


def create_stages(recipe: Recipe) -> tuple[Stage, Stage]:
    """Returns the DCG stage and the diffusion stage (section III-E)."""
    dcg = Stage("dcg", ("dcg",), recipe.dcg_epochs, recipe.dcg_lr, DiffMICv2.dcg_loss, dcg_scores)
    diffusion = Stage(
        "diffusion",
        ("feature_prior", "unet"),
        recipe.diffusion_epochs,
        recipe.diffusion_lr,
        DiffMICv2.training_loss,
        DiffMICv2.forward,
    )
    return dcg, diffusion


def dcg_scores(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns the DCG's own prediction 0.5 · (ŷ_g + ŷ_l), (B, C) logits."""
    priors = model.priors(images)
    return 0.5 * (priors["global_prior"] + priors["local_prior"])


def parameter_groups(model: DiffMICv2, stage: Stage, recipe: Recipe) -> list[dict[str, object]]:
    """Splits what a stage trains by learning rate (encoders, rest) and weight decay (none on norms, biases, Q, γ)."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for child in stage.modules:
        for name, parameter in model.get_submodule(child).named_parameters():
            lr = stage.lr * (recipe.encoder_lr_scale if "encoder" in name.split(".")[0] else 1.0)
            decays = parameter.ndim > 1 and not name.endswith("Q") and ".gamma." not in name
            groups.setdefault((lr, recipe.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


@torch.inference_mode()
def collect_scores(
    model: DiffMICv2, scores: Callable[[DiffMICv2, Tensor], Tensor], loader: DataLoader[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Returns the scores (N, C) and targets of a data set, on the CPU."""
    device = model.default_noise.device
    with evaluation_mode(model):
        rows = [(scores(model, images.to(device)).float().cpu(), targets) for images, targets in loader]
    return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])


def stage_probs(stage_name: str, scores: Tensor, model: DiffMICv2, temperature: float | None) -> Tensor:
    """Turns a stage's scores into probabilities; those of the DCG are logits, softmax or sigmoid as they are."""
    if stage_name == "diffusion":
        return scores_to_probs(scores, model.config.replace(temperature=temperature))
    return scores.softmax(-1) if model.config.task == "multiclass" else scores.sigmoid()


def validate(model: DiffMICv2, stage: Stage, loader: DataLoader[tuple[Tensor, Tensor]]) -> tuple[Metrics, float | None]:
    """Judges a stage on validation data; the diffusion's temperature is fitted on the same data."""
    scores, targets = collect_scores(model, stage.scores, loader)
    task = model.config.task
    temperature = fit_temperature(scores, targets, task=task) if stage.name == "diffusion" else None
    probs = stage_probs(stage.name, scores, model, temperature)
    return compute_metrics(probs, targets, task=task, class_names=model.config.labels, bootstrap=0), temperature
