"""The two stages: what each trains, on which loss, and which scores it is validated by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion.losses import TrainingNoise
from diffmiczoo.evaluation.evaluate import dcg_logits, scores_and_members
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: "dcg" or "diffusion".
        number: 0 or 1, in order.
        modules: names of the model's children that it trains.
        epochs, lr: from the recipe.
        scores: (model, images) → (B, C), for validation; (B, 1 + M, C), the model's and the pool's members, where the
            model is complete and its calibration is to be fitted.
        is_final: whether the scores are the model's own, or only those of the DCG that the next stage builds on.
    """

    name: str
    number: int
    modules: tuple[str, ...]
    epochs: int
    lr: float
    scores: Callable[[DiffMICv2, Tensor], Tensor]
    is_final: bool


def create_stages(recipe: Recipe, config: DiffMICConfig) -> tuple[Stage, ...]:
    """Returns the DCG stage and, unless the DCG predicts alone, the diffusion stage (section III-E)."""
    alone = config.predictor != "diffusion"
    scores = scores_and_members if alone else dcg_logits
    dcg = Stage("dcg", 0, ("dcg",), recipe.dcg_epochs, recipe.dcg_lr, scores, alone)
    if alone:
        return (dcg,)
    modules, epochs, lr = ("feature_prior", "unet"), recipe.diffusion_epochs, recipe.diffusion_lr
    return dcg, Stage("diffusion", 1, modules, epochs, lr, scores_and_members, True)


class StageLoss(nn.Module):
    """The loss of a stage as a module: DistributedDataParallel works on the `forward` of one."""

    def __init__(self, model: DiffMICv2, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, images: Tensor, labels: Tensor, weights: Tensor | None, noise: TrainingNoise) -> Tensor:
        """Maps images (B, 3, S, S), labels (B, C) and their weights (B, C) to the scalar loss."""
        if self.stage.name == "dcg":
            return self.model.dcg_loss(images, labels, weights=weights)
        return self.model.training_loss(images, labels, weights=weights, drawn=noise)


@contextmanager
def trainable(model: DiffMICv2, stage: Stage, recipe: Recipe) -> Iterator[None]:
    """Within the context, only the parameters that a stage trains have `requires_grad`; afterwards all as before."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    wanted = {parameter for group in parameter_groups(model, stage, recipe) for parameter in group["params"]}
    try:
        for parameter in before:
            parameter.requires_grad_(parameter in wanted)
        yield
    finally:
        for parameter, found in before.items():
            parameter.requires_grad_(found)


def set_training(model: DiffMICv2, recipe: Recipe) -> None:
    """Puts a model into training mode, but for frozen encoders: the statistics of their BatchNorm stay."""
    model.train()
    if recipe.freeze == "backbones":
        for encoder in model.encoders():
            encoder.eval()


def parameter_groups(model: DiffMICv2, stage: Stage, recipe: Recipe) -> list[dict[str, list[nn.Parameter]]]:
    """Splits what a stage trains by learning rate (encoders' blocks, rest) and weight decay.

    Norms, biases, Q and γ have no weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for child in stage.modules:
        module = model.get_submodule(child)
        factors = _encoder_factors(module, recipe.layer_decay)
        for name, parameter in module.named_parameters():
            if name in factors and recipe.freeze == "backbones":
                continue
            own = stage.lr if recipe.encoder_lr is None else recipe.encoder_lr
            lr = own * factors[name] if name in factors else stage.lr
            decays = parameter.ndim > 1 and not name.endswith("Q") and ".gamma." not in name
            groups.setdefault((lr, recipe.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]  # type: ignore[dict-item]


def _encoder_factors(module: nn.Module, decay: float) -> dict[str, float]:
    """Returns name of an encoder's parameter → `decay` to the power of the blocks between it and the output."""
    factors: dict[str, float] = {}
    for child, encoder in module.named_children():
        if "encoder" not in child:
            continue
        names = [name for name, _ in encoder.named_parameters()]
        blocks = list(dict.fromkeys(_block(name) for name in names))
        depth = {block: len(blocks) - 1 - place for place, block in enumerate(blocks)}
        factors |= {f"{child}.{name}": decay ** depth[_block(name)] for name in names}
    return factors


def _block(name: str) -> str:
    """Returns what a parameter belongs to: "model.blocks.3", "model.layer1.0"; "stem" for what has no number."""
    numbered = re.match(r"(.*?\.?[A-Za-z_]+\d*\.\d+)\.", name)
    return numbered[1] if numbered else "stem"
