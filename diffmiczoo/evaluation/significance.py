"""Paired tests of two models on the same images: is the difference significant?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from diffmiczoo.data.groups import group_numbers
from diffmiczoo.errors import MissingExtraError
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.metrics.definitions import brier_per_image, nll_per_image, right_per_image
from diffmiczoo.metrics.weighted import ScoredImages


@dataclass(frozen=True)
class PairedTest:
    """One test.

    Attributes:
        test: its name.
        what: what was compared.
        first, second: the values of the two models.
        p_value: probability, were the models alike, of a difference at least this large; two-sided.
    """

    test: str
    what: str
    first: float
    second: float
    p_value: float


def paired_tests(first: LabelledPredictions, second: LabelledPredictions) -> list[PairedTest]:
    """Tests two models on the same images; a small p-value says that chance alone hardly explains the difference.

    - Paired t-test on the Brier score and on -log p of the truth, per image, or per group where there are groups: the
      images of one lesion are not independent.
    - McNemar's exact test on which images are right, for "multiclass"; it takes images as independent.
    - DeLong's test on the AUROC of each class that has positive and negative images; it does so too.

    No p-value is corrected for the number of tests.

    Args:
        first: one model's predictions.
        second: the other's, for the same images in the same order.

    Raises:
        ValueError: the predictions are for other images or classes.
        ImportError: SciPy is not installed.

    Source: McNemar (Psychometrika 1947); DeLong, DeLong, Clarke-Pearson (Biometrics 1988), by the fast ranks of Sun
    and Xu (IEEE SPL 2014).
    """
    first.check_same_images(second)
    stats, pair = _scipy_stats(), (first.scored(), second.scored())
    results = [
        _t_test(stats, name, [images.per_image(loss) for images in pair], first.groups)
        for name, loss in (("Brier score", brier_per_image), ("NLL", nll_per_image))
    ]
    if first.task == "multiclass":
        results.append(_mcnemar(stats, pair))
    for column, name in enumerate(first.class_names):
        positive = pair[0].truth[:, column]
        if positive.any() and not positive.all():
            results.append(_delong(stats, name, np.stack([images.probs[:, column] for images in pair]), positive))
    return results


def _scipy_stats() -> ModuleType:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError('paired tests need SciPy: pip install "diffmiczoo[stats]"') from error
    module: ModuleType = stats
    return module


def _t_test(stats: ModuleType, name: str, values: Sequence[np.ndarray], groups: tuple[str, ...] | None) -> PairedTest:
    means = [_per_group(each, groups) for each in values]
    unit = "image" if groups is None else "group"
    return PairedTest(
        "paired t-test",
        f"{name} per {unit}",
        float(values[0].mean()),
        float(values[1].mean()),
        float(stats.ttest_rel(*means).pvalue) if np.any(means[0] != means[1]) else 1.0,
    )


def _per_group(values: np.ndarray, groups: tuple[str, ...] | None) -> np.ndarray:
    if groups is None:
        return values
    numbers, _ = group_numbers(groups)
    means: np.ndarray = np.bincount(numbers, values) / np.bincount(numbers)
    return means


def _mcnemar(stats: ModuleType, pair: tuple[ScoredImages, ScoredImages]) -> PairedTest:
    right = [images.per_image(right_per_image).astype(bool) for images in pair]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    differ = only_first + only_second
    p_value = float(stats.binomtest(only_first, differ).pvalue) if differ else 1.0
    return PairedTest("McNemar", "accuracy", float(right[0].mean()), float(right[1].mean()), p_value)


def _delong(stats: ModuleType, name: str, scores: np.ndarray, positive: np.ndarray) -> PairedTest:
    areas, covariance = delong(scores, positive)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    gap = areas[0] - areas[1]
    p_value = float(2 * stats.norm.sf(abs(gap) / np.sqrt(variance))) if variance > 0 else float(gap == 0)
    return PairedTest("DeLong", f"AUROC {name}", float(areas[0]), float(areas[1]), p_value)


def delong(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the AUROC of R scorings of the same images, (R,), and their covariance, (R, R).

    Args:
        scores: (R, N).
        positive: (N,) bool, with both kinds.
    """
    from scipy.stats import rankdata

    cases, controls = scores[:, positive], scores[:, ~positive]
    m, n = cases.shape[1], controls.shape[1]
    together = rankdata(np.concatenate([cases, controls], axis=1), axis=1)
    of_cases = (together[:, :m] - rankdata(cases, axis=1)) / n
    of_controls = 1 - (together[:, m:] - rankdata(controls, axis=1)) / m
    covariance = _covariance(of_cases) / m + _covariance(of_controls) / n
    return of_cases.mean(1), covariance


def _covariance(rows: np.ndarray) -> np.ndarray:
    # A single image has no spread.
    return np.cov(rows) if rows.shape[1] > 1 else np.zeros((len(rows), len(rows)))


def tests_as_markdown(results: list[PairedTest]) -> str:
    """Returns the tests as a Markdown table."""
    lines = ["| test | of | first | second | p |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.test} | {row.what} | {row.first:.4f} | {row.second:.4f} | {row.p_value:.3g} |" for row in results
    ]
    return "\n".join(lines)
