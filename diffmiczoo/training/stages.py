"""The stages: what each trains, on which loss, and which scores it is validated by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion.losses import ClassLoss, TrainingNoise, cross_entropy
from diffmiczoo.evaluation.evaluate import dcg_logits, scores_and_members
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.roi import whole_view
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.streams import stream_loss

_LOCAL = ("dcg.local_encoder", "dcg.attention", "dcg.local_classifier")


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: "dcg", or "global" and "local" where its streams learn one after the other; "diffusion".
        number: 0, 1 or 2, in order.
        modules: names of the modules that it trains.
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
    """Returns the DCG stage, or one for each of its streams, and unless the DCG predicts alone the diffusion stage.

    Source: section III-E.
    """
    alone = config.predictor != "diffusion"
    epochs, lr, scores = recipe.dcg_epochs, recipe.dcg_lr, scores_and_members if alone else dcg_logits
    dcg: tuple[Stage, ...] = (Stage("dcg", 0, ("dcg",), epochs, lr, scores, alone),)
    if recipe.encoder_start == "trained":
        scores = scores_and_members if alone else local_logits
        dcg = (
            Stage("global", 0, ("dcg.global_encoder", "dcg.saliency_conv"), epochs, lr, global_logits, False),
            Stage("local", 1, _LOCAL, epochs, lr, scores, alone),
        )
    if alone:
        return dcg
    modules, epochs, lr = ("feature_prior", "unet"), recipe.diffusion_epochs, recipe.diffusion_lr
    return *dcg, Stage("diffusion", len(dcg), modules, epochs, lr, scores_and_members, True)


def global_logits(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns ŷ_g (B, C), logits, for preprocessed images."""
    return model.dcg.global_stream(whole_view(images, model.config))[1]


def local_logits(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns ŷ_l (B, C), logits, for preprocessed images."""
    return model.priors(images).local_prior


class StageLoss(nn.Module):
    """The loss of a stage as a module: DistributedDataParallel works on the `forward` of one.

    Args:
        model: that learns.
        stage: what learns.
        class_loss: of the DCG's predictions and of a plain classifier's.
    """

    def __init__(self, model: DiffMICv2, stage: Stage, class_loss: ClassLoss = cross_entropy) -> None:
        super().__init__()
        self.model, self.stage, self.class_loss = model, stage, class_loss

    def forward(self, images: Tensor, labels: Tensor, weights: Tensor | None, noise: TrainingNoise) -> Tensor:
        """Maps images (B, 3, S, S), labels (B, C) and their weights (B, C) to the scalar loss."""
        if self.stage.name == "dcg":
            return self.model.dcg_loss(images, labels, weights=weights, class_loss=self.class_loss)
        if self.stage.name != "diffusion":
            return stream_loss(self.model, self.stage.name, images, labels, weights, self.class_loss)
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
        factors = _encoder_factors(child, module, recipe.layer_decay)
        for name, parameter in module.named_parameters():
            if name in factors and recipe.freeze == "backbones":
                continue
            own = stage.lr if recipe.encoder_lr is None else recipe.encoder_lr
            lr = own * factors[name] if name in factors else stage.lr
            decays = parameter.ndim > 1 and not name.endswith("Q") and ".gamma." not in name
            groups.setdefault((lr, recipe.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]  # type: ignore[dict-item]


def _encoder_factors(name: str, module: nn.Module, decay: float) -> dict[str, float]:
    """Returns name of an encoder's parameter → `decay` to the power of the blocks between it and the output.

    Args:
        name: of the module, which may be an encoder itself.
        module: whose parameters' names are meant.
        decay: from one block to the one before it.
    """
    factors: dict[str, float] = {}
    encoders = {"": module} if name.endswith("encoder") else dict(module.named_children())
    for child, encoder in encoders.items():
        if child and "encoder" not in child:
            continue
        names = [name for name, _ in encoder.named_parameters()]
        blocks = list(dict.fromkeys(_block(name) for name in names))
        depth = {block: len(blocks) - 1 - place for place, block in enumerate(blocks)}
        factors |= {f"{child}.{name}" if child else name: decay ** depth[_block(name)] for name in names}
    return factors


def _block(name: str) -> str:
    """Returns what a parameter belongs to: "model.blocks.3", "model.layer1.0"; "stem" for what has no number."""
    numbered = re.match(r"(.*?\.?[A-Za-z_]+\d*\.\d+)\.", name)
    return numbered[1] if numbered else "stem"
