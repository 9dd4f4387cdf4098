"""Every registered model at full size without memory, and the switches of the config at tiny size."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from contract import CLASS_LAYERS
from factories import pictures, registered_model, small_model

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo.architectures import architectures
from diffmiczoo.zoo.complexity import count_parameters
from diffmiczoo.zoo.factory import get_config

ARCHITECTURES = sorted(architectures())


def sizes(config: DiffMICConfig) -> dict[str, Any]:
    return {**config.to_dict(), "class_names": None, "temperature": None, "thresholds": None}


#: One name for each size among all registered ones.
FULL_SIZES = {json.dumps(sizes(get_config(name))): name for name in reversed(diffmiczoo.list_models())}


@pytest.mark.parametrize("name", sorted(FULL_SIZES.values()))
def test_shapes_at_full_size(name: str) -> None:
    config = get_config(name)
    with torch.device("meta"):
        model = DiffMICv2(config).eval()
        images = torch.empty(2, 3, config.input_size, config.input_size)
    condition = model.condition(images)
    classes, points, rois, size = config.num_classes, config.num_points, config.num_rois, config.roi_size
    assert condition.guidance_map.shape == (2, classes, points, points)
    assert condition.feature_prior.shape == (2, config.latent_dim)
    assert condition.rois.shape == (2, rois, 3, size, size)
    assert condition.roi_attention.shape == (2, rois)
    assert model.sample(condition, steps=2).shape == (2, classes, points, points)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(config)["total"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_multilabel(name: str) -> None:
    model = registered_model(name, task="multilabel", num_classes=4).train()
    targets = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]])
    assert bool(torch.isfinite(model.dcg_loss(torch.randn(2, 3, 64, 64), targets)))
    assert bool(torch.isfinite(model.training_loss(torch.randn(2, 3, 64, 64), targets)))
    model.trained = True
    prediction = model.predict(pictures(2))
    assert prediction.probs.shape == (2, 4) and all(isinstance(labels, list) for labels in prediction.labels)


SWITCHES = [
    {"num_points": 1},
    {"num_rois": 1},
    {"image_size": 96},
    {"image_size": 75},
    {"latent_dim": 1},
    {"kernel_size": 3},
    {"skip": True},
    {"prior_activation": "softmax"},
    {"prior_activation": "sigmoid"},
    {"init": "guided"},
    {"init": "interpolated"},
    {"shared_noise": True},
    {"clip_sample": False},
    {"loss": "focal"},
    {"loss": "focal", "task": "multilabel"},
    {"roi_channels": "first"},
    {"saliency_top": 0.3},
    {"feature_weighting": "none"},
    {"feature_norm": "none"},
    {"num_classes": 2},
    {"raw_encoder": "efficientsam_ti"},
    {"raw_encoder": "test_vit", "roi_encoder": "test_convnext", "dcg_encoder": "test_efficientnet"},
]


@pytest.mark.parametrize("fields", SWITCHES, ids=lambda fields: ",".join(f"{k}={v}" for k, v in fields.items()))
def test_every_switch_trains_and_predicts(fields: dict) -> None:
    model = small_model(**fields).train()
    size, classes = model.config.image_size, model.config.num_classes
    targets = torch.arange(4) % classes
    targets = torch.eye(classes)[targets] if model.config.task == "multilabel" else targets
    images = torch.randn(4, 3, size, size)
    (model.dcg_loss(images, targets) + model.training_loss(images, targets)).backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in model.parameters())
    model.trained = True
    assert bool(torch.isfinite(model.predict(pictures(2)).probs).all())


def test_the_switches_change_the_answer() -> None:
    images = torch.randn(2, 3, 64, 64)
    plain = small_model()
    with torch.no_grad():
        reference = plain(images)
        for fields in SWITCHES:
            if fields.keys() <= {"prior_activation", "init", "shared_noise", "roi_channels", "skip"}:
                other = small_model(**fields)
                other.load_state_dict(plain.state_dict())
                assert not torch.allclose(other(images), reference, atol=1e-6), fields
    focal = small_model(loss="focal")
    focal.load_state_dict(plain.state_dict())
    losses = [
        model.training_loss(images, torch.tensor([0, 1]), torch.Generator().manual_seed(0)).item()
        for model in (plain, focal)
    ]
    assert losses[1] > losses[0]


def test_wrong_tensors_are_named() -> None:
    model = small_model()
    for images in (torch.randn(2, 3, 32, 32), torch.randn(3, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"expected normalised float images of shape \(B, 3, 64, 64\)"):
            model.condition(images)
    for targets in (torch.zeros(2, 2), torch.zeros(2, 3, 1)):
        with pytest.raises(ValueError, match="targets of a multiclass model"):
            model.training_loss(torch.randn(2, 3, 64, 64), targets)


def test_reset_classifier_names_the_layers_that_are_new_and_forgets_the_calibration() -> None:
    model = small_model(trained=True)
    model.config = model.config.replace(temperature=0.3)
    with pytest.warns(UserWarning, match="num_classes is now 5") as caught:
        model.reset_classifier(5, ["a", "b", "c", "d", "e"])
    assert len(caught) == 1 and all(name in str(caught[0].message) for name in CLASS_LAYERS)
    assert model.config.temperature is None and model.config.labels == tuple("abcde")
    with pytest.raises(ValueError, match="class_names has 2 names"):
        model.reset_classifier(3, ["a", "b"])


def test_dtype_device_and_memory_format() -> None:
    model = small_model().to(memory_format=torch.channels_last)
    model.trained = True
    reference = model.predict(pictures(2)).probs
    double = model.to(torch.float64).predict(pictures(2))
    assert double.probs.dtype == torch.float32
    torch.testing.assert_close(double.probs, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.release
@torch.no_grad()
def test_compiled_it_gives_the_same_scores() -> None:
    """As it is recorded; what a code generator makes of it needs a C++ compiler and minutes."""
    model, images = small_model(sampling_steps=2), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("latent_dim", 16), ("num_rois", 3), ("num_classes", 4), ("predictor", "dcg"), ("guidance", "none")],
)
def test_fields_that_shape_weights_cannot_be_changed(field: str, value: object) -> None:
    model = small_model()
    before = model.config
    with pytest.raises(ValueError, match=f"{field}: shapes the weights and cannot be changed any more"):
        model.config = before.replace(**{field: value})
    assert model.config == before
    model.config = before.replace(num_samples=3, sampler="ancestral", init="guided", roi_channels="first")
    assert model.default_noise.shape[0] == 3 and model.default_step_noise.shape[:2] == (2, 3)


def test_a_given_start_draws_nothing_and_says_how_many_runs() -> None:
    model = small_model()
    condition = model.condition(torch.randn(2, 3, 64, 64))
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    start = torch.randn(4, 1, *condition.guidance_map.shape[1:])
    model.sample(condition, y_T=start, generator=generator)
    assert torch.equal(generator.get_state(), state)
    with pytest.raises(ValueError, match="num_samples=2 does not go with the 4 starts"):
        model.sample(condition, y_T=start, num_samples=2)
