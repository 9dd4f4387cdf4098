"""What every model that `create_model` gives has to keep, whatever its architecture.

A test module imports the fixtures, and a class in it inherits from `ModelContract` and is parametrised over `name`;
`test_contract.py` does so with all registered names.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import SMALL_ENCODERS, pictures, registered_model
from torch import Tensor

import diffmiczoo
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.settings import PLAIN, using

#: The layers whose shape follows the number of classes.
CLASS_LAYERS = ("dcg.saliency_conv", "dcg.local_classifier", "unet.block1.conv", "unet.out_conv")


#: Fields that change numbers, and no operation of the networks.
NOT_IN_THE_GRAPH = set(
    "num_classes class_names task ordinal thresholds label_adjustment temperature prior_weight mean std num_samples "
    "clip_sample tta".split()
)


@functools.cache
def graph_of(name: str, backbones: bool) -> dict[str, Any]:
    """Returns what shapes the operations of a registered model: all, or but for its backbones and the rule of ROIs."""
    with torch.device("meta"):
        fields = registered_model(name).config.to_dict()
    return {
        key: value
        for key, value in fields.items()
        if key not in NOT_IN_THE_GRAPH and (backbones or not key.endswith(("_encoder", "_out_index", "roi_saliency")))
    }


def skip_what_another_shows(name: str, backbones: bool) -> None:
    """Skips a test of a graph that an earlier name has too."""
    first = next(other for other in diffmiczoo.list_models() if graph_of(other, backbones) == graph_of(name, backbones))
    if first != name:
        pytest.skip(f"the operations are those of {first}")


def assert_export_gives_the_scores(model: DiffMICv2, images: Tensor) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images,), dynamic_shapes={"images": {0: batch}}, strict=False)
    for given in (images, images[:1], torch.cat([images, -images])):
        torch.testing.assert_close(program.module()(given), model(given), rtol=1e-5, atol=1e-5)


def assert_same_tensors(one: DiffMICv2, other: DiffMICv2) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name
        assert tensor.data_ptr() != theirs[name].data_ptr() or tensor.numel() == 0, f"{name} is shared"


@pytest.fixture(scope="module")
def model(name: str) -> DiffMICv2:
    """A model of that name, in eval mode and said to be trained; nobody may change it."""
    model = registered_model(name).eval()
    model.trained = True
    return model


@pytest.fixture
def changeable(model: DiffMICv2) -> DiffMICv2:
    """A copy of the model."""
    return copy.deepcopy(model)


@pytest.fixture(scope="module")
def images(model: DiffMICv2) -> Tensor:
    size = model.config.image_size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def scores(model: DiffMICv2, images: Tensor) -> Tensor:
    """What the model gives for the images."""
    with torch.no_grad():
        return model(images)


@pytest.fixture(scope="module")
def targets(model: DiffMICv2) -> Tensor:
    labels = torch.tensor([0, 1, 2])
    if model.config.task == "multiclass":
        return labels
    return torch.nn.functional.one_hot(labels, model.config.num_classes).float()


class ModelContract:
    """Tests of one registered name at tiny size."""

    @torch.no_grad()
    def test_shapes(self, model: DiffMICv2, images: Tensor, scores: Tensor) -> None:
        config = model.config
        classes, points, rois, size = config.num_classes, config.num_points, config.num_rois, config.roi_size
        condition = model.condition(images)
        assert condition.global_prior.shape == condition.local_prior.shape == (3, classes)
        assert condition.guidance_map.shape == (3, classes, points, points)
        assert condition.feature_prior.shape == (3, config.latent_dim)
        assert condition.saliency.shape[:2] == (3, classes) and condition.saliency.ndim == 4
        assert condition.rois.shape == (3, rois, 3, size, size)
        assert condition.roi_top_left.shape == (3, rois, 2) and condition.roi_attention.shape == (3, rois)
        y = torch.randn(3, classes, points, points)
        assert model.predict_noise(y, 1, condition).shape == model.sample(condition).shape == y.shape
        assert scores.shape == (3, classes) and bool(torch.isfinite(scores).all())

    @torch.no_grad()
    def test_save_and_load(self, model: DiffMICv2, images: Tensor, scores: Tensor, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        loaded = diffmiczoo.create_model(f"local-dir:{tmp_path}", pretrained=True)
        assert loaded.config == model.config and loaded.trained and not loaded.training
        assert_same_tensors(loaded, model)
        assert torch.equal(loaded(images), scores)

    @torch.no_grad()
    def test_state_dict_round_trip(self, model: DiffMICv2, images: Tensor, scores: Tensor) -> None:
        state = model.state_dict()
        other = DiffMICv2(model.config).eval()
        other.load_state_dict(state, strict=True)
        assert_same_tensors(other, model)
        assert torch.equal(other(images), scores)
        for name in (next(iter(state)), list(state)[-1]):
            with pytest.raises(RuntimeError, match="Missing key"):
                other.load_state_dict({key: tensor for key, tensor in state.items() if key != name}, strict=True)

    @torch.no_grad()
    @pytest.mark.parametrize(
        "way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
    )
    def test_copies(self, model: DiffMICv2, images: Tensor, scores: Tensor, way: Callable) -> None:
        other = way(model)
        assert other.config == model.config and other.trained
        assert_same_tensors(other, model)
        assert torch.equal(other(images), scores)

    def test_predict_does_not_depend_on_batch_or_order(self, changeable: DiffMICv2) -> None:
        given = pictures(4)
        together = changeable.predict(given)
        assert together.probs.shape == (4, changeable.config.num_classes) and len(together.labels) == 4
        for other in (changeable.predict(given, batch_size=1), changeable.predict(given[::-1], batch_size=3)[::-1]):
            torch.testing.assert_close(other.scores, together.scores, rtol=0, atol=1e-5)
            assert torch.equal(other.rois, together.rois)
        torch.testing.assert_close(changeable.predict(given[2]).scores[0], together.scores[2], rtol=0, atol=1e-5)

    def test_reset_classifier(self, changeable: DiffMICv2, model: DiffMICv2, images: Tensor) -> None:
        classes, before = model.config.num_classes + 2, model.state_dict()
        with pytest.warns(UserWarning, match=f"num_classes is now {classes}"):
            changeable.reset_classifier(classes)
        for name, tensor in changeable.state_dict().items():
            same = tensor.shape == before[name].shape and torch.equal(tensor, before[name])
            assert same != name.startswith(CLASS_LAYERS), name
        assert not changeable.trained and changeable.config.num_classes == len(changeable.config.labels) == classes
        assert changeable(images).shape == (3, classes)

    def test_gradients_reach_every_trainable_parameter(
        self, changeable: DiffMICv2, images: Tensor, targets: Tensor
    ) -> None:
        changeable.train()
        trained = {"dcg_loss": {"dcg"}, "training_loss": {"feature_prior", "unet"}}
        for loss, parts in trained.items():
            changeable.zero_grad(set_to_none=True)
            value = getattr(changeable, loss)(images, targets)
            value.backward()
            assert value.ndim == 0 and bool(torch.isfinite(value))
            for path, parameter in changeable.named_parameters():
                if path.split(".")[0] in parts:
                    assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), f"{loss}: {path}"
                else:
                    assert parameter.grad is None, f"{loss}: {path}"

    def test_scores_are_differentiable_in_the_images(self, model: DiffMICv2, images: Tensor) -> None:
        given = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(given).sum(), given)
        assert (gradient.flatten(1).abs().sum(1) > 0).all()

    @torch.no_grad()
    def test_moves_to_another_type_and_back(self, changeable: DiffMICv2, images: Tensor, scores: Tensor) -> None:
        double = changeable.to(torch.float64)(images.double())
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), scores, rtol=1e-3, atol=1e-3)
        assert torch.equal(changeable.to(torch.float32)(images), scores)

    @torch.no_grad()
    def test_moves_to_another_device(self, changeable: DiffMICv2, images: Tensor) -> None:
        condition = changeable.to("meta").condition(images.to("meta"))
        assert condition.guidance_map.is_meta and condition.feature_prior.is_meta
        assert changeable.predict_noise(condition.guidance_map, 1, condition).is_meta

    @torch.no_grad()
    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_cuda_gives_the_cpus_scores(self, changeable: DiffMICv2, images: Tensor, scores: Tensor) -> None:
        with using(PLAIN, torch.device("cuda")):
            found = changeable.to("cuda")(images.cuda()).cpu()
        torch.testing.assert_close(found, scores, rtol=1e-3, atol=1e-3)

    @torch.no_grad()
    def test_the_exported_program_gives_the_models_scores(self, name: str, images: Tensor) -> None:
        skip_what_another_shows(name, backbones=False)
        assert_export_gives_the_scores(registered_model(name, **SMALL_ENCODERS).eval(), images)

    @torch.no_grad()
    @pytest.mark.release
    def test_every_backbone_can_be_exported(self, name: str, model: DiffMICv2, images: Tensor) -> None:
        skip_what_another_shows(name, backbones=True)
        assert_export_gives_the_scores(model, images)
