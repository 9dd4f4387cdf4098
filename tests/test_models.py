"""Every registered model: paper-size shapes without memory, everything else at tiny size."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from factories import SMALL_ENCODERS, TINY
from PIL import Image

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.unet_folded import FoldedUNet
from diffmiczoo.runtime.modes import evaluation_mode
from diffmiczoo.zoo.architectures import architectures
from diffmiczoo.zoo.complexity import count_macs, count_parameters
from diffmiczoo.zoo.registry import model_config

NAMES = diffmiczoo.list_models()
ARCHITECTURES = sorted(architectures())


def tiny_model(name: str, **fields) -> DiffMICv2:
    """The registered model with its own encoders and switches, but small."""
    torch.manual_seed(0)
    return diffmiczoo.create_model(name, **{**TINY, **fields})


def small_model(**fields) -> DiffMICv2:
    torch.manual_seed(0)
    return DiffMICv2(DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS, **fields})).eval()


def pictures(count: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (60 + 7 * n, 90 - 5 * n, 3), dtype=np.uint8) for n in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_at_full_size(name: str) -> None:
    config = model_config(name)
    with torch.device("meta"):
        model = DiffMICv2(config).eval()
        images = torch.empty(2, 3, config.image_size, config.image_size)
    condition = model.condition(images)
    classes, points, rois, size = config.num_classes, config.num_points, config.num_rois, config.roi_size
    assert condition.guidance_map.shape == (2, classes, points, points)
    assert condition.feature_prior.shape == (2, config.latent_dim)
    assert condition.rois.shape == (2, rois, 3, size, size)
    assert condition.roi_attention.shape == (2, rois)
    assert model.sample(condition).shape == (2, classes, points, points)
    assert model(images).shape == (2, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(config)["total"]


def vit_macs(width: int, blocks: int = 12, patch: int = 16, image: int = 224) -> int:
    """Patch embedding, then per block qkv, both attention products, output projection and the MLP of width 4."""
    tokens = (image // patch) ** 2
    block = tokens * width * (3 + 1 + 4 + 4) * width + 2 * tokens**2 * width
    return tokens * width * 3 * patch**2 + blocks * block


def test_cost_of_the_paper_size_model_matches_hand_counts() -> None:
    config = model_config("diffmicv2_resnet18")
    macs, hidden, classes = count_macs(config), config.latent_dim, config.num_classes
    assert macs["unet"] == 36 * (2 * hidden**2 + 3 * classes * hidden)
    assert macs["raw_encoder"] == vit_macs(384) == pytest.approx(4.6e9, rel=0.01)
    resnet18_at_224 = 1_813_561_344  # torchvision's figure, 1,814,073,344, less its 512 × 1000 classifier
    assert macs["dcg"] == pytest.approx(resnet18_at_224 * (1 + 6 * (32 / 224) ** 2), rel=1e-3)
    assert macs["roi_encoder"] == pytest.approx(6 * resnet18_at_224 * (32 / 224) ** 2, rel=1e-3)
    projections = hidden * (384 + 6 * 512)
    assert macs["feature_prior"] == macs["raw_encoder"] + macs["roi_encoder"] + projections
    assert macs["condition"] == macs["dcg"] + macs["feature_prior"]
    assert macs["total"] == macs["condition"] + 10 * macs["unet"] == pytest.approx(34e9, rel=0.01)


def test_parameters_of_the_paper_size_model_match_hand_counts() -> None:
    config = model_config("diffmicv2_resnet18")
    counts, hidden, classes, resnet18 = count_parameters(config), config.latent_dim, config.num_classes, 11_176_512
    vit = 196 * 384 + 384 * 769 + 12 * (12 * 384**2 + 13 * 384)
    assert counts["dcg"] == 2 * resnet18 + 512 * classes + (2 * 512 + 1) * 128 + 512 * classes
    assert counts["feature_prior"] == vit + resnet18 + (385 + 513) * hidden + 4 * hidden + 7 * hidden
    convolutions = (2 * classes + 1) * hidden + 2 * (hidden + 1) * hidden + (hidden + 1) * classes
    assert counts["unet"] == convolutions + 3 * 1001 * hidden + 3 * 2 * hidden
    assert counts["total"] == pytest.approx(155e6, rel=0.01)


@pytest.mark.parametrize(("name", "roi_macs"), [("diffmicv2_resnet50", 4.09e9), ("diffmicv2_densenet169", 3.36e9)])
def test_cost_of_the_other_roi_encoders(name: str, roi_macs: float) -> None:
    """Published figures for one 224-pixel image, scaled to K crops; odd maps round down, 3 × 3 instead of 3.5 × 3.5."""
    config = model_config(name)
    share = config.num_rois * (config.roi_size / 224) ** 2
    assert count_macs(config)["roi_encoder"] == pytest.approx(share * roi_macs, rel=0.03)


def test_nano_is_small() -> None:
    assert count_parameters(model_config("diffmicv2_nano"))["total"] <= 5_000_000


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_forward_backward_save_load(name: str, tmp_path) -> None:
    model, images, targets = tiny_model(name).train(), torch.randn(3, 3, 64, 64), torch.tensor([0, 1, 2])
    trained = {"dcg_loss": {"dcg"}, "training_loss": {"feature_prior", "unet"}}
    for loss, parts in trained.items():
        model.zero_grad(set_to_none=True)
        value = getattr(model, loss)(images, targets)
        value.backward()
        assert value.ndim == 0 and bool(torch.isfinite(value))
        for path, parameter in model.named_parameters():
            assert (parameter.grad is not None) == (path.split(".")[0] in parts), f"{loss}: {path}"
    model.save_pretrained(tmp_path)
    model.eval()
    loaded = diffmiczoo.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert loaded.config == model.config and not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    assert model(images.requires_grad_()).sum().backward() is None and images.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_multilabel(name: str) -> None:
    model = tiny_model(name, task="multilabel", num_classes=4).train()
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


def test_the_encoders_run_once_whatever_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, unet_calls = small_model(), [], []
    for part in ("dcg.global_encoder", "dcg.local_encoder", "feature_prior.raw_encoder", "feature_prior.roi_encoder"):
        model.get_submodule(part).register_forward_hook(lambda *_, part=part: calls.append(part))
    call = FoldedUNet.__call__
    monkeypatch.setattr(FoldedUNet, "__call__", lambda *args: (unet_calls.append(1), call(*args))[1])
    model.trained = True
    model.predict(pictures(1), steps=7)
    assert len(calls) == 4 and len(unet_calls) == 7


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
        folded, scores = model.sample(condition), model(images)
        bands = start and fields.get("sampler") != "ancestral"
        assert {shape[1] for shape in rows} == {4 if bands else 16}
        monkeypatch.setattr("diffmiczoo.diffusion.sampling.can_be_folded", lambda unet: False)
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
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    small_model()(torch.randn(1, 3, 64, 64))  # with gradients


def test_an_answer_does_not_depend_on_the_batch_the_order_or_the_caller() -> None:
    model, images = small_model(), pictures()
    model.trained = True
    together = model.predict(images, num_samples=2)
    for batch_size in (1, 2, 3):
        torch.testing.assert_close(model.predict(images, num_samples=2, batch_size=batch_size).probs, together.probs)
    torch.testing.assert_close(model.predict(images[::-1], num_samples=2).probs.flip(0), together.probs)
    for row, image in enumerate(images):
        torch.testing.assert_close(model.predict(image, num_samples=2).probs[0], together.probs[row])
        torch.testing.assert_close(model.predict(Image.fromarray(image), num_samples=2).probs[0], together.probs[row])
    torch.manual_seed(99)
    torch.testing.assert_close(model.predict(images, num_samples=2).probs, together.probs, rtol=0, atol=0)
    assert not torch.allclose(model.predict(images, num_samples=2, seed=1).scores, together.scores)


def test_predict_leaves_mode_and_random_state_as_found() -> None:
    model = small_model().train()
    model.unet.eval()
    model.trained = True
    modes = [module.training for module in model.modules()]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    model.predict(pictures(2), num_samples=2)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == numpy_state).all()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_sampling_options() -> None:
    model = small_model()
    with torch.no_grad():
        condition = model.condition(torch.randn(2, 3, 64, 64))
        noise = torch.randn(2, 3, 3, 3)
        single = model.sample(condition, 4, y_T=noise)
        torch.testing.assert_close(model.sample(condition, 4, y_T=noise[None]), single)
        both = model.sample(condition, 4, y_T=torch.stack([noise, -noise]))
        torch.testing.assert_close(both, (single + model.sample(condition, 4, y_T=-noise)) / 2)
        drawn = [model.sample(condition, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
        assert torch.equal(*drawn) and not torch.equal(drawn[0], model.sample(condition))
        assert torch.equal(model.sample(condition), model.sample(condition))
        for wrong in ({"steps": 0}, {"num_samples": 0}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                model.sample(condition, **wrong)


def test_untrained_models_warn_and_trained_ones_do_not() -> None:
    model = small_model()
    with pytest.warns(UserWarning, match="not trained"):
        model.predict(pictures(1))
    model.trained = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(pictures(1))


def test_unreadable_images_are_skipped_or_raised(tmp_path) -> None:
    model = small_model()
    model.trained = True
    Image.fromarray(pictures(1)[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG not really")
    paths = [tmp_path / "bad.png", tmp_path / "good.png", tmp_path / "bad.png"]
    with pytest.raises(diffmiczoo.ImageError, match=r"bad\.png"):
        model.predict(paths)
    prediction = model.predict(paths, on_error="skip", batch_size=1)
    assert [name.endswith("good.png") for name in prediction.names] == [True] and len(prediction.errors) == 2
    torch.testing.assert_close(prediction.probs, model.predict(tmp_path / "good.png").probs)
    with pytest.raises(diffmiczoo.ImageError, match="none could be read"):
        model.predict(paths[:1], on_error="skip")
    for wrong in ({"batch_size": 0}, {"on_error": "ignore"}, {"steps": 51}, {"num_samples": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            model.predict(paths[1:2], **wrong)


def test_wrong_tensors_are_named() -> None:
    model = small_model()
    for images in (torch.randn(2, 3, 32, 32), torch.randn(3, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"expected normalised float images of shape \(B, 3, 64, 64\)"):
            model.condition(images)
    for targets in (torch.zeros(2, 2), torch.zeros(2, 3, 1)):
        with pytest.raises(ValueError, match="targets of a multiclass model"):
            model.training_loss(torch.randn(2, 3, 64, 64), targets)


def test_reset_classifier_rebuilds_exactly_four_layers() -> None:
    model = small_model()
    model.trained = True
    model.config = model.config.replace(temperature=0.3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.warns(UserWarning, match="num_classes is now 5") as caught:
        model.reset_classifier(5, ["a", "b", "c", "d", "e"])
    rebuilt = ("dcg.saliency_conv", "dcg.local_classifier", "unet.block1.conv", "unet.out_conv")
    assert len(caught) == 1 and all(name in str(caught[0].message) for name in rebuilt)
    for name, tensor in model.state_dict().items():
        same = tensor.shape == before[name].shape and torch.equal(tensor, before[name])
        assert same != name.startswith(rebuilt), name
    assert not model.trained and model.config.temperature is None and model.config.labels == tuple("abcde")
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 5)
    with pytest.raises(ValueError, match="class_names has 2 names"):
        model.reset_classifier(3, ["a", "b"])


def test_dtype_device_and_memory_format() -> None:
    model = small_model().to(memory_format=torch.channels_last)
    model.trained = True
    reference = model.predict(pictures(2)).probs
    double = model.to(torch.float64).predict(pictures(2))
    assert double.probs.dtype == torch.float32
    torch.testing.assert_close(double.probs, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_cpus_answer() -> None:
    model = small_model()
    model.trained = True
    reference = model.predict(pictures(3), num_samples=2)
    answer = model.to("cuda").predict(pictures(3), num_samples=2)
    torch.testing.assert_close(answer.probs, reference.probs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 2.5}, TypeError, "steps=2.5 must be a whole number"),
        ({"steps": True}, TypeError, "steps=True must be a whole number"),
        ({"batch_size": 1.5}, TypeError, "batch_size=1.5 must be a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be within 1"),
        ({"num_samples": 0}, ValueError, "num_samples=0 must be within 1"),
        ({"seed": -1}, ValueError, "seed=-1 must be within 0"),
        ({"seed": 2**70}, ValueError, "must be within 0"),
        ({"steps": 1000}, ValueError, "steps=1000 must be within 1..50"),
    ],
)
def test_wrong_arguments_of_predict(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        small_model().predict(pictures(1), **options)


def test_a_single_step_warns_that_the_answer_is_noise() -> None:
    model = small_model()
    model.trained = True
    with pytest.warns(UserWarning, match="steps=1 samples at timestep 0 only"):
        model.predict(pictures(1), steps=1)


@torch.no_grad()
def test_fields_that_do_not_shape_the_weights_take_effect_when_changed() -> None:
    model, images = small_model(), torch.randn(2, 3, 64, 64)
    for fields in ({"clip_sample": False}, {"num_samples": 3}, {"shared_noise": True}, {"init": "interpolated"}):
        fresh = DiffMICv2(model.config.replace(**fields)).eval()
        fresh.load_state_dict(model.state_dict())
        before = model(images)
        model.config = model.config.replace(**fields)
        assert torch.equal(model(images), fresh(images)) and not torch.equal(model(images), before), fields


def test_the_schedule_stays_exact_when_a_model_is_cast_and_back() -> None:
    model, fresh = small_model().half().float(), small_model()
    y_0, noise, t = torch.ones(1, 3, 3, 3), torch.ones(1, 3, 3, 3), torch.arange(9).reshape(1, 3, 3)
    assert torch.equal(model.schedule.add_noise(y_0, noise, t), fresh.schedule.add_noise(y_0, noise, t))


@torch.no_grad()
def test_tracing_gives_the_same_answers() -> None:
    model, images = small_model(), torch.randn(2, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, images, check_trace=False)
    torch.testing.assert_close(traced(images), model(images))


def test_answers_for_real_images_do_not_depend_on_the_batch(shared) -> None:
    """ISIC_0024345 is among them: two of its windows are as salient as each other to the last digits."""
    model = diffmiczoo.create_model("diffmicv2_ham10000", pretrained=True)
    folder = shared / "data" / "ham10000"
    found = sorted(folder.rglob("ISIC_00243*.jpg"))
    assert any(path.stem == "ISIC_0024345" for path in found)
    together = model.predict(found, batch_size=32)
    for batch_size in (1, 7):
        other = model.predict(found, batch_size=batch_size)
        assert torch.equal(other.rois, together.rois)
        torch.testing.assert_close(other.probs, together.probs, rtol=0, atol=1e-4)


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


@pytest.mark.filterwarnings("ignore:this model is not trained")
def test_too_little_memory_halves_the_batch() -> None:
    model, images, sizes = small_model(), pictures(9), []
    wanted = model.predict(images)

    def full(_: object, given: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(given[0]))
        if len(given[0]) > 3:
            raise torch.OutOfMemoryError("the device is full")

    model.feature_prior.register_forward_pre_hook(full)
    found = model.predict(images, batch_size=8)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    torch.testing.assert_close(found.probs, wanted.probs, rtol=0, atol=1e-5)
    assert found.names == wanted.names


@pytest.mark.filterwarnings("ignore:this model is not trained")
def test_bytes_and_floats_share_a_batch() -> None:
    model = small_model()
    side = model.config.image_size
    bytes_ = torch.randint(256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted, floats = model.predict(list(bytes_)), bytes_.float() / 255
    for mixed in (list(floats), [bytes_[0], floats[1], bytes_[2]], [floats[0], bytes_[1], bytes_[2]]):
        torch.testing.assert_close(model.predict(mixed).scores, wanted.scores, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:this model is not trained")
def test_memory_for_not_even_one_image_is_an_error() -> None:
    model = small_model()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("the device is full")

    model.feature_prior.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError, match="the device is full"):
        model.predict(pictures(2))


@pytest.mark.parametrize("name", ["diffmicv2_nano", "diffmicv2_resnet18"])
def test_half_precision_answers_nearly_the_same(name: str) -> None:
    model, images = tiny_model(name, latent_dim=32, clip_sample=True), pictures()
    model.trained = True
    exact, half = model.predict(images), model.predict(images, precision="bf16")
    assert torch.equal(exact.rois, half.rois) and half.scores.dtype == torch.float32
    torch.testing.assert_close(half.scores, exact.scores, rtol=0, atol=0.1)
    assert not torch.equal(half.scores, exact.scores)
    with pytest.raises(ValueError, match="precision='int4' is not one of 'fp32', 'bf16', 'fp16', 'int8'"):
        model.predict(images, precision="int4")
    with pytest.raises(ValueError, match="precision='fp16' is for GPUs"):
        model.predict(images, precision="fp16")


def test_a_model_in_training_mode_stays_in_eval_mode_until_the_last_thread_is_done() -> None:
    model = small_model().train()
    model.dcg.eval()
    first, second = evaluation_mode(model), evaluation_mode(model)
    with first:
        second.__enter__()
    assert not any(module.training for module in model.modules())
    second.__exit__(None, None, None)
    assert model.training and model.unet.training and not model.dcg.training
    with evaluation_mode(model):
        model.train()
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
    assert model.training and not model.dcg.training
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        1 / 0  # noqa: B018
    assert model.training and not model.dcg.training
