"""Encoders for inference: BatchNorm folded into the convolution before it, weights cast and packed once.

Why a copy and not the encoder: folding changes weights for good, and the model has to stay trainable and saveable. Why
the pairs of convolution and BatchNorm are found by running an image and not by names: timm's models call them what they
like, apply them in other orders than they hold them, and use some outputs twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, cast

import torch
from timm.layers import Attention, Conv2dSame, Mlp
from torch import Tensor, nn

from diffmiczoo.runtime.module_walk import has_hooks
from diffmiczoo.runtime.packed import PackedConv, PackedLinear, can_be_fused, can_be_packed, is_plain_conv
from diffmiczoo.runtime.settings import current, full_precision
from diffmiczoo.runtime.tf32 import without_tf32
from diffmiczoo.runtime.weight_cache import WeightCache

#: Relative tolerance of the features; where folding exceeds it, it is undone.
_TOLERANCE = 1e-3

# Of the features' norm; rounding in half precision takes a few hundredths, a mistake takes all of it.
_HALF_TOLERANCE = 0.2

# Multiply-accumulates for each number written, below which layers spend their time on memory. MobileNets and
# EfficientNets up to B4 have 45 to 90, ConvNeXts 144 to 332, ResNets from 368.
_FEW_MACS = 100

_LAYERS = (nn.Conv2d, Conv2dSame, nn.Linear)

_cache: WeightCache[Callable[[Tensor], Tensor]] = WeightCache()


def inference_encoder(encoder: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns what computes an encoder's features as the current `Runtime` asks: a folded copy, or the encoder itself.

    The copy is cached and used again while no weight changes; its weights have the runtime's precision already. On CPUs
    an encoder of depthwise convolutions mostly is in full precision all the same, unless `half_small_encoders` is set:
    half precision gains it little time there and costs the probabilities most (docs/performance.md). An encoder that
    trains or takes gradients, has hooks, or a forward of its own such as a compiled one, is left alone.

    Args:
        encoder: images → features.
        images: what it is about to be given; the first one shows which convolutions feed a BatchNorm.
    """
    runtime = current()
    if not runtime.fold_encoders or encoder.training or torch.is_grad_enabled() or images.is_meta:
        return encoder
    if _is_changed(encoder):
        return encoder
    # Autocast leaves double precision as it is.
    half = None if next(encoder.parameters()).dtype == torch.float64 else runtime.half
    if half is None or runtime.half_small_encoders or images.device.type != "cpu":
        return _folded_copy(encoder, images, half)
    key = (half, "if compute-bound", runtime.pack, runtime.channels_last)
    return _cache.get(encoder, key, lambda: _half_if_compute_bound(encoder, images, half))


def _folded_copy(encoder: nn.Module, images: Tensor, half: torch.dtype | None) -> Callable[[Tensor], Tensor]:
    packed = current().pack and can_be_packed(images.device, half or next(encoder.parameters()).dtype)
    key = (half, packed, current().channels_last)
    return _cache.get(encoder, key, lambda: _folded(encoder, images[:1], half, packed))


def _half_if_compute_bound(encoder: nn.Module, images: Tensor, half: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Returns a copy in half precision, or one in full precision of an encoder that spends its time on memory."""
    with full_precision(images.device):
        own = next(encoder.parameters()).dtype
        if _macs_per_output(_bare_copy(encoder), images[:1].to(own)) < _FEW_MACS:
            return partial(_in_full_precision, _folded_copy(encoder, images, None), own)
    return _folded_copy(encoder, images, half)


def _macs_per_output(encoder: nn.Module, image: Tensor) -> float:
    """Returns how many multiply-accumulates an encoder's layers do for each number they write, ∞ if it calls none."""
    outputs: list[tuple[int, int]] = []

    def after(module: nn.Module, _: object, output: Tensor) -> None:
        weight = cast(Tensor, module.weight)
        outputs.append((output.numel(), weight[0].numel()))

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(after)
    encoder(image)
    written = sum(count for count, _ in outputs)
    return sum(count * macs for count, macs in outputs) / written if written else math.inf


def _is_changed(encoder: nn.Module) -> bool:
    return "forward" in vars(encoder) or encoder._compiled_call_impl is not None or has_hooks(encoder)


def _folded(encoder: nn.Module, image: Tensor, half: torch.dtype | None, packed: bool) -> nn.Module:
    """Returns a copy with as much folded as gives the same features."""
    # Not in TF32 either: its rounding would look like a mistake of folding.
    with full_precision(image.device), without_tf32(image.device):
        image = image.to(next(encoder.parameters()).dtype)
        copy = _bare_copy(encoder)
        wanted = copy(image)
        pairs = _convolutions_before_norms(copy, image)
        for conv, norm in pairs:
            _fold(conv, norm)
        if pairs and not _is_near(copy(image), wanted):
            copy, pairs = _bare_copy(encoder), []
    if half is not None:
        for module in copy.modules():
            # Others may compute with their weights first, as normalised ones do, which takes full precision.
            if type(module) in _LAYERS:
                module.to(half)
    if not packed:
        return copy
    _pack(copy, dict(pairs), half)
    return copy if _has_features(copy, image, wanted, half) else _folded(encoder, image, half, packed=False)


def _in_full_precision(encoder: Callable[[Tensor], Tensor], dtype: torch.dtype, images: Tensor) -> Tensor:
    with full_precision(images.device):
        return encoder(images.to(dtype))


def _has_features(encoder: nn.Module, image: Tensor, wanted: Tensor, half: torch.dtype | None) -> bool:
    """Returns whether packing left an encoder's features as they were; some take their layers' weights themselves."""
    try:
        found = encoder(image)
    except (AttributeError, RuntimeError, TypeError):
        return False
    if half is None:
        return _is_near(found, wanted)
    return bool((found.float() - wanted).norm() <= _HALF_TOLERANCE * wanted.norm())


def _pack(encoder: nn.Module, norm_after: dict[nn.Module, nn.BatchNorm2d], half: torch.dtype | None) -> None:
    """Lays out the weights of linear layers and convolutions, with the activations that follow them."""
    for parent in list(encoder.modules()):
        if type(parent) is Attention:
            _use_unfused_attention(parent, half)
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child.weight, child.bias, _activation_of_mlp(parent, child)))
            elif is_plain_conv(child):
                setattr(parent, name, PackedConv(child, _activation_of_norm(norm_after.get(child))))


