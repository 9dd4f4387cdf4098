"""Grad-CAM: where in synthetic pictures with a planted sign the maps of each encoder lie."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factories import SMALL_ENCODERS, TINY
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import DiffMICError
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.roi import crop_rois
from diffmiczoo.reporting.deletion import RANDOM, compare_maps, masked_versions, pointing_accuracy
from diffmiczoo.reporting.gradcam import METHODS, _of_whole, explain, methods_of
from diffmiczoo.reporting.maps import plot_maps

CLASSES = ("red", "green")
SIDE, SIGN = 64, 16

#: Grey stays grey when it is normalised.
GREY = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


class ColourEncoder(nn.Module):
    """Sees in how much of each 8 × 8 cell a picture is red, green or blue; 0 where it is grey."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * avg_pool2d((images - images.mean(1, keepdim=True)).clamp(min=0), 8)


def colour_model(**fields: object) -> DiffMICv2:
    """An untrained model whose encoders are `ColourEncoder`s, and whose global stream knows the colours."""
    torch.manual_seed(0)
    config = DiffMICConfig(num_classes=2, class_names=CLASSES, **{**TINY, **SMALL_ENCODERS, **GREY, **fields})
    model = DiffMICv2(config).eval()
    model.trained = True
    model.dcg.global_encoder = ColourEncoder()
    model.dcg.saliency_conv = nn.Conv2d(3, 2, 1, bias=False)
    model.dcg.saliency_conv.weight.data = 5 * torch.tensor([[1.0, -1, 0], [-1, 1, 0]])[..., None, None]
    if model.dcg.local_encoder is not None:
        model.dcg.local_encoder = ColourEncoder()
        model.dcg.attention = type(model.dcg.attention)(3, config.attention_dim)
        model.dcg.local_classifier = nn.Linear(3, 2, bias=False)
        model.dcg.local_classifier.weight.data = torch.tensor([[1.0, -1, 0], [-1, 1, 0]])
    if config.predictor == "diffusion":
        prior = model.feature_prior
        prior.raw_encoder, prior.roi_encoder = ColourEncoder(), ColourEncoder()
        prior.raw_proj, prior.roi_proj = (nn.Linear(3, config.latent_dim) for _ in range(2))
    return model


def both_signs() -> list[DiffMICv2]:
    """Returns two models: what speaks for a class by F in one of them speaks against it in the other."""
    models = [colour_model(roi_saliency="top") for _ in range(2)]
    for projection in (models[1].feature_prior.raw_proj, models[1].feature_prior.roi_proj):
        projection.weight.data.neg_()
    return models


def planted(count: int = 6, colour: int = 0) -> tuple[list[np.ndarray], Tensor]:
    """Returns grey pictures with a square of a colour, and where that is: left, top, right, bottom."""
    generator = np.random.default_rng(0)
    pictures, boxes = [], []
    for _ in range(count):
        left, top = generator.integers(0, SIDE - SIGN, 2)
        picture = np.full((SIDE, SIDE, 3), 110, np.uint8)
        picture[top : top + SIGN, left : left + SIGN] = 60
        picture[top : top + SIGN, left : left + SIGN, colour] = 230
        pictures.append(picture)
        boxes.append((left, top, left + SIGN, top + SIGN))
    return pictures, torch.tensor(boxes)


@pytest.fixture(scope="module")
def model() -> DiffMICv2:
    return colour_model(roi_saliency="top")


@pytest.mark.parametrize("method", ["saliency", "global", "local"])
@pytest.mark.parametrize("colour", [0, 1])
def test_maps_of_the_dcg_point_at_what_was_planted(model: DiffMICv2, method: str, colour: int) -> None:
    pictures, boxes = planted(colour=colour)
    found = explain(model, pictures, method, CLASSES[colour])
    assert found.maps.shape == (6, SIDE, SIDE) and found.maps.min() >= 0 and found.maps.max() <= 1
    assert pointing_accuracy(found, boxes) == 1.0
    # Nothing speaks for the other colour.
    other = explain(model, pictures, method, CLASSES[1 - colour])
    assert pointing_accuracy(other, boxes) == 0.0
    assert method == "saliency" or not other.maps.any()


