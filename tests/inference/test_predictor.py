"""`predict` on many pictures: batches, order, memory, errors and warnings."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from factories import pictures, registered_model, small_model
from PIL import Image

import diffmiczoo
from diffmiczoo.runtime.modes import frozen


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


def test_spread_is_how_far_runs_are_apart() -> None:
    model, images = small_model(), pictures()
    model.trained = True
    together, noise = model.predict(images, 2, num_samples=3), model.sampling_noise(2, 3).initial
    with frozen(model):
        condition = model.condition(model.preprocess(list(images)))
        runs = torch.stack([model.sample(condition, 2, y_T=each).mean((2, 3)) for each in noise])
    assert together.spread is not None and together.spread.min() > 1e-4
    torch.testing.assert_close(together.spread, runs.std(0, correction=0), rtol=0, atol=1e-6)
    record = together.to_dict()["images"][1]
    assert record["spread"] == dict(zip(together.class_names, together.spread[1].tolist(), strict=True))
    batches = model.predict(images, 2, num_samples=3, batch_size=2).spread
    torch.testing.assert_close(batches, together.spread)
    assert model.predict(images, 2, num_samples=1).spread is None
    alone = small_model(predictor="dcg")
    alone.trained = True
    assert alone.predict(images).spread is None and alone.predict(images).to_dict()["images"][0]["spread"] is None


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


@pytest.mark.filterwarnings("ignore:this model is not trained")
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("the device is full"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_too_little_memory_halves_the_batch(error: RuntimeError) -> None:
    model, images, sizes = small_model(), pictures(9), []
    wanted = model.predict(images)

    def full(_: object, given: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(given[0]))
        if len(given[0]) > 3:
            raise error

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
    model, images = registered_model(name, latent_dim=32, clip_sample=True), pictures()
    model.trained = True
    exact, half = model.predict(images), model.predict(images, precision="bf16")
    assert torch.equal(exact.rois, half.rois) and half.scores.dtype == torch.float32
    torch.testing.assert_close(half.scores, exact.scores, rtol=0, atol=0.1)
    assert not torch.equal(half.scores, exact.scores)
    with pytest.raises(ValueError, match="precision='int4' is not one of 'fp32', 'bf16', 'fp16', 'int8'"):
        model.predict(images, precision="int4")
    with pytest.raises(ValueError, match="precision='fp16' is for GPUs"):
        model.predict(images, precision="fp16")
