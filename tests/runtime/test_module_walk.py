"""What a module consists of, found quickly."""

from __future__ import annotations

import torch

from diffmiczoo.runtime.module_walk import modules_of, tensors_of


def test_a_walk_finds_what_pytorch_finds() -> None:
    shared = torch.nn.Linear(3, 3)
    module = torch.nn.Sequential(shared, torch.nn.BatchNorm1d(3), torch.nn.Sequential(shared, torch.nn.ReLU()))
    module.register_module("absent", None)
    module.register_buffer("none", None)
    assert set(modules_of(module)) == set(module.modules()) and len(modules_of(module)) == 5
    tensors = tensors_of(module)
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    assert len(tensors) == 7 and tensors_of(module)[0] is tensors[0]
