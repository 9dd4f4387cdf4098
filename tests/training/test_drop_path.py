"""Blocks of encoders are skipped while they are trained, and nothing of it stays."""

from __future__ import annotations

import pytest
import timm
import torch
from factories import tiny_model
from timm.layers import DropPath

from diffmiczoo.nn.encoders import create_encoder
from diffmiczoo.nn.plain import PlainTrunk
from diffmiczoo.training.drop_path import check_drop_path, dropped_paths


def _rates(encoder: torch.nn.Module) -> list[float]:
    return [module.drop_prob for module in encoder.modules() if isinstance(module, DropPath)]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"])
def test_blocks_get_rising_rates_and_their_names_stay(name: str) -> None:
    encoder = create_encoder(name, 64).train()
    for norm in (each for each in encoder.modules() if isinstance(each, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(norm.weight)  # timm begins with blocks that add nothing
    images, keys = torch.randn(4, 3, 64, 64), list(encoder.state_dict())
    modules = [type(module) for module in encoder.modules()]
    with torch.no_grad():
        before = encoder.eval()(images)
        check_drop_path([encoder], 0.5)
        with dropped_paths([encoder], 0.5):
            rates = _rates(encoder)
            assert rates[0] == 0 and rates[-1] == pytest.approx(0.5) and rates == sorted(rates)
            assert list(encoder.state_dict()) == keys and torch.equal(encoder(images), before)
            encoder.train()
            torch.manual_seed(0)
            first = encoder(images)
            torch.manual_seed(1)
            assert not torch.equal(encoder(images), first)
    assert [type(module) for module in encoder.modules()] == modules
    assert torch.equal(encoder.eval()(images), encoder.eval()(images))


def test_rates_are_those_of_timm() -> None:
    encoder = create_encoder("test_resnet", 64)
    with dropped_paths([encoder], 0.3):
        own = timm.create_model("test_resnet", drop_path_rate=0.3)
        assert [rate for rate in _rates(encoder) if rate] == pytest.approx(_rates(own))


def test_a_rate_of_nothing_changes_nothing_and_encoders_without_such_blocks_are_named() -> None:
    model = tiny_model()
    with dropped_paths(model.encoders(), 0.0):
        assert not _rates(model)
    with torch.device("meta"):
        vgg = create_encoder("vgg11", 64)
        plain = PlainTrunk(timm.create_model("vgg11", num_classes=0), 512)
    for encoder in (vgg, plain):
        check_drop_path([encoder], 0.0)
        with pytest.raises(ValueError, match=r"timm's VGG has none that can be skipped; set drop_path=0"):
            check_drop_path([encoder], 0.1)


def test_without_a_rate_no_block_is_skipped_that_timm_would_skip_by_itself() -> None:
    encoder, images = timm.create_model("test_convnext", drop_path_rate=0.9).train(), torch.randn(2, 3, 64, 64)
    with torch.no_grad(), dropped_paths([encoder], 0.0):
        assert torch.equal(encoder(images), encoder(images))
    assert max(_rates(encoder)) == pytest.approx(0.9)