@pytest.mark.parametrize("method", ["guidance", "raw", "roi"])
def test_maps_through_the_sampler_lie_on_what_was_planted_or_are_empty(method: str) -> None:
    """The U-Net is untrained, so that red may speak for or against a class; nothing but the sign can speak for one."""
    pictures, boxes = planted()
    shares = []
    for found in (explain(each, pictures, method, name) for each in both_signs() for name in CLASSES):
        for saliency, (left, top, right, bottom) in zip(found.maps, boxes.tolist(), strict=True):
            if saliency.any():
                # A cell has 8 pixels, and is enlarged over its neighbours.
                near = saliency[max(top - 12, 0) : bottom + 12, max(left - 12, 0) : right + 12]
                shares.append(float(near.sum() / saliency.sum()))
    assert len(shares) >= 6 and min(shares) > 0.99


def test_grad_cam_of_an_average_is_the_saliency_map_itself(model: DiffMICv2) -> None:
    """ŷ_g is the mean of a linear map of the features, so the weights are that map's (Grad-CAM, section 3.1)."""
    pictures, _ = planted()
    images = model.preprocess(pictures)
    with torch.no_grad():
        expected = model.priors(images).saliency[:, :1].clamp(min=0)
    expected = torch.nn.functional.interpolate(expected, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    expected /= expected.flatten(1).amax(1)[:, None, None]
    torch.testing.assert_close(explain(model, pictures, "global", "red").maps, expected, atol=1e-5, rtol=0)


def test_maps_of_rois_are_empty_outside_of_them(model: DiffMICv2) -> None:
    pictures, _ = planted()
    rois = model.predict(pictures).rois
    for method in ("local", "roi"):
        found = [explain(each, pictures, method, name).maps for each in both_signs() for name in CLASSES]
        assert any(each.any() for each in found)
        for row, boxes in enumerate(rois.tolist()):
            outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
            for left, top, right, bottom in boxes:
                outside[int(top) : int(bottom), int(left) : int(right)] = False
            assert all(not each[row][outside].any() for each in found)


def test_explaining_leaves_the_model_as_it_was_and_works_in_inference_mode(model: DiffMICv2) -> None:
    pictures, _ = planted(2)
    before = model.predict(pictures).probs
    with torch.inference_mode():
        inside = explain(model, pictures, "raw", "red").maps
    torch.testing.assert_close(inside, explain(model, pictures, "raw", "red").maps)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(model.predict(pictures).probs, before)


def test_the_most_probable_class_is_explained_unless_another_is_named(model: DiffMICv2) -> None:
    pictures, _ = planted(3)
    probable = model.predict(pictures).probs.argmax(1).tolist()
    assert explain(model, pictures, "global").classes == tuple(CLASSES[number] for number in probable)
    assert explain(model, pictures, "global", ["red", "green", "red"]).classes == ("red", "green", "red")
    for classes, said in (("blue", "does not know \\['blue'\\]"), (["red"], "1 names for 3 images")):
        with pytest.raises(ValueError, match=said):
            explain(model, pictures, "global", classes)
    with pytest.raises(ValueError, match="method='cam' must be one of 'saliency', 'global'"):
        explain(model, pictures, "cam")


def test_a_model_without_a_network_says_which_maps_it_has() -> None:
    alone = colour_model(predictor="global")
    assert methods_of(alone) == ("saliency", "global")
    with pytest.raises(TypeError, match="needs a network that this model lacks; it has 'saliency', 'global'"):
        explain(alone, planted(1)[0], "raw", "red")


def test_a_plain_classifiers_grad_cam_is_its_class_activation_map() -> None:
    torch.manual_seed(0)
    config = DiffMICConfig(predictor="classifier", dcg_encoder="test_resnet", image_size=SIDE, num_classes=2)
    plain = DiffMICv2(config).eval()
    plain.trained = True
    pictures, _ = planted(2)
    logits = plain.priors(plain.preprocess(pictures)).saliency.detach()
    expected = (logits - plain.dcg.classifier.bias.detach()[:, None, None]).clamp(min=0)
    expected = torch.nn.functional.interpolate(expected, (SIDE, SIDE), mode="bilinear")
    expected = expected / expected.flatten(2).amax(2).clamp(min=1e-12)[..., None, None]
    found = [explain(plain, pictures, "global", name).maps for name in plain.config.labels]
    torch.testing.assert_close(torch.stack(found, 1), expected, atol=1e-4, rtol=0)
    assert found[0].any() or found[1].any()


# ---------------------------------------------------------------------- deletion and insertion


def test_pixels_go_in_the_order_of_the_map_and_come_back_onto_a_blurred_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    square = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=generator)
    saliency = torch.arange(64.0).view(8, 8)
    deleted, inserted = masked_versions(square, saliency, 4)
    mean = square.float().mean((1, 2)).round().to(torch.uint8)[:, None, None]
    assert torch.equal(deleted[0], square) and torch.equal(deleted[4], mean.expand(3, 8, 8))
    assert torch.equal(inserted[4], square) and not torch.equal(inserted[0], square)
    # A quarter of the pixels: the last two rows are the highest.
    assert torch.equal(deleted[1][:, :6], square[:, :6]) and torch.equal(deleted[1][:, 6:], mean.expand(3, 2, 8))
    assert torch.equal(inserted[1][:, 6:], square[:, 6:]) and torch.equal(inserted[1][:, :6], inserted[0][:, :6])


