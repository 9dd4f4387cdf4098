"""What a graph computes is what `predict` says, for every kind of model; run as it is, without a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from export.conftest import SMALL, pictures, trusting_model
from factories import small_model

import diffmiczoo
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.export import certify
from diffmiczoo.export.graph import OUTPUTS, ExportedModel, graph_settings, largest_single, least_single
from diffmiczoo.inference.limits import settings_of
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import frozen
from diffmiczoo.trust.gate import fit_gate
from diffmiczoo.trust.stored import Trust


def run(model: DiffMICv2, squares: np.ndarray, **settings) -> tuple[dict[str, np.ndarray], certify.Expected]:
    """Returns the outputs of a model's graph, and what the model predicts."""
    graph = graph_settings(model, settings.get("steps"), settings.get("num_samples"), settings.get("defer_error"))
    wrapped = ExportedModel(model, graph).eval()
    with frozen(wrapped):
        outputs = wrapped(torch.from_numpy(squares))
    found = {name: each.numpy() for name, each in zip(wrapped.names, outputs, strict=True)}
    return found, certify.expected(model, squares, graph, settings.get("defer_error"))


def check(found: dict[str, np.ndarray], known: certify.Expected) -> None:
    compared = certify.compare(known, [found], 1e-5)
    assert max(compared.differences.values()) <= 1e-4 and compared.differences["probs"] <= 1e-5
    assert not compared.labels_differ and not compared.others_differ and not compared.rois_differ
    assert set(known.outputs) <= set(found) <= set(OUTPUTS)


KINDS = {
    "several labels": {"task": "multilabel", "thresholds": (0.4, 0.5, 0.6), "temperature": 0.8},
    "offsets of labels": {"label_adjustment": (0.0, 1.0, -0.5), "temperature": 0.8},
    "fresh noise in each step": {"sampler": "ancestral"},
    "larger squares for ROIs": {"roi_source_size": 48, "roi_saliency": "top"},
    "views": {"tta": "rotations", "roi_saliency": "probability"},
    "a classifier on F": {"feature_loss_weight": 1.0, "feature_weight": 0.5, "prior_weight": (0.3, 0.3)},
    "shared noise, clipped": {"shared_noise": True, "init": "guided", "clip_sample": True, "guidance": "fused"},
    "the DCG alone": {"predictor": "dcg", "prior_weight": (0.5, 0.5), "temperature": 1.0},
    "the global stream alone": {"predictor": "global"},
    "no ROIs in F": {"roi_features": False, "kernel_size": 3},
}


@pytest.mark.filterwarnings("ignore:this model is not trained")
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_compute_what_predict_says(kind):
    model = small_model(**{**SMALL, **KINDS[kind]})
    squares = pictures(5, model.config.input_size)
    found, known = run(model, squares)
    check(found, known)
    assert ("spread" in found) == (model.config.predictor == "diffusion")
    assert not {"sets", "ood_score", "deferred"} & set(found)


@pytest.mark.filterwarnings("ignore:this model is not trained")
def test_plain_classifiers():
    model = diffmiczoo.create_model("timm/test_resnet", num_classes=4, image_size=32)
    features = model.embed(list(pictures(40))).numpy()
    model.trust = Trust(settings_of(model.config), fit_gate(features[:20], features[20:]))
    found, known = run(model, pictures(5))
    check(found, known)
    assert found["in_distribution"].any() and "spread" not in found and found["saliency"].shape[:2] == (5, 4)


def test_what_weights_know_about_their_limits_is_in_the_graph():
    model = trusting_model()
    found, known = run(model, pictures(), defer_error=0.05)
    check(found, known)
    assert found["in_distribution"].tolist() == [True] * 8 + [False]
    assert found["deferred"][-1] and found["sets"].shape == (9, 2, 3)
    sets = model.predict(list(pictures())).sets(0.2)
    assert [{n for n, on in zip("cat dog eel".split(), row, strict=True) if on} for row in found["sets"][:, 1]] == [
        set(each) for each in sets
    ]


def test_spread_is_that_of_the_runs():
    model = small_model(trained=True, **SMALL | {"num_samples": 5})
    found, _ = run(model, pictures(2))
    noise = model.sampling_noise(2, 5).initial
    with frozen(model):
        condition = model.condition(model.preprocess(list(pictures(2))))
        runs = torch.stack([model.sample(condition, y_T=each).mean((2, 3)) for each in noise])
    np.testing.assert_allclose(found["spread"], runs.std(0, correction=0).numpy(), atol=1e-6)
    assert found["spread"].min() > 1e-4


def test_other_steps_leave_out_what_was_calibrated_for_the_models_own():
    model = trusting_model()
    with pytest.warns(UserWarning, match="no prediction sets: they were calibrated for another prediction"):
        found, known = run(model, pictures(), steps=3, num_samples=1)
    check(found, known)
    assert "sets" not in found and "ood_score" in found
    with pytest.raises(InvalidValueError, match=r"defer_error=0.05: deferral was calibrated for sampling_steps=3"):
        graph_settings(model, 3, None, 0.05)
    with pytest.raises(InvalidValueError, match="within 1"):
        ExportedModel(small_model(**SMALL), graph_settings(small_model(**SMALL), 51, None, None))


def test_limits_in_single_precision_decide_as_in_double():
    for value in (0.1, 0.30000001, 1 / 3, 0.5, float(np.float32(0.1)), -0.7):
        below, at = np.nextafter(np.float32(least_single(value)), np.float32(-9)), np.float32(least_single(value))
        assert float(below) < value <= float(at)
        assert float(np.float32(largest_single(value))) <= value
        assert float(np.nextafter(np.float32(largest_single(value)), np.float32(9))) > value
