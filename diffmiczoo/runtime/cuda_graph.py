"""CUDA graphs: what a GPU is to do for a batch, recorded once and started as one, in `predict` and in training.

Why: a small batch is a thousand kernels of a few microseconds, and starting each of them from Python takes longer than
computing it. A recorded graph reads and writes fixed memory:

    images, … ── copied into ──► static inputs ──► graph ──► static outputs ── cloned ──► the caller's

It holds addresses, no tensors, and so it must not outlive what it reads. It is kept by the weights of the module
(`weight_cache`), and with it everything that other caches gave it (`remembered`): they may drop their copies earlier.
What cannot be recorded, because something in it waits for the device, is computed as it is, which is said once.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from diffmiczoo.errors import warn
from diffmiczoo.runtime.module_walk import is_as_written
from diffmiczoo.runtime.settings import current
from diffmiczoo.runtime.weight_cache import WeightCache, remembered

T = TypeVar("T")

#: Kinds of calls for which a module's graphs are kept: parts, shapes, settings.
MOST_GRAPHS = 16

# A process records one graph at a time, whatever the model and the thread; its allocator is not emptied meanwhile.
_recording = threading.Lock()

# Whether the present thread records: what is recorded already holds what it calls.
_inside: ContextVar[bool] = ContextVar("inside", default=False)

# Whether a recording was spoiled, as by a thread that waits for the whole device: PyTorch before 2.12 cannot record
# after that, and computing without graphs is always right.
_spoiled = False


class Recording(Protocol):
    """A call that can be made again.

    Attributes:
        outputs: what the call returned; `replay` writes into its tensors.
    """

    outputs: Any

    def replay(self) -> None:
        """Computes the outputs anew from what the inputs hold now."""


@dataclass
class _CudaRecording:
    graph: torch.cuda.CUDAGraph
    stream: torch.cuda.Stream
    outputs: Any
    used: list[Any]

    def replay(self) -> None:
        self.graph.replay()


def record_on_cuda(function: Callable[..., Any], inputs: tuple[Any, ...], beside: Recording | None) -> Recording:
    """Records a call on the current GPU.

    Args:
        function: must not wait for the device.
        inputs: static ones.
        beside: a recording that never runs at the same time, whose working memory may be used.
    """
    stream, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
    if isinstance(beside, _CudaRecording):
        # Memory that one stream has freed is not given to another, so that recordings share it only on the same one.
        pool, side = beside.graph.pool(), beside.stream
    else:
        pool, side = None, torch.cuda.Stream()
    try:
        with _no_autocast_cache():
            # A call before: libraries choose their kernels and fetch their memory outside of the graph.
            side.wait_stream(stream)
            with torch.cuda.stream(side):
                function(*inputs)
            stream.wait_stream(side)
            # Other threads may go on; the stream is our own, since PyTorch's default one is of one device.
            recorder = torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local")
            with remembered() as used, recorder:
                outputs = function(*inputs)
    finally:
        # A capture that fails leaves its own stream as the current one.
        torch.cuda.set_stream(stream)
    return _CudaRecording(graph, side, outputs, used)


#: Type of device → what records there; a GPU can do without, others have nothing of the kind.
RECORDERS: dict[str, Callable[[Callable[..., Any], tuple[Any, ...], Recording | None], Recording]] = {
    "cuda": record_on_cuda
}


@dataclass
class _Known:
    inputs: tuple[Any, ...] = ()
    recording: Recording | None = None
    failed: bool = False


class _Graphs:
    """Key → a recorded call. A kind of call is recorded when it comes the second time: many come only once.

    With `Runtime.record_at_once` it is recorded when it first comes, so that all its answers have the same bits.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, Hashable], _Known] = OrderedDict()
        # One at a time: another thread would write into the inputs before they are read.
        self._lock = threading.Lock()

    def run(self, key: Hashable, stream: int, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        with self._lock:
            is_new = (stream, key) not in self._known
            known = self._known.setdefault((stream, key), _Known())
            self._known.move_to_end((stream, key))
            while len(self._known) > MOST_GRAPHS:
                self._known.popitem(last=False)
            if known.recording is None and not known.failed and (not is_new or current().record_at_once):
                self._record(known, stream, function, arguments)
            if known.recording is not None:
                return _replayed(known.recording, known.inputs, arguments)
        return function(*arguments)

    def _record(self, known: _Known, stream: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        beside = (other.recording for (of, _), other in self._known.items() if of == stream)
        inputs = _mapped(arguments, torch.clone)
        try:
            known.recording = _record(function, inputs, next((each for each in beside if each is not None), None))
            known.inputs = inputs
        except RuntimeError as error:
            known.failed = True
            # PyTorch's own message tells of every process on the card.
            why = "too little memory is left" if is_out_of_memory(error) else error
            warn(f"this cannot be recorded as a CUDA graph ({why}); it is computed without one, with the same result")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory ran out; libraries that fetch theirs themselves say so in the message alone."""
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)


def _record(function: Callable[..., Any], inputs: tuple[Any, ...], beside: Recording | None) -> Recording:
    global _spoiled
    token = _inside.set(True)
    try:
        with _recording:
            return RECORDERS[next(_tensors(inputs)).device.type](function, inputs, beside)
    except RuntimeError as error:
        _spoiled = _spoiled or not is_out_of_memory(error)
        raise
    finally:
        _inside.reset(token)


_cache: WeightCache[_Graphs] = WeightCache()


def graphs_allowed() -> bool:
    """Whether calls may be recorded: not with DIFFMICZOO_CUDA_GRAPHS=0, nor after a recording that was spoiled."""
    return not _spoiled and os.environ.get("DIFFMICZOO_CUDA_GRAPHS", "1") != "0"


def graphed(module: nn.Module, key: Hashable, function: Callable[..., T], *arguments: Any) -> T:
    """Returns `function(*arguments)`, replayed from a CUDA graph where the current `Runtime` asks for it.

    Args:
        module: whose weights the function reads; the graph goes when one of them changes.
        key: all else that the function depends on, besides the arguments' tensors and the runtime.
        function: of tensors alone, without a look at their values.
        arguments: tensors, None, and dataclasses and tuples of these.
    """
    if not current().graph or torch.is_grad_enabled() or module.training:
        return function(*arguments)
    device = next(_tensors(arguments)).device
    if device.type not in RECORDERS:
        # What was recorded before the module went elsewhere holds memory there.
        _cache.drop(module)
        return function(*arguments)
    if _inside.get() or not graphs_allowed() or not is_as_written(module):
        return function(*arguments)
    layouts = tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in _tensors(arguments))
    # Static inputs that were made in inference mode can be written to in it alone.
    graphs, key = _cache.get(module, "graphs", _Graphs), (key, current(), layouts, torch.is_inference_mode_enabled())
    if device.type != "cuda":
        return graphs.run(key, 0, function, arguments)
    with torch.cuda.device(device):
        return graphs.run(key, torch.cuda.current_stream().cuda_stream, function, arguments)


def recorded(function: Callable[..., T], arguments: tuple[Any, ...]) -> Callable[..., T]:
    """Records a call and returns what makes it again for other tensors of the same shapes and types.

    Args:
        function: of tensors alone, without a look at their values; called for the recording, and not afterwards.
        arguments: tensors, None, and dataclasses and tuples of these.

    Returns:
        A function that returns the tensors of the first call, which each call overwrites.

    Raises:
        RuntimeError: the device cannot record it.
    """
    inputs = _mapped(arguments, torch.clone)
    recording = _record(function, inputs, None)

    def replay(*given: Any) -> T:
        _copy(inputs, given)
        recording.replay()
        outputs: T = recording.outputs
        return outputs

    return replay


def drop_graphs() -> None:
    """Gives all of `predict`'s graphs and their memory back; they are recorded again when they are needed."""
    _cache.clear()
    if torch.cuda.is_initialized():
        with _recording:
            torch.cuda.empty_cache()


def _replayed(recording: Recording, inputs: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    _copy(inputs, arguments)
    recording.replay()
    return _mapped(recording.outputs, torch.clone)


def _copy(inputs: tuple[Any, ...], arguments: tuple[Any, ...]) -> None:
    for static, given in zip(_tensors(inputs), _tensors(arguments), strict=True):
        static.copy_(given, non_blocking=True)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Returns a value of the same structure with all tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_mapped(part, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _mapped(getattr(value, field.name), change) for field in fields(value)})
    return value


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    # Weights that autocast has cast are freed when it ends, and a graph would go on reading them.
    enabled = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