def test_a_map_that_is_right_beats_one_that_is_drawn_at_random() -> None:
    model = colour_model(predictor="global")
    pictures, _ = planted(8)
    scores = {score.method: score for score in compare_maps(model, pictures, ["global"], "red", steps=8)}
    assert list(scores) == [RANDOM, "global"] and scores["global"].title == METHODS["global"].title
    right, chance = scores["global"], scores[RANDOM]
    assert right.deletion < chance.deletion and right.insertion > chance.insertion
    low, high = right.interval
    assert 0 < low <= right.gain <= high
    expected = right.insertion - right.deletion - chance.insertion + chance.deletion
    assert right.gain == pytest.approx(expected) and chance.gain == 0


def test_a_map_that_is_the_same_everywhere_points_nowhere(model: DiffMICv2) -> None:
    pictures, boxes = planted(2)
    flat = explain(model, pictures, "global", "green")
    assert not flat.maps.any()
    boxes[:, :2] = 0
    assert pointing_accuracy(flat, boxes) == 0.0


# ---------------------------------------------------------------------- where they are drawn


def test_a_figure_draws_the_map_and_says_whose_it_is(model: DiffMICv2) -> None:
    pictures, _ = planted(2)
    prediction = model.predict(pictures)
    found = explain(model, pictures, "raw", "green")
    page = prediction.plot(1, explanation=found).axes[0]
    texts = [text.get_text() for text in page.texts]
    assert "Grad-CAM, raw encoder of F of green, lines at 0.5 and 0.9" in texts
    one = explain(model, pictures[:1], "raw", "green")
    with pytest.raises(ValueError, match="is not among the 1 images that are explained"):
        prediction.plot(1, explanation=one)


