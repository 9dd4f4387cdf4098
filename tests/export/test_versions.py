"""PyTorch that cannot write the files is named before anything is computed."""

from __future__ import annotations

import pytest
import torch
from factories import small_model

from diffmiczoo.export.formats import check_torch, has_new_torch


@pytest.mark.parametrize("version", ["2.6.0+cu124", "2.9.1", "1.13.1"])
def test_an_old_pytorch_is_named(monkeypatch, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ValueError, match=rf"need PyTorch 2\.10 or later, this is {version[:4]}"):
        check_torch()


@pytest.mark.parametrize("version", ["2.10.0", "2.14.1+cu130", "3.0.0a0+git"])
def test_newer_ones_pass(monkeypatch, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert has_new_torch()
    check_torch()


def test_it_is_named_before_anything_is_computed(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    model = small_model(trained=True)
    with pytest.raises(ValueError, match=r"need PyTorch 2\.10 or later"):
        model.export(tmp_path / "a.onnx", verify=tmp_path / "absent")
