"""What lies between noise and labels is what `predict` goes through, and figures show all of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from factories import SMALL_ENCODERS, TINY

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.trajectories import Trajectory, plot_chains, plot_embedding, trace


def tiny(**fields: object) -> DiffMICv2:
    torch.manual_seed(0)
    names = ("a$b", "second", "third")
    config = DiffMICConfig(num_classes=3, class_names=names, **{**TINY, **SMALL_ENCODERS, "num_samples": 2, **fields})
    model = DiffMICv2(config).eval()
    model.trained = True
    return model


PICTURES = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8) for seed in range(5)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sampler": "ancestral"},
        {"sampler": "ancestral", "init": "guided"},
        {"init": "interpolated"},
        {"shared_noise": True, "num_samples": 1},
        {"guidance": "none"},
    ],
)
def test_a_trajectory_ends_where_predict_does(fields: dict[str, object]) -> None:
    model = tiny(**fields)
    found, prediction = trace(model, PICTURES, batch_size=2), model.predict(PICTURES)
    steps, runs = model.config.sampling_steps, model.config.num_samples
    assert found.labels.shape == (steps + 1, runs, 5, 3, 3, 3) and found.features.shape == (steps, 5, 8)
    assert found.timesteps == tuple(model.sampler.timesteps(steps)) and found.names == tuple(prediction.names)
    torch.testing.assert_close(found.scores[-1].mean(0), prediction.scores, atol=1e-4, rtol=1e-4)
    # Each step does something, and the features are those of the step.
    assert all(not torch.equal(one, other) for one, other in zip(found.labels, found.labels[1:], strict=False))
    assert not torch.equal(found.features[0], found.features[1])


def test_it_begins_with_the_noise_of_the_weights() -> None:
    model = tiny()
    start = model.default_noise[:, None].expand(-1, 5, -1, -1, -1)
    torch.testing.assert_close(trace(model, PICTURES).labels[0], start)
    guided = tiny(init="guided")
    found = trace(guided, PICTURES)
    expected = guided.default_noise[:, None] + found.guidance_map
    torch.testing.assert_close(found.labels[0], expected)


def test_other_steps_and_runs_can_be_traced_and_what_has_no_steps_cannot() -> None:
    model = tiny()
    found = trace(model, PICTURES[:2], steps=5, num_samples=3)
    assert found.labels.shape[:3] == (6, 3, 2)
    expected = model.predict(PICTURES[:2], steps=5, num_samples=3).scores
    torch.testing.assert_close(found.scores[-1].mean(0), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="steps"):
        trace(model, PICTURES[:1], steps=0)
    with pytest.raises(TypeError, match="predictor='global' has no diffusion"):
        trace(tiny(predictor="global"), PICTURES[:1])
    assert not model.unet.out_conv._forward_pre_hooks


@pytest.fixture(scope="module")
def traced() -> Trajectory:
    return trace(tiny(), PICTURES)


@pytest.mark.parametrize("of", ["features", "labels"])
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_each_step_is_a_panel_with_a_point_per_image(traced: Trajectory, method: str, of: str) -> None:
    classes = ["a$b", "a$b", "second", "second", "third"]
    figure = plot_embedding(traced, classes, method, of=of)
    assert len(figure.axes) == 3
    for axes in figure.axes:
        points = [np.asarray(each.get_offsets()) for each in axes.collections]
        assert [len(each) for each in points] == [2, 2, 1]
        assert len(np.unique(np.concatenate(points), axis=0)) == 5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a$b", "second", "third"]


def test_the_plane_keeps_most_of_what_differs(traced: Trajectory) -> None:
    """PCA: no other projection into the plane has a larger variance."""
    axes = plot_embedding(traced, ["x"] * 5).figure.axes[0]
    points = np.asarray(axes.collections[0].get_offsets())
    values = traced.features[0].double().numpy()
    strength = np.linalg.svd(values - values.mean(0), compute_uv=False)
    assert np.square(points).sum() == pytest.approx(np.square(strength[:2]).sum(), rel=1e-5)


def test_the_chains_of_an_image_end_at_its_scores(traced: Trajectory) -> None:
    figure = plot_chains(traced, 1, top=2)
    *maps, lines = figure.axes
    assert len(maps) == 2 * 5 and maps[0].get_title() == "M" and maps[4].get_title() == "step 3"
    first = int(traced.scores[-1, :, 1].mean(0).argmax())
    shown = np.asarray(maps[0].images[0].get_array())
    np.testing.assert_allclose(shown, traced.guidance_map[1, first].numpy())
    curves = [line.get_ydata() for line in lines.lines]
    ends = sorted(float(curve[-1]) for curve in curves if len(curve) == 4)
    order = traced.scores[-1, :, 1].mean(0).argsort(descending=True)[:2]
    chains = traced.scores[-1, :, 1][:, order]
    np.testing.assert_allclose(ends, sorted([*chains.flatten().tolist(), *chains.mean(0).tolist()]), rtol=1e-5)


def test_what_cannot_be_drawn_is_said(traced: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, said in (
        ((["x"] * 5, "umap"), "method='umap' must be one of"),
        ((["x"] * 4,), "a class for each; found 5 images"),
    ):
        with pytest.raises(ValueError, match=said):
            plot_embedding(traced, *arguments)
    for arguments in ((5,), (-1,), (0, 0)):
        with pytest.raises(ValueError, match=r"row=-?\d must be within 0\.\.4, and top=\d at least 1"):
            plot_chains(traced, *arguments)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match=r'pip install "diffmiczoo\[tsne\]"'):
        plot_embedding(traced, ["x"] * 5, "tsne")


def test_another_precision_numbers_for_classes_and_odd_arguments() -> None:
    model = tiny()
    found = trace(tiny().bfloat16(), PICTURES[:3])
    assert found.labels.dtype == torch.float32 and found.labels.isfinite().all()
    legend = plot_embedding(found, np.array([0, 1, 0])).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1"]
    for arguments, said in (({"batch_size": 0}, "batch_size=0 must"), ({"num_samples": 2.5}, "num_samples=2.5 must")):
        with pytest.raises((ValueError, TypeError), match=said):
            trace(model, PICTURES[:1], **arguments)
