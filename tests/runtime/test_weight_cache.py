"""What is computed from weights is used again while none of them changes, and not once longer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffmiczoo.runtime.weight_cache import WeightCache


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), nn.Linear(3, 1, bias=False))


@pytest.fixture
def ask() -> Callable[[nn.Module], int]:
    """Returns how often something was built so far."""
    cache: WeightCache[int] = WeightCache()
    built: list[int] = []

    def build() -> int:
        built.append(1)
        return len(built)

    return lambda module: cache.get(module, "key", build)


def _in_place(module: nn.Sequential) -> None:
    with torch.no_grad():
        module[0].weight.mul_(2)


def _data(module: nn.Sequential) -> None:
    module[0].weight.data = torch.ones(3, 2)


def _buffer(module: nn.Sequential) -> None:
    module[1][0].running_mean.add_(1)


def _parameter(module: nn.Sequential) -> None:
    module[2].weight = nn.Parameter(torch.ones(1, 3))


def _another_layer(module: nn.Sequential) -> None:
    module[1][1] = nn.PReLU()


def _one_layer_less(module: nn.Sequential) -> None:
    del module[2]


def _dictionary(module: nn.Sequential) -> None:
    module[0]._parameters = dict(module[0]._parameters, weight=nn.Parameter(torch.ones(3, 2)))


def test_what_is_of_older_weights_is_dropped() -> None:
    cache: WeightCache[list[int]] = WeightCache()
    module = network()
    old = [cache.get(module, key, lambda: [0]) for key in ("a", "b")]
    _in_place(module)
    cache.get(module, "a", lambda: [1])
    assert set(cache._entries[module]) == {"a"}
    assert cache.get(module, "b", lambda: [2]) == [2] and old == [[0], [0]]
    assert cache.get(module, "a", lambda: [3]) == [1]
    cache.drop(module)
    assert cache.get(module, "a", lambda: [4]) == [4]


@pytest.mark.parametrize(
    "change", [_in_place, _data, _buffer, _parameter, _another_layer, _one_layer_less, _dictionary]
)
def test_every_change_is_seen(change: Callable[[nn.Sequential], None], ask: Callable[[nn.Module], int]) -> None:
    module = network()
    assert [ask(module), ask(module)] == [1, 1]
    change(module)
    assert [ask(module), ask(module)] == [2, 2]


def test_weights_that_count_no_changes_are_never_used_again(ask: Callable[[nn.Module], int]) -> None:
    with torch.inference_mode():
        module = network()
    assert [ask(module), ask(module)] == [1, 2]


def test_another_error_is_not_taken_for_that(ask: Callable[[nn.Module], int]) -> None:
    class Broken(Tensor):
        def data_ptr(self) -> int:
            raise RuntimeError("no memory")

    module = network()
    module.register_buffer("broken", torch.ones(1).as_subclass(Broken))
    with pytest.raises(RuntimeError, match="no memory"):
        ask(module)
