"""What timm's own functions find on a model, and get out of it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import timm
import timm.data
import torch
from factories import registered_model, small_model, smooth_picture, tiny_model
from PIL import Image
from timm.optim import create_optimizer_v2, param_groups_layer_decay

import diffmiczoo
from diffmiczoo.model import DiffMICv2

PREDICTORS = ({}, {"predictor": "dcg"}, {"predictor": "global"}, {"roi_features": False}, {"latent_dim": 5})


def batch(model: DiffMICv2, count: int = 3) -> torch.Tensor:
    size = model.config.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(200, 200), (150, 260)])
def test_timms_transform_is_the_models(crop_mode: str, interpolation: str, size: tuple[int, int]) -> None:
    mean, std = (0.0, 0.0, 0.0), (0.5, 0.4, 0.3)  # of which timm's border is black
    model = small_model(crop_mode=crop_mode, interpolation=interpolation, mean=mean, std=std)
    for data in (timm.data.resolve_data_config({}, model=model), timm.data.resolve_model_data_config(model)):
        assert data == {
            "input_size": (3, 64, 64),
            "interpolation": interpolation,
            "mean": mean,
            "std": std,
            "crop_pct": 1.0,
            "crop_mode": crop_mode,
        }
    picture = Image.fromarray(smooth_picture(*size))
    own = model.preprocess(picture)[0]
    torch.testing.assert_close(timm.data.create_transform(**data)(picture), own, rtol=0, atol=0.1)
    assert torch.equal(model.transform(picture), own)


def test_shipped_weights_say_what_they_want() -> None:
    model = diffmiczoo.create_model("diffmicv2_ham10000", pretrained=True)
    data = timm.data.resolve_data_config({}, model=model)
    assert data["input_size"] == (3, 192, 192) and data["interpolation"] == "bilinear" and data["mean"][0] == 0.498
    cfg = model.pretrained_cfg
    assert (cfg["architecture"], cfg["tag"], cfg["num_classes"]) == ("diffmicv2_nano", "ham10000", 7)
    assert cfg["label_names"] == model.config.labels and model.default_cfg == cfg


@pytest.mark.parametrize(
    "change", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_what_timm_reads_follows_the_config(change: Callable) -> None:
    model = change(small_model())
    with pytest.warns(UserWarning, match="num_classes is now 5"):
        model.reset_classifier(5)
    model.config = model.config.replace(mean=(0.1, 0.2, 0.3))
    assert model.num_classes == model.pretrained_cfg["num_classes"] == 5
    assert model.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert timm.data.resolve_data_config({}, model=model)["mean"] == (0.1, 0.2, 0.3)


@torch.no_grad()
@pytest.mark.parametrize("fields", PREDICTORS, ids=str)
def test_head_of_features_is_the_model(fields: dict) -> None:
    model = small_model(**fields)
    images = batch(model)
    features = model.forward_features(images)
    assert torch.equal(model.forward_head(features), model(images))
    embedding = model.forward_head(features, pre_logits=True)
    assert embedding.shape == (3, model.num_features) and model.num_features == model.head_hidden_size
    assert features.shape[-1] == model.num_features
    if model.config.predictor == "diffusion":
        assert torch.equal(embedding, model.condition(images).feature_prior)
    with pytest.raises(diffmiczoo.DiffMICError, match="the features alone do not tell the classes"):
        model.forward_head(embedding)


def test_embed_takes_pictures_and_leaves_the_mode() -> None:
    model = small_model().train()
    pictures = [smooth_picture(70, 80), smooth_picture(90, 64)]
    rows = model.embed(pictures, batch_size=1)
    with torch.no_grad():
        expected = model.eval().condition(model.preprocess(pictures)).feature_prior
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
    assert small_model().train().training and rows.device.type == "cpu" and not rows.requires_grad


@pytest.mark.parametrize(("fields", "count"), [({}, 4), ({"predictor": "dcg"}, 2), ({"predictor": "global"}, 1)])
def test_the_classifier_is_all_layers_that_follow_the_classes(fields: dict, count: int) -> None:
    model = small_model(**fields)
    layers = model.get_classifier()
    assert len(layers) == count == len(model.pretrained_cfg["classifier"])
    for layer, path in zip(layers, model.pretrained_cfg["classifier"], strict=True):
        assert layer is model.get_submodule(path)


@pytest.mark.parametrize("arguments", [(4, ""), (4, "avg"), (4, None), (4, None, "avg")], ids=str)
def test_timms_second_argument_of_reset_classifier(arguments: tuple) -> None:
    model = small_model()
    with pytest.warns(UserWarning, match="num_classes is now 4"):
        model.reset_classifier(*arguments)
    assert model.config.labels == ("class_0", "class_1", "class_2", "class_3")


@pytest.mark.parametrize(
    ("arguments", "message"), [((4, "max"), "global_pool='max'"), ((0,), "embed"), ((0, ""), "forward_head")], ids=str
)
def test_what_reset_classifier_cannot_do(arguments: tuple, message: str) -> None:
    model = small_model()
    with pytest.raises(diffmiczoo.DiffMICError, match=message):
        model.reset_classifier(*arguments)
    assert model.num_classes == 3


@pytest.mark.parametrize("raw_encoder", ["test_resnet", "efficientsam_ti", "test_vit", "test_convnext"])
def test_checkpointing_changes_no_number(raw_encoder: str) -> None:
    plain = tiny_model(raw_encoder=raw_encoder, raw_out_index=-1).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing()
    images, targets = batch(plain), torch.tensor([0, 1, 0])
    for model in (plain, checkpointed):
        loss = model.dcg_loss(images, targets) + model.training_loss(images, targets, torch.Generator().manual_seed(0))
        loss.backward()
        model.loss = loss.detach()
    assert torch.equal(plain.loss, checkpointed.loss)
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6, msg=name)
    for (name, one), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(one, other), name


def test_checkpointing_stores_less_and_can_be_switched_off() -> None:
    model = tiny_model().train()
    stored = {}
    for enable in (True, False):
        model.set_grad_checkpointing(enable)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            model.dcg_loss(batch(model), torch.tensor([0, 1, 0]))
        stored[enable] = sum(sizes)
    assert stored[True] < stored[False] / 2


def test_timms_optimiser_decays_neither_scales_nor_positions() -> None:
    model = tiny_model(raw_encoder="efficientsam_ti")
    kept = model.no_weight_decay()
    assert {"unet.block1.gamma.weight", "feature_prior.raw_encoder.model.pos_embed"} <= kept
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in optimizer.param_groups}
    assert kept <= groups[0.0] and "unet.out_conv.weight" in groups[0.05]
    assert groups[0.0] | groups[0.05] == set(names.values())


@pytest.mark.parametrize("coarse", [False, True])
def test_layer_decay_goes_from_the_images_to_the_scores(coarse: bool) -> None:
    model = registered_model("diffmicv2_nano")
    order = timm.models.group_parameters(model, model.group_matcher(coarse), reverse=True)
    assert order.keys() == dict(model.named_parameters()).keys()
    encoder, last = "feature_prior.raw_encoder.model.model.", max(order.values())
    assert order[encoder + "conv_stem.weight"] < order[encoder + "blocks.3.0.conv_pw.weight"]
    assert order[encoder + "blocks.3.0.conv_pw.weight"] < order["feature_prior.Q"] == last - 1
    assert order["unet.out_conv.weight"] == last
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert scale[id(model.unet.out_conv.weight)] == 1.0
    assert scale[id(model.get_parameter("feature_prior.Q"))] == 0.5


# ---------------------------------------------------------------------- torchvision and scikit-learn


def test_transform_in_a_dataset_and_with_labels() -> None:
    model = small_model()
    picture = Image.fromarray(smooth_picture(70, 90))
    transform = pickle.loads(pickle.dumps(model.transform))
    image, label = transform(picture, 2)
    assert label == 2 and torch.equal(image, model.preprocess(picture)[0])
    assert torch.equal(transform(np.asarray(picture)), image) and "64" in repr(transform)
    with pytest.raises(diffmiczoo.DiffMICError, match="a transform takes one"):
        transform([picture, picture])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_probabilities_in_scikit_learns_form(task: str) -> None:
    model = small_model(trained=True, task=task, class_names=("a", "b", "c"), temperature=1.0)
    pictures = [smooth_picture(70, 80), smooth_picture(90, 64)]
    probs = model.predict_proba(pictures)
    assert isinstance(probs, np.ndarray) and probs.dtype == np.float32 and list(model.classes_) == ["a", "b", "c"]
    assert np.array_equal(probs, model.predict(pictures).probs.numpy())
    if task == "multiclass":
        assert list(model.classes_[probs.argmax(1)]) == model.predict(pictures).labels


def test_labels_in_transformers_form() -> None:
    config = small_model(class_names=("a", "b", "c")).config
    assert config.id2label == {0: "a", 1: "b", 2: "c"} and config.label2id == {"a": 0, "b": 1, "c": 2}
    assert "id2label" not in config.to_dict()
