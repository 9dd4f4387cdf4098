"""torch.compile for the length of a run."""

from __future__ import annotations

import torch

from diffmiczoo.runtime.compiled import CompiledModules


def test_compiling_leaves_a_forward_that_somebody_has_set() -> None:
    module, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    module.forward = own = lambda x: x + 1
    compiled = CompiledModules([module, other])
    with compiled.active():
        assert module.forward is not own and "forward" in vars(other)
    assert module.forward is own and "forward" not in vars(other)
