"""`Runtime`: the one switch of everything that computes the same numbers faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch

from diffmiczoo.runtime.precision import PRECISIONS, autocast
from diffmiczoo.runtime.tf32 import without_tf32


@dataclass(frozen=True)
class Runtime:
    """Which optimisations are on; all are off by default, so that a model computes as it is written.

    `predict`, `evaluate` and `fit` switch on what pays for them. None but `precision` and `tf32` changes a prediction
    by more than rounding.

    Attributes:
        fold: the U-Net's γ(t), bias and BatchNorm become one scale and shift per step (`nn.unet_folded`).
        equal_points: noise points that stay equal through sampling are computed once; needs `fold`.
        fold_encoders: the encoders' BatchNorm goes into the convolution before it (`runtime.folded_encoder`).
        pack: on CPUs weights are laid out for oneDNN once instead of in every call (`runtime.packed`).
        channels_last: images and folded encoders have the memory layout in which convolutions take less time.
        keep_memory: freed memory stays in the process between batches (`runtime.malloc`).
        pointwise_as_linear: 1 × 1 convolutions of the U-Net are matrix products, whose gradients are faster on CPUs.
        precision: of matrix products and convolutions, a name of `runtime.precision.PRECISIONS`.
        half_small_encoders: encoders that spend their time on memory are in half precision too, not only large ones.
        graph: on GPUs what comes after the pixels is replayed from CUDA graphs (`runtime.cuda_graph`).
        record_at_once: they are recorded when a kind of call first comes, and not when it comes again.
        tf32: on GPUs TF32 is left to PyTorch's settings; otherwise full precision has none (`runtime.tf32`).
    """

    fold: bool = False
    equal_points: bool = False
    fold_encoders: bool = False
    pack: bool = False
    channels_last: bool = False
    keep_memory: bool = False
    pointwise_as_linear: bool = False
    precision: str = "fp32"
    half_small_encoders: bool = False
    graph: bool = False
    record_at_once: bool = False
    tf32: bool = False

    @property
    def half(self) -> torch.dtype | None:
        """The type of products in half precision, None in full precision; with "int8" that of all but two layers."""
        if self.precision == "fp32":
            return None
        return torch.bfloat16 if self.precision == "int8" else PRECISIONS[self.precision]


#: Everything off: the plain way.
PLAIN = Runtime()

#: What compiled and exported programs consist of: no copies of weights that they could not follow.
COMPILED = Runtime(pointwise_as_linear=True)

#: What validation and studies use, whose weights change between two passes.
FAST = Runtime(
    fold=True,
    equal_points=True,
    fold_encoders=True,
    pack=True,
    channels_last=True,
    keep_memory=True,
    pointwise_as_linear=True,
)

#: What `predict` uses: the weights stay, so that recording what a GPU is to do pays.
PREDICT = replace(FAST, graph=True)


def training_runtime(precision: str) -> Runtime:
    """Returns what training steps use: a frozen DCG in half precision is folded, encoders that learn never are."""
    is_half = precision != "fp32"
    return Runtime(
        fold_encoders=is_half,
        pack=True,
        pointwise_as_linear=True,
        precision=precision,
        half_small_encoders=True,
        # Gradients are computed outside of the context that would switch it off.
        tf32=True,
    )


# Of the thread (or task) that computes: two threads may predict in two precisions at once.
_current: ContextVar[Runtime] = ContextVar("runtime", default=PLAIN)


def current() -> Runtime:
    """Returns what is switched on here; while torch compiles or exports, `COMPILED`."""
    return COMPILED if torch.compiler.is_compiling() else _current.get()


@contextmanager
def using(runtime: Runtime, device: torch.device) -> Iterator[None]:
    """Switches optimisations on, with autocast as its precision asks: the caller's own autocast has no say.

    Args:
        runtime: all that is to be on.
        device: on which the model computes.
    """
    token = _current.set(runtime)
    exact = nullcontext() if runtime.tf32 else without_tf32(device)
    try:
        with exact, autocast(runtime.precision, device):
            yield
    finally:
        _current.reset(token)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context without half precision; one that does nothing for programs that are traced or compiled."""
    if torch.compiler.is_compiling() or not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return _full_precision(device)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    token = _current.set(replace(_current.get(), precision="fp32"))
    # Where autocast is off already nothing is entered, so that `torch.jit.trace` does not record it.
    off = torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()
    try:
        with off:
            yield
    finally:
        _current.reset(token)
