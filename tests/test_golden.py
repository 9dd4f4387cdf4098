"""Our model against the reference values that the method's description comes with."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import Condition, DiffMICv2

RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}

#: Prefix of a released checkpoint's key → prefix of ours.
PREFIXES = {
    "aux_model.ds_net.f.": "dcg.global_encoder.model.model.",
    "aux_model.left_postprocess_net.gn_conv_last.": "dcg.saliency_conv.",
    "aux_model.dn_resnet.f.": "dcg.local_encoder.model.model.",
    "aux_model.mil_attn_": "dcg.attention.",
    "aux_model.classifier_linear.": "dcg.local_classifier.",
    "model.cond_weight": "feature_prior.Q",
    "model.encoder_x.f.": "feature_prior.raw_encoder.model.",
    "model.encoder_x.g.": "feature_prior.raw_proj.",
    "model.norm.": "feature_prior.raw_norm.",
    "model.encoder_x_l.f.": "feature_prior.roi_encoder.model.model.",
    "model.encoder_x_l.g.": "feature_prior.roi_proj.",
    "model.norm_l.": "feature_prior.roi_norm.",
    "model.lin4.": "unet.out_conv.",
    **{f"model.lin{n}.lin.": f"unet.block{n}.conv." for n in (1, 2, 3)},
    **{f"model.lin{n}.embed.": f"unet.block{n}.gamma." for n in (1, 2, 3)},
    **{f"model.unetnorm{n}.": f"unet.block{n}.norm." for n in (1, 2, 3)},
}


def released_to_ours(key: str, tensor: Tensor) -> tuple[str, Tensor]:
    key = re.sub(r"(ds_net|dn_resnet|encoder_x_l)\.f\.(\d)\.", lambda m: f"{m[1]}.f.{RESNET_CHILDREN[m[2]]}.", key)
    prefix = next(prefix for prefix in PREFIXES if key.startswith(prefix))
    name = PREFIXES[prefix] + key.removeprefix(prefix)
    if name.endswith("pos_embed"):
        return name, tensor[:, 1:]
    if name == "feature_prior.Q":
        return name, tensor[0]
    return name, tensor[:, :, 0, 0] if name == "feature_prior.raw_proj.weight" else tensor


def load_procedural(folder: Path, keys: str) -> dict[str, Tensor]:
    spec = importlib.util.spec_from_file_location("procedural_weights", folder / "procedural_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tensors = module.procedural_state_dict(folder / f"keys_{keys}.json", 0)
    used = {key: torch.from_numpy(np.asarray(value)) for key, value in tensors.items() if "fusion_dnn" not in key}
    return dict(released_to_ours(key, tensor) for key, tensor in used.items())


@pytest.fixture(scope="module", params=["c7_h96_k6", "c5_h64_k4"])
def reference(request: pytest.FixtureRequest, shared: Path) -> tuple[DiffMICv2, Condition, dict[str, Tensor]]:
    folder = shared / "golden"
    classes, hidden, rois = (int(part[1:]) for part in request.param.split("_"))
    golden = load_file(folder / f"{request.param}_s0.safetensors")
    config = DiffMICConfig(
        num_classes=classes,
        latent_dim=hidden,
        num_rois=rois,
        num_points=rois,
        roi_size=golden["rois"].shape[-1],
        roi_channels="first",
        init="interpolated",
        loss="focal",
    )
    model = DiffMICv2(config).eval()
    model.load_state_dict(load_procedural(folder, request.param))
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
        "y_fusion": condition.dcg_scores,
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
