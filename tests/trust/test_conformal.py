"""Prediction sets: MAPIE's, the coverage that the theory gives, and no promise without enough pictures."""

import numpy as np
import pytest
from scipy.stats import beta

from diffmiczoo.trust.conformal import fit_sets


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def pictures(count: int, seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns probabilities, classes and one-hot classes of a classifier that is often right; classes are unequal."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(classes, count, p=np.arange(classes, 0, -1) / np.arange(classes, 0, -1).sum())
    logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[targets] + [1.0, 0.5, 0, -0.5]
    return softmax(logits), targets, np.eye(classes)[targets]


def test_sets_are_those_of_mapie():
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Known(ClassifierMixin, BaseEstimator):
        """Returns as probabilities what it is given."""

        classes_ = np.arange(4)
        __sklearn_is_fitted__ = lambda self: True

        def fit(self, X, y):
            return self

        def predict_proba(self, X):
            return X

        def predict(self, X):
            return X.argmax(1)

    probs, targets, truth = pictures(157, 0)
    new = pictures(300, 1)[0]
    ours = fit_sets(probs, truth)
    levels = [0.95, 0.9, 0.8]
    oracle = SplitConformalClassifier(Known(), confidence_level=levels, conformity_score="lac", prefit=True)
    theirs = oracle.conformalize(probs, targets).predict_set(new)[1]
    for place, level in enumerate(levels):
        assert np.array_equal(ours.contains(new, 1 - level, by_class=False), theirs[:, :, place])


@pytest.mark.parametrize("by_class", [False, True])
def test_coverage_lies_in_the_band_of_its_law(by_class):
    probs, _, truth = pictures(600, 2)
    rules, (new, targets, _) = fit_sets(probs, truth), pictures(20_000, 3)
    for alpha in (0.05, 0.1, 0.2):
        hit = rules.contains(new, alpha, by_class=by_class)[np.arange(len(new)), targets]
        parts = [(hit, 600)]
        if by_class:
            parts = [(hit[targets == c], int(truth[:, c].sum())) for c in range(4)]
        for each, count in parts:
            k = int(np.ceil((1 - alpha) * (count + 1) - 1e-9))
            low, high = beta(k, count + 1 - k).ppf([0.001, 0.999])
            noise = 4 * np.sqrt(alpha * (1 - alpha) / len(each))
            assert low - noise < each.mean() < high + noise


def test_the_promise_holds_on_average_with_few_pictures_and_groups():
    missed = {True: [], False: []}
    for seed in range(300):
        probs, targets, _ = pictures(130, 10 + seed)
        # Lesions with one to three pictures that look alike: the picture's number in its lesion blurs it a little.
        first = np.repeat(np.arange(60), np.tile([1, 2, 3], 20))
        rows, classes = probs[first], targets[first]
        rules = fit_sets(rows, np.eye(4)[classes], first)
        new, truth, _ = pictures(60, 9000 + seed)
        for by_class in missed:
            missed[by_class].append(1 - rules.contains(new, 0.1, by_class=by_class)[np.arange(60), truth].mean())
    assert np.mean(missed[False]) == pytest.approx(0.1 - 0.5 / 61, abs=0.012)
    assert np.mean(missed[True]) < 0.11


def test_a_class_with_too_few_groups_is_in_every_set_and_says_so():
    probs, _, truth = pictures(40, 4)
    truth = np.vstack([truth[truth[:, 3] == 0], np.tile([0, 0, 0, 1], (8, 1))])
    probs = np.vstack([probs[: len(truth) - 8], np.full((8, 4), 0.25)])
    rules = fit_sets(probs, truth)
    assert rules.class_groups[3] == 8 and rules.too_few(0.1)[3] == 8 and 3 not in rules.too_few(0.2)
    assert rules.rule(0.1).by_class[3] is None and rules.contains(np.eye(4)[:3], 0.1)[:, 3].all()
    assert rules.too_few(0.1, by_class=False) == {}
    three = fit_sets(probs[:3], truth[:3])
    assert three.too_few(0.2, by_class=False) == {0: 3, 1: 3, 2: 3, 3: 3} and three.contains(probs, 0.2).all()


def test_several_labels_control_the_share_that_is_missed():
    shares = {"overall": [], "by class": []}
    for seed in range(150):
        rng = np.random.default_rng(seed)
        truth = rng.random((240, 3)) < [0.5, 0.3, 0.2]
        probs = 1 / (1 + np.exp(-(rng.normal(size=truth.shape) + 3 * truth - 1.5)))
        rules = fit_sets(probs[:120], truth[:120])
        new, true = probs[120:], truth[120:]
        shown = true.any(1)
        hit = rules.contains(new, 0.1, by_class=False) & true
        shares["overall"].append(1 - (hit.sum(1)[shown] / true[shown].sum(1)).mean())
        hit = rules.contains(new, 0.1) & true
        shares["by class"].append([1 - hit[:, c].sum() / true[:, c].sum() for c in range(3)])
    assert 0.08 < np.mean(shares["overall"]) < 0.105
    assert (np.mean(shares["by class"], 0) < 0.11).all() and (np.mean(shares["by class"], 0) > 0.05).all()
    assert rules.groups == truth[:120].any(1).sum()


def test_wrong_levels_and_shapes_are_named():
    probs, _, truth = pictures(40, 4)
    rules = fit_sets(probs, truth)
    with pytest.raises(ValueError, match=r"alpha=0.15 is not among the levels .*: 0.05, 0.1, 0.2"):
        rules.contains(probs, 0.15)
    with pytest.raises(ValueError, match=r"probs have shape \(40, 3\); expected \(N, 4\)"):
        rules.contains(probs[:, :3])
    with pytest.raises(ValueError, match=r"truth has shape \(40, 3\), probs \(40, 4\)"):
        fit_sets(probs, truth[:, :3])
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        fit_sets(probs, truth, alphas=[1.5])
