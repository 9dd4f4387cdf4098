"""The folded network gives what the plain one does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from factories import small_model

from diffmiczoo.nn.unet_folded import FoldedUNet, softplus_
from diffmiczoo.runtime.settings import FAST, using


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_of_the_folded_unet_is_pytorchs(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-120, 120, 9_001), torch.tensor([-3e38, 3e38, 1e-30, 0.0, torch.inf, -torch.inf])])
    found = softplus_(x.to(dtype, copy=True))
    torch.testing.assert_close(found.double(), F.softplus(x.double(), threshold=200), rtol=1e-6, atol=1e-6)
    assert found.dtype == dtype and softplus_(torch.tensor(torch.nan)).isnan()


FOLDED = [{}, {"skip": True}, {"guidance": "none"}, {"sampler": "ancestral"}, {"process_mean": "prior"}]


STARTS = [{}, {"shared_noise": True}, {"init": "interpolated"}, {"init": "guided", "shared_noise": True}]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("fields", FOLDED)
def test_folded_sampling_equals_the_plain_network(fields: dict, start: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    if fields.get("guidance") == "none" and start.get("init") == "guided":
        pytest.skip("nothing to start around")
    model = small_model(**fields, **start, num_points=4, num_samples=2, clip_sample=False)
    with torch.no_grad():
        for norm in (model.unet.block1.norm, model.unet.block2.norm, model.unet.block3.norm):
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.normal_(), norm.bias.normal_()
        images = torch.randn(3, 3, 64, 64)
        condition = model.condition(images)
        rows = []
        call = FoldedUNet.__call__
        monkeypatch.setattr(
            FoldedUNet, "__call__", lambda self, y, *rest: (rows.append(y.shape), call(self, y, *rest))[1]
        )
        with using(FAST, images.device):
            folded, scores = model.sample(condition), model(images)
        bands = start and fields.get("sampler") != "ancestral"
        assert {shape[2:].numel() for shape in rows} == {4 if bands else 16}
        plain = model.sample(condition)
    torch.testing.assert_close(folded, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores, plain.mean((2, 3)), rtol=1e-5, atol=1e-5)


def test_a_given_start_is_computed_at_every_point() -> None:
    model = small_model(shared_noise=True, num_points=4)
    with torch.no_grad():
        condition = model.condition(torch.randn(1, 3, 64, 64))
        y_0 = model.sample(condition, y_T=torch.randn(1, 3, 4, 4))
    assert len(y_0[0, 0].unique()) > 4


@pytest.mark.parametrize("fields", [{"kernel_size": 3, "shared_noise": True}, {"kernel_size": 3}])
def test_points_that_see_each_other_are_not_folded(fields: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(**fields)
    monkeypatch.setattr(FoldedUNet, "__init__", lambda *_: pytest.fail("folded"))
    with torch.no_grad(), using(FAST, torch.device("cpu")):
        model(torch.randn(1, 3, 64, 64))
    small_model()(torch.randn(1, 3, 64, 64))  # with gradients


@torch.no_grad()
def test_folded_weights_follow_every_change_of_the_network() -> None:
    model, images = small_model(), torch.randn(2, 3, 64, 64)

    def check() -> None:
        fresh = small_model()
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(model(images), fresh(images))

    check()
    before = model(images)
    model.unet.block2.conv.weight.mul_(1.5)
    check()
    assert not torch.equal(model(images), before)
    model.unet.block1.norm.running_mean.add_(1.0)
    check()
    model.load_state_dict(small_model().state_dict(), assign=True)
    check()
    model.unet.out_conv.weight.data = torch.randn_like(model.unet.out_conv.weight)
    check()
    with torch.no_grad(), pytest.warns(UserWarning, match="num_classes is now 3"):
        model.reset_classifier(3)
    check()
    assert FoldedUNet not in {type(value) for value in vars(model.unet).values()}
