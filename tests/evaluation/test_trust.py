"""Limits are fitted on validation pictures and measured on test pictures: promises hold within their bands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from factories import small_model, write_manifest
from scipy.stats import betabinom

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.members import collect_members
from diffmiczoo.evaluation.trust import Known, fit_limits, fit_trust, measure_trust
from diffmiczoo.inference.probabilities import uncertainty
from diffmiczoo.trust.arrays import coverage_band

CONFIG = DiffMICConfig(num_classes=3, class_names=("cat", "dog", "eel"), image_size=64)


def known(count: int, seed: int, skill: float = 2.2) -> Known:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, count)
    logits = torch.from_numpy(rng.normal(size=(count, 3)) + skill * np.eye(3)[targets])
    probs, truth = logits.softmax(1), np.eye(3, dtype=bool)[targets]
    wrong = probs.argmax(1).numpy() != targets
    features = rng.normal(size=(count, 8)).astype(np.float32)
    unsure = uncertainty(probs, "multiclass").numpy()
    return Known(probs.numpy(), truth, wrong, unsure, features, np.arange(count))


@pytest.fixture(scope="module")
def training() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(9).normal(size=(300, 8)).astype(np.float32))


def test_the_report_tells_what_holds(training):
    trust = fit_trust(CONFIG, training, known(500, 0))
    test = known(700, 1)
    report = measure_trust(trust, CONFIG, test, {"others": training[:50] + 9})
    assert report.kept_band[0] <= report.kept <= report.kept_band[1] and report.flagged["others"] == (1.0, 50)
    assert len(report.sets) == 6
    for each in report.sets:
        if each.band is not None:
            assert each.band[0] <= each.coverage <= each.band[1]
        if each.by_class:
            assert all(band[0] <= share <= band[1] for share, band in each.class_coverage.values())
    promised = {outcome.error: outcome for outcome in report.deferral}
    assert promised[0.1].found <= 0.1 and 0 <= promised[0.1].seen < promised[0.05].seen < 1
    assert report.least_error <= 0.05 and 0 < report.aurc < test.wrong.mean()
    assert json.loads(json.dumps(report.to_dict()))["kept"] == report.kept
    assert "own pictures that pass" in report.table() and "a person sees" in report.table()


def test_few_pictures_promise_little_and_say_so(training):
    trust = fit_trust(CONFIG, training, known(12, 0))
    assert trust.gate is None
    report = measure_trust(trust, CONFIG, known(100, 1))
    assert report.kept is None and report.kept_band is None
    assert [outcome.seen for outcome in report.deferral][:3] == [None] * 3
    assert "cannot be promised" in report.table() and "(every set)" in report.table()
    assert {each.size for each in report.sets if each.alpha == 0.05} == {3.0}


def test_without_features_there_is_no_gate(training):
    assert fit_trust(CONFIG, training[:0], known(100, 0)).gate is None


def test_a_model_learns_its_limits_from_the_splits_of_a_table(tmp_path):
    model = small_model(trained=True, num_classes=2, class_names=("dark", "light"))
    trust = fit_limits(model, write_manifest(tmp_path), progress=False)
    # Eight validation pictures of four patients: a promise to all, and to no class at .1.
    assert trust is model.trust and trust.gate is None and trust.sets.groups == 4
    assert trust.sets.rule(0.2).overall is not None and trust.sets.too_few(0.1) == {0: 4, 1: 4}
    found = model.predict([str(tmp_path / "39.png")])
    assert found.ood_score is None and len(found.sets(0.2)[0]) >= 1
    plain = small_model(trained=True, predictor="global", num_classes=2, class_names=("dark", "light"))
    members = collect_members(plain, as_manifest(tmp_path / "labels.csv").split("val"))
    assert members.features.shape == (8, 0)
    with_features = collect_members(plain, as_manifest(tmp_path / "labels.csv").split("val"), features=True)
    assert with_features.features.shape == (8, plain.num_features)
    with pytest.raises(ValueError, match="train"):
        fit_limits(model, [(picture, "dark") for picture in (tmp_path / "1.png", tmp_path / "2.png")])


def test_the_band_is_that_of_scipy():
    for n, m, alpha in [(99, 50, 0.1), (19, 200, 0.05), (600, 1000, 0.2)]:
        k = int(np.ceil((1 - alpha) * (n + 1) - 1e-9))
        low, high = betabinom(m, k, n + 1 - k).ppf([0.005, 0.995]) / m
        assert coverage_band(n, m, alpha) == pytest.approx((low, high), abs=1.01 / m)