def _use_unfused_attention(attention: Attention, half: torch.dtype | None) -> None:
    """Computes attention as matrix products and a softmax, all in half precision if there is one.

    PyTorch's fused attention on CPUs is written for long sequences; for those of images it takes twice the time.
    """
    attention.fused_attn = False  # type: ignore[misc]
    if half is None:
        return

    def forward(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        with full_precision(x.device):
            attended: Tensor = Attention.forward(attention, x.to(half), *arguments, **options)
        return attended

    attention.forward = forward  # type: ignore[method-assign]


def _activation_of_mlp(parent: nn.Module, linear: nn.Linear) -> nn.Module | None:
    """Takes the activation out of a transformer's MLP, if `linear` is the layer before it and can apply it."""
    if type(parent) is not Mlp or parent.fc1 is not linear or not can_be_fused(parent.act):
        return None
    activation: nn.Module = parent.act
    parent.act = nn.Identity()
    return activation


def _activation_of_norm(norm: nn.BatchNorm2d | None) -> nn.Module | None:
    """Takes the activation out of a folded BatchNorm, if the convolution before it can apply it."""
    activation = getattr(norm, "act", None)
    if norm is None or activation is None or not can_be_fused(activation):
        return None
    norm.forward = nn.Identity().forward  # type: ignore[method-assign]
    return activation


def _bare_copy(encoder: nn.Module) -> nn.Module:
    copy = deepcopy(encoder).eval().requires_grad_(False)
    for module in copy.modules():
        vars(module).pop("forward", None)
    # The model itself keeps the layout in which its owner left it.
    return copy.to(memory_format=torch.channels_last) if current().channels_last else copy


def _convolutions_before_norms(encoder: nn.Module, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Runs an image through and returns which BatchNorm is given just what a convolution returned.

        conv ── y ──► norm                   a pair: the norm is given the very object that conv returned
        conv ── y ──► relu ── z ──► norm     no pair
        conv ── y ──► norm, y ──► add        a pair here, but add would get the folded y: features differ, and
                                             `_folded` undoes all folding of this encoder

    Layers that are called several times are in no pair: folding for one call would change the others.
    """
    returned: list[tuple[nn.Conv2d, Tensor]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after(module: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            returned.append((module, output))

    def before(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found = next((conv for conv, output in reversed(returned) if output is given[0]), None)
        if isinstance(module, nn.BatchNorm2d) and found is not None and module.running_var is not None:
            pairs.append((found, module))

    hooks = []
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before))
    encoder(image)
    for hook in hooks:
        hook.remove()
    once = {id(part): sum(part is other for pair in pairs for other in pair) for pair in pairs for part in pair}
    return [pair for pair in pairs if all(once[id(part)] == 1 for part in pair)]


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Moves a BatchNorm's scale and shift into the convolution; its activation, if it has one, stays in its place."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # In float64, so that what is left of the difference is one rounding of each weight.
    scale = (norm.running_var.double() + norm.eps).rsqrt() * (norm.weight.double() if norm.affine else 1)
    shift = (norm.bias.double() if norm.affine else 0) - norm.running_mean.double() * scale
    bias = shift if conv.bias is None else shift + conv.bias.double() * scale
    weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype)
    conv.weight = nn.Parameter(_like(weight, conv.weight), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
    activation = getattr(norm, "act", nn.Identity())
    norm.forward = activation.forward  # type: ignore[method-assign]


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    channels_last = other.is_contiguous(memory_format=torch.channels_last)
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor.contiguous()


def _is_near(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max().clamp(min=1e-6))
