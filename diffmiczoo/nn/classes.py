"""The four layers whose size follows the number of classes."""

from __future__ import annotations

from torch import nn

#: Path of the layer → its (input, output) channels for C classes; None is left as it is.
CLASS_LAYERS = {
    "dcg.saliency_conv": (None, 1),
    "dcg.local_classifier": (None, 1),
    "unet.block1.conv": (2, None),
    "unet.out_conv": (None, 1),
}


def rebuild_class_layers(model: nn.Module, num_classes: int) -> list[str]:
    """Replaces the layers that depend on the number of classes by fresh ones and returns their names."""
    for path, (inputs, outputs) in CLASS_LAYERS.items():
        parent, name = path.rsplit(".", 1)
        old = model.get_submodule(path)
        fresh = _resized(old, inputs and inputs * num_classes, outputs and outputs * num_classes)
        like = next(old.parameters())
        setattr(model.get_submodule(parent), name, fresh.to(like.device, like.dtype))
    return list(CLASS_LAYERS)


def _resized(layer: nn.Module, inputs: int | None, outputs: int | None) -> nn.Module:
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs or layer.in_features, outputs or layer.out_features, bias=has_bias)
    if isinstance(layer, nn.Conv2d):
        kernel, padding = layer.kernel_size[0], int(layer.padding[0])
        return nn.Conv2d(
            inputs or layer.in_channels, outputs or layer.out_channels, kernel, padding=padding, bias=has_bias
        )
    raise TypeError(f"{type(layer).__name__} has no number of classes")
