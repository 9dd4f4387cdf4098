"""Our model against the reference values that the method's description comes with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import released_checkpoint
from safetensors.torch import load_file
from torch import Tensor

from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.condition import Condition
from diffmiczoo.zoo.convert import convert_official


@pytest.fixture(scope="module", params=["c7_h96_k6", "c5_h64_k4"])
def reference(request: pytest.FixtureRequest, shared: Path) -> tuple[DiffMICv2, Condition, dict[str, Tensor]]:
    folder = shared / "golden"
    golden = load_file(folder / f"{request.param}_s0.safetensors")
    checkpoint = released_checkpoint(folder, request.param)
    model = convert_official(checkpoint, roi_size=golden["rois"].shape[-1])
    classes, hidden, rois = (int(part[1:]) for part in request.param.split("_"))
    assert (model.config.num_classes, model.config.latent_dim, model.config.num_rois) == (classes, hidden, rois)
    with torch.no_grad():
        return model, model.condition(golden["images"]), golden


def test_condition(reference) -> None:
    _, condition, golden = reference
    assert torch.equal(condition.roi_top_left, golden["roi_top_left"].long())
    pairs = {
        "saliency": condition.saliency,
        "roi_attention": condition.roi_attention,
        "y_global": condition.global_prior,
        "y_local": condition.local_prior,
        "guidance_map": condition.guidance_map,
        "feature_prior": condition.feature_prior,
        "y_fusion": condition.dcg_logits,
    }
    for name, ours in pairs.items():
        torch.testing.assert_close(ours, golden[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    for channel in range(3):
        assert torch.equal(condition.rois[:, :, channel], golden["rois"])


@torch.no_grad()
def test_noise(reference) -> None:
    model, condition, golden = reference
    for t in (0, 100, 500, 900):
        ours = model.predict_noise(golden["y_T"], t, condition)
        torch.testing.assert_close(ours, golden[f"eps_t{t}"], rtol=0, atol=1e-4)
    ours = model.predict_noise(golden["y_T"], golden["t_hetero"].long(), condition)
    torch.testing.assert_close(ours, golden["eps_hetero"], rtol=0, atol=1e-4)


def test_forward_process(reference) -> None:
    model, _, golden = reference
    y_0 = torch.eye(model.config.num_classes)[golden["label"].long()][:, :, None, None].expand_as(golden["noise"])
    ours = model.schedule.add_noise(y_0, golden["noise"], golden["t_hetero"].long())
    torch.testing.assert_close(ours, golden["y_t_hetero"], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 5, 10, 50])
def test_sampling(reference, steps: int) -> None:
    model, condition, golden = reference
    assert model.schedule.timesteps(steps) == golden[f"timesteps_{steps}"].tolist()
    y_0 = model.sample(condition, steps, y_T=golden["y_T"])
    torch.testing.assert_close(y_0, golden[f"y0_map_steps{steps}"], rtol=0, atol=1e-4)
    torch.testing.assert_close(y_0.mean((2, 3)), golden[f"y0_steps{steps}"], rtol=0, atol=1e-4)
