"""Which precisions a device has."""

from __future__ import annotations

import warnings

import pytest
import torch

from diffmiczoo.runtime.precision import check_precision


@pytest.mark.parametrize(("capability", "is_slow"), [((7, 5), True), ((8, 0), False), ((9, 0), False)])
def test_bf16_on_gpus_without_units_for_it_is_said_to_be_slow(
    capability: tuple[int, int], is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for precision in ("fp32", "fp16"):
            check_precision(precision, torch.device("cuda"))
        assert not said
        check_precision("bf16", torch.device("cuda"))
        check_precision("bf16", torch.device("cpu"))
    assert [str(each.message) for each in said] == is_slow * [
        "precision='bf16' is slow on this GPU, which has no units for it; 'fp16' is fast there"
    ]
