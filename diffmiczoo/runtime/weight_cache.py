"""A cache of what is computed from a module's weights, valid until one of them changes.

Folded and packed copies cost a second to make and must never outlive the weights that they were made from. Why the
weights themselves are looked at in every call, and not:

- an explicit `model.freeze()`: whoever forgets to call it again after a change gets silently wrong predictions;
- hooks on `load_state_dict`, `to` or the optimiser: `parameter.data.mul_(2)`, `swap_tensors`, an in-place operation
  under `no_grad` or another library's optimiser pass none of them;
- a hash of the content: reading all weights takes longer than predicting an image.

PyTorch counts in-place changes of a tensor in `_version`, and another storage has another `data_ptr`. Both together
with the identity of the tensors tell every change that autograd would notice too. For a model of 700 tensors that takes
under a millisecond a call, with `module_walk` instead of `Module.parameters`. The cache lies beside the modules, not on
them, so that it is in no state dict, copy or pickle, and weak references let it go with them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn

from diffmiczoo.runtime.module_walk import tensors_of

T = TypeVar("T")

# What `remembered` collects.
_used: ContextVar[list[Any] | None] = ContextVar("used", default=None)


@contextmanager
def remembered() -> Iterator[list[Any]]:
    """Collects what caches return within the context, for who needs it to live longer than they may keep it."""
    found: list[Any] = []
    token = _used.set(found)
    try:
        yield found
    finally:
        _used.reset(token)


@dataclass(frozen=True)
class _Entry(Generic[T]):
    versions: tuple[list[int], list[int]]
    tensors: list[ref[Tensor]]
    value: T


class WeightCache(Generic[T]):
    """Module and key → value, as long as the module's weights are the same objects with the same content."""

    def __init__(self) -> None:
        self._entries: WeakKeyDictionary[nn.Module, dict[Hashable, _Entry[T]]] = WeakKeyDictionary()

    def get(self, module: nn.Module, key: Hashable, build: Callable[[], T], *, only: bool = False) -> T:
        """Returns the cached value for the key and the module's present weights, or builds it.

        Args:
            module: its parameters and buffers are watched.
            key: what else the value depends on.
            build: called where nothing is cached or a weight has changed.
            only: drop what is cached for other keys.
        """
        value = self._get(module, key, build, only)
        if (used := _used.get()) is not None:
            used.append(value)
        return value

    def drop(self, module: nn.Module) -> None:
        """Drops what is cached for a module."""
        self._entries.pop(module, None)

    def clear(self) -> None:
        """Drops everything."""
        self._entries.clear()

    def _get(self, module: nn.Module, key: Hashable, build: Callable[[], T], only: bool) -> T:
        state = tensors_of(module)
        try:
            versions = [tensor._version for tensor in state], [tensor.data_ptr() for tensor in state]
        except RuntimeError:
            # Tensors made in inference mode count no changes, so what was computed from them is not cached.
            if any(tensor.is_inference() for tensor in state):
                return build()
            raise
        entry = self._entries.get(module, {}).get(key)
        # Another tensor may come to lie where one that is gone lay, so they have to be the same objects as well.
        if entry is not None and _is_of(entry, versions, state):
            return entry.value
        entry = _Entry(versions, [ref(tensor) for tensor in state], build())
        # Looked up again: `build` may have cached something for another key. What is of older weights is of no use.
        others = {} if only else self._entries.get(module, {})
        kept = {name: each for name, each in others.items() if _is_of(each, versions, state)}
        self._entries[module] = {**kept, key: entry}
        return entry.value


def _is_of(entry: _Entry[Any], versions: tuple[list[int], list[int]], state: list[Tensor]) -> bool:
    """Returns whether an entry is of these weights, the same objects with the same content."""
    same = entry.versions == versions and len(entry.tensors) == len(state)
    return same and all(map(operator.is_, [old() for old in entry.tensors], state))
