"""The two stages: what each trains, on which loss, and which scores it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.evaluation.calibration import fit_temperature
from diffmiczoo.evaluation.evaluate import Loader, collect_scores, dcg_scores
from diffmiczoo.evaluation.metrics import Metrics, compute_metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.prediction import logits_to_probs, score_logits, scores_to_probs
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
        answers: whether the scores are the model's own, to be calibrated, or only the DCG's on the way.
    """

    name: str
    modules: tuple[str, ...]
    epochs: int
    lr: float
    loss: Callable[[DiffMICv2, Tensor, Tensor], Tensor]
    scores: Callable[[DiffMICv2, Tensor], Tensor]
    answers: bool


def create_stages(recipe: Recipe, config: DiffMICConfig) -> tuple[Stage, ...]:
    """Returns the DCG stage and, unless the DCG answers alone, the diffusion stage (section III-E)."""
    alone = config.predictor != "diffusion"
    dcg = Stage("dcg", ("dcg",), recipe.dcg_epochs, recipe.dcg_lr, DiffMICv2.dcg_loss, dcg_scores, alone)
    if alone:
        return (dcg,)
    children, epochs, lr = ("feature_prior", "unet"), recipe.diffusion_epochs, recipe.diffusion_lr
    return dcg, Stage("diffusion", children, epochs, lr, DiffMICv2.training_loss, DiffMICv2.forward, True)


def parameter_groups(model: DiffMICv2, stage: Stage, recipe: Recipe) -> list[dict[str, object]]:
    """Splits what a stage trains by learning rate (encoders, rest) and weight decay (none on norms, biases, Q, γ)."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    encoder_lr = stage.lr if recipe.encoder_lr is None else recipe.encoder_lr
    for child in stage.modules:
        for name, parameter in model.get_submodule(child).named_parameters():
            lr = encoder_lr if "encoder" in name.split(".")[0] else stage.lr
            decays = parameter.ndim > 1 and not name.endswith("Q") and ".gamma." not in name
            groups.setdefault((lr, recipe.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def validate(
    model: DiffMICv2, stage: Stage, loader: Loader, progress: bool | None = None
) -> tuple[Metrics, float | None]:
    """Judges a stage on validation data; the temperature of the model's own answers is fitted on the same data."""
    scores, targets = collect_scores(model, stage.scores, loader, progress)
    config = model.config
    if stage.answers:
        temperature = fit_temperature(score_logits(scores, config), targets, task=config.task)
        probs = scores_to_probs(scores, config.replace(temperature=temperature))
    else:
        temperature, probs = None, logits_to_probs(scores, config.task)
    return compute_metrics(probs, targets, task=config.task, class_names=config.labels, bootstrap=0), temperature
