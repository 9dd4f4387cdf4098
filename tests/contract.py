"""What every model that `create_model` gives has to keep, whatever its architecture.

A test class inherits from `ModelContract` and is parametrised over `name`; `test_contract.py` does so with all
registered names.
"""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import pictures, registered_model
from torch import Tensor

import diffmiczoo
from diffmiczoo.model import DiffMICv2

#: The layers whose shape follows the number of classes.
CLASS_LAYERS = ("dcg.saliency_conv", "dcg.local_classifier", "unet.block1.conv", "unet.out_conv")


@functools.lru_cache(maxsize=1)
def _built(name: str) -> DiffMICv2:
    return registered_model(name).eval()


#: Fields that change numbers or names, and no operation.
NOT_IN_THE_GRAPH = {"num_classes", "class_names", "ordinal", "thresholds", "temperature", "prior_weight"}


@functools.cache
def graph_of(name: str) -> dict[str, Any]:
    """Returns what shapes the operations of a registered model."""
    with torch.device("meta"):
        fields = registered_model(name).config.to_dict()
    return {key: value for key, value in fields.items() if key not in NOT_IN_THE_GRAPH}


def assert_same_tensors(one: DiffMICv2, other: DiffMICv2) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name
        assert tensor.data_ptr() != theirs[name].data_ptr() or tensor.numel() == 0, f"{name} is shared"


class ModelContract:
    """Tests of one registered name at tiny size."""

    @pytest.fixture
    def model(self, name: str) -> DiffMICv2:
        """A fresh model of that name, in eval mode and said to be trained."""
        model = copy.deepcopy(_built(name))
        model.trained = True
        return model

    @pytest.fixture
    def images(self, model: DiffMICv2) -> Tensor:
        size = model.config.image_size
        return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def targets(self, model: DiffMICv2) -> Tensor:
        labels = torch.tensor([0, 1, 2])
        if model.config.task == "multiclass":
            return labels
        return torch.nn.functional.one_hot(labels, model.config.num_classes).float()

    @torch.no_grad()
    def test_shapes(self, model: DiffMICv2, images: Tensor) -> None:
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
        scores = model(images)
        assert scores.shape == (3, classes) and bool(torch.isfinite(scores).all())

    @torch.no_grad()
    def test_save_and_load(self, model: DiffMICv2, images: Tensor, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        loaded = diffmiczoo.create_model(f"local-dir:{tmp_path}", pretrained=True)
        assert loaded.config == model.config and loaded.trained and not loaded.training
        assert_same_tensors(loaded, model)
        assert torch.equal(loaded(images), model(images))

    @torch.no_grad()
    def test_state_dict_round_trip(self, model: DiffMICv2, images: Tensor) -> None:
        other = DiffMICv2(model.config).eval()
        assert not torch.equal(other(images), model(images))
        other.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(other(images), model(images))
        short = dict(list(model.state_dict().items())[1:])
        with pytest.raises(RuntimeError, match="Missing key"):
            other.load_state_dict(short, strict=True)

    @torch.no_grad()
    @pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                             ids=["deepcopy", "pickle"])  # fmt: skip
    def test_copies(self, model: DiffMICv2, images: Tensor, way) -> None:
        before = model(images)
        other = way(model)
        assert other.config == model.config and other.trained
        assert_same_tensors(other, model)
        assert torch.equal(other(images), before)
        for tensor in other.state_dict().values():
            tensor.zero_()
        assert torch.equal(model(images), before), "the copy shares memory"

    def test_predict_does_not_depend_on_batch_or_order(self, model: DiffMICv2) -> None:
        given = pictures(4)
        together = model.predict(given)
        assert together.probs.shape == (4, model.config.num_classes) and together.labels == model.predict(given).labels
        for batch_size in (1, 3):
            other = model.predict(given, batch_size=batch_size)
            torch.testing.assert_close(other.scores, together.scores, rtol=0, atol=1e-5)
            assert torch.equal(other.rois, together.rois)
        torch.testing.assert_close(model.predict(given[::-1]).scores.flip(0), together.scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.predict(given[2]).scores[0], together.scores[2], rtol=0, atol=1e-5)

    def test_reset_classifier(self, model: DiffMICv2, images: Tensor) -> None:
        classes = model.config.num_classes + 2
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.warns(UserWarning, match=f"num_classes is now {classes}"):
            model.reset_classifier(classes)
        for name, tensor in model.state_dict().items():
            same = tensor.shape == before[name].shape and torch.equal(tensor, before[name])
            assert same != name.startswith(CLASS_LAYERS), name
        assert not model.trained and model.config.num_classes == len(model.config.labels) == classes
        assert model(images).shape == (3, classes)

    def test_gradients_reach_every_trainable_parameter(self, model: DiffMICv2, images: Tensor, targets: Tensor) -> None:
        model.train()
        trained = {"dcg_loss": {"dcg"}, "training_loss": {"feature_prior", "unet"}}
        for loss, parts in trained.items():
            model.zero_grad(set_to_none=True)
            value = getattr(model, loss)(images, targets)
            value.backward()
            assert value.ndim == 0 and bool(torch.isfinite(value))
            for path, parameter in model.named_parameters():
                if path.split(".")[0] in parts:
                    assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), f"{loss}: {path}"
                else:
                    assert parameter.grad is None, f"{loss}: {path}"

    def test_scores_are_differentiable_in_the_images(self, model: DiffMICv2, images: Tensor) -> None:
        model(images.requires_grad_()).sum().backward()
        assert images.grad is not None and (images.grad.flatten(1).abs().sum(1) > 0).all()

    @torch.no_grad()
    def test_moves_to_another_type_and_back(self, model: DiffMICv2, images: Tensor) -> None:
        before = model(images)
        double = model.to(torch.float64)(images.double())
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), before, rtol=1e-3, atol=1e-3)
        assert torch.equal(model.to(torch.float32)(images), before)

    @torch.no_grad()
    def test_moves_to_another_device(self, model: DiffMICv2, images: Tensor) -> None:
        before = model.sample(model.condition(images)).shape
        elsewhere = copy.deepcopy(model).to("meta")
        found = elsewhere.sample(elsewhere.condition(images.to("meta")))
        assert found.is_meta and found.shape == before

    @torch.no_grad()
    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_cuda_gives_the_cpus_scores(self, model: DiffMICv2, images: Tensor) -> None:
        before = model(images)
        torch.testing.assert_close(model.to("cuda")(images.cuda()).cpu(), before, rtol=1e-3, atol=1e-3)

    def test_the_exported_program_gives_the_models_scores(self, name: str, model: DiffMICv2, images: Tensor) -> None:
        first = next(other for other in diffmiczoo.list_models() if graph_of(other) == graph_of(name))
        if first != name:
            pytest.skip(f"the operations are those of {first}, which is exported")
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(model, (images,), dynamic_shapes={"images": {0: batch}}, strict=False)
        with torch.no_grad():
            for given in (images, images[:1], torch.cat([images, -images])):
                torch.testing.assert_close(program.module()(given), model(given), rtol=1e-5, atol=1e-5)
