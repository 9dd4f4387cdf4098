"""What a model needs in order to learn: parameters in full precision that take gradients."""

from __future__ import annotations

import torch
from torch import nn

from diffmiczoo.errors import warn
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.cuda_graph import drop_graphs
from diffmiczoo.training.recipe import Recipe


def make_trainable(model: DiffMICv2, recipe: Recipe) -> None:
    """Turns parameters into what an optimiser can change, in the model that is trained in place.

    Half precision becomes float32, since small steps would vanish in it, and so does float64; `Recipe.precision` is
    what computes faster. Tensors that were made within `torch.inference_mode` become ordinary ones. What predictions
    recorded on a GPU goes, whose memory training needs.

    Warns:
        UserWarning: parameters had another type, or their `requires_grad` is off, which training does not heed.
    """
    drop_graphs()
    others = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.dtype != torch.float32}
    if others:
        model.float()
        warn(
            f"the model's parameters were {' and '.join(sorted(others))} and are float32 now, since small steps would "
            "vanish otherwise; Recipe(precision='bf16') computes in half precision"
        )
    for module in model.modules():
        _leave_inference(module)
    kept = {p for encoder in model.encoders() for p in encoder.parameters()} if recipe.freeze == "backbones" else set()
    frozen = [p for p in model.parameters() if not p.requires_grad and p not in kept]
    if frozen:
        count = sum(1 for _ in model.parameters())
        warn(
            f"{len(frozen)} of the model's {count} parameters have requires_grad=False; they are trained all the same. "
            "Recipe(freeze='backbones') keeps the encoders as they are"
        )


def _leave_inference(module: nn.Module) -> None:
    for name, parameter in module._parameters.items():
        if parameter is not None and parameter.is_inference():
            module._parameters[name] = nn.Parameter(parameter.clone(), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.is_inference():
            module._buffers[name] = buffer.clone()