def test_the_command_line_draws_it_into_overlays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner
    from PIL import Image

    from diffmiczoo.cli import main

    colour_model_file = tmp_path / "weights"
    torch.manual_seed(0)
    config = DiffMICConfig(num_classes=2, class_names=CLASSES, **TINY, **SMALL_ENCODERS)
    stored = DiffMICv2(config)
    stored.trained = True
    stored.save_pretrained(colour_model_file)
    Image.fromarray(planted(1)[0][0]).save(tmp_path / "a.png")
    line = ["predict", str(tmp_path / "a.png"), "--model", f"local-dir:{colour_model_file}"]
    drawn = {}
    for method in ("saliency", "raw"):
        done = CliRunner().invoke(main, [*line, "--overlay", str(tmp_path / method), "--explain", method])
        assert done.exit_code == 0, done.output
        drawn[method] = np.asarray(Image.open(tmp_path / method / "a.png"))
    assert not np.array_equal(drawn["saliency"], drawn["raw"])
    for arguments, said in (
        (["--explain", "raw"], "give it as well"),
        (["--overlay", "x", "--explain", "cam"], "one of"),
    ):
        done = CliRunner().invoke(main, [*line, *arguments])
        assert done.exit_code == 2 and said in done.output


def test_all_maps_of_an_image_stand_side_by_side(model: DiffMICv2) -> None:
    figure = plot_maps(model, planted(1)[0][0], class_name="red")
    assert [axes.get_title() for axes in figure.axes] == ["red", *(method.title for method in METHODS.values())]
    expected = explain(model, planted(1)[0], "global", "red").maps[0]
    np.testing.assert_allclose(np.asarray(figure.axes[2].images[1].get_array()), expected.numpy(), atol=1e-6)
    assert len(plot_maps(model, planted(1)[0][0], ["saliency"]).axes) == 2


def test_maps_of_rois_that_leave_the_square_lie_where_the_rois_were_cut() -> None:
    model = SimpleNamespace(config=SimpleNamespace(input_size=40, roi_size=16, num_rois=3))
    square, places = (
        torch.rand(2, 1, 40, 40) + 1,
        torch.tensor([[[30, 5], [2, 33], [36, 36]], [[0, 0], [24, 24], [31, 8]]]),
    )
    crops = crop_rois(square, places, 16).flatten(0, 1)
    whole = _of_whole(crops, SimpleNamespace(roi_top_left=places), model)
    seen = torch.zeros(2, 40, 40, dtype=torch.bool)
    for row, corners in enumerate(places.tolist()):
        for top, left in corners:
            seen[row, top : top + 16, left : left + 16] = True
    torch.testing.assert_close(whole, torch.where(seen, square[:, 0], 0.0))


def test_a_model_in_another_precision_is_explained_in_it(model: DiffMICv2) -> None:
    half = copy.deepcopy(model).bfloat16()
    for method in ("saliency", "global", "roi"):
        found = explain(half, planted(1)[0], method, "red").maps
        assert found.dtype == torch.float32 and found.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"classes": 1}, "classes=1 must be the name of a class"),
        ({"classes": [["red"]]}, r"does not know \[\['red'\]\]; it knows red, green"),
        ({"classes": [1]}, r"does not know \[1\]"),
        ({"method": ["global"]}, r"method=\['global'\] must be one of"),
        ({"batch_size": 0, "classes": "red"}, "batch_size=0 must be within"),
    ],
)
def test_odd_arguments_are_named(model: DiffMICv2, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(DiffMICError, match=said):
        explain(model, planted(1)[0], **{"method": "global", **arguments})


def test_what_no_gradient_can_be_taken_of_is_told() -> None:
    with torch.inference_mode():
        model = colour_model(predictor="global")
    with pytest.raises(DiffMICError, match=r"made within torch.inference_mode\(\)"):
        explain(model, planted(1)[0], "global", "red")


def test_one_image_a_box_for_each_and_a_step_or_more(model: DiffMICv2) -> None:
    pictures = planted(2)[0]
    with pytest.raises(DiffMICError, match="plot_maps draws one image, found 2"):
        plot_maps(model, pictures)
    with pytest.raises(DiffMICError, match=r"boxes has shape \(1, 4\); expected \(2, 4\)"):
        pointing_accuracy(explain(model, pictures, "saliency", "red"), np.zeros((1, 4)))
    for arguments, said in (({"steps": 0}, "steps=0 must be"), ({"methods": "global"}, "'global' is one text")):
        with pytest.raises(DiffMICError, match=said):
            compare_maps(model, pictures, **arguments)
