"""What is computed from a module's weights is kept until they change."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn

from diffmiczoo.runtime.module_walk import tensors_of

T = TypeVar("T")


@dataclass(frozen=True)
class _Entry(Generic[T]):
    versions: tuple[tuple[int, int], ...]
    tensors: list[ref[Tensor]]
    value: T


class KeptByWeights(Generic[T]):
    """A cache beside modules, so that it is no part of their state, of their copies or of what is saved."""

    def __init__(self) -> None:
        self._entries: WeakKeyDictionary[nn.Module, dict[Hashable, _Entry[T]]] = WeakKeyDictionary()

    def get(self, module: nn.Module, key: Hashable, build: Callable[[], T], *, only: bool = False) -> T:
        """Returns what `build` gave for the key and the module's present weights.

        Args:
            module: its parameters and buffers are watched.
            key: what else the value depends on.
            build: called where nothing is kept or a weight has changed.
            only: keep nothing for other keys.
        """
        state = tensors_of(module)
        # Tensors made in inference mode count no changes, so what was computed from them is not kept.
        if any(tensor.is_inference() for tensor in state):
            return build()
        versions = tuple((tensor.data_ptr(), tensor._version) for tensor in state)
        entry = self._entries.get(module, {}).get(key)
        # Another tensor may come to lie where one that is gone lay, so they have to be the same objects as well.
        if entry is not None and entry.versions == versions and _same(entry.tensors, state):
            return entry.value
        entry = _Entry(versions, [ref(tensor) for tensor in state], build())
        # Asked for anew: `build` may have kept something for another key.
        self._entries[module] = {key: entry} if only else {**self._entries.get(module, {}), key: entry}
        return entry.value


def _same(kept: list[ref[Tensor]], state: list[Tensor]) -> bool:
    return all(old() is new for old, new in zip(kept, state, strict=True))
