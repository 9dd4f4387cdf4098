"""Paired tests of two models on the same images: may what differs be chance?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffmiczoo.evaluation.results import Answers

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True)
class TestResult:
    """One test.

    Attributes:
        test: its name.
        what: what was compared.
        first, second: the values of the two models.
        p_value: probability, were the models alike, of a difference at least this large; two-sided.
    """

    __test__ = False  # not a class of tests, whatever pytest thinks of its name

    test: str
    what: str
    first: float
    second: float
    p_value: float


def paired_tests(first: Answers, second: Answers) -> list[TestResult]:
    """Tests two models on the same images; small p-values say that the difference is no chance.

    - Paired t-test on the Brier score and on -log p of the truth, per image, or per group where there are groups: the
      images of one lesion are not independent.
    - McNemar's exact test on which images are right, for "multiclass"; it takes images as independent.
    - DeLong's test on the AUROC of each class that has positive and negative images; it does so too.

    No p-value is corrected for the number of tests.

    Args:
        first: one model's answers.
        second: the other's, for the same images in the same order.

    Raises:
        ValueError: the answers are for other images or classes.
        ImportError: SciPy is not installed.

    Source: McNemar (Psychometrika 1947); DeLong, DeLong, Clarke-Pearson (Biometrics 1988), by the fast ranks of Sun
    and Xu (IEEE SPL 2014).
    """
    first.check_same_images(second)
    stats = _scipy_stats()
    truth = _truth(first)
    results = [_t_test(stats, name, values, first.groups) for name, values in _losses(first, second, truth).items()]
    if first.task == "multiclass":
        results.append(_mcnemar(stats, first, second, truth))
    for column, name in enumerate(first.class_names):
        positive = truth[:, column]
        if positive.any() and not positive.all():
            results.append(_delong(stats, name, first, second, column, positive))
    return results


def _scipy_stats() -> ModuleType:
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError('paired tests need SciPy: pip install "diffmiczoo[stats]"') from error
    module: ModuleType = stats
    return module


def _truth(answers: Answers) -> np.ndarray:
    targets = answers.targets.numpy()
    if answers.task == "multiclass":
        return np.eye(len(answers.class_names), dtype=bool)[targets]
    return targets.astype(bool)


def _losses(first: Answers, second: Answers, truth: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    probs = [answers.probs.double().numpy() for answers in (first, second)]
    tiny = np.finfo(np.float64).eps
    reduce = np.sum if first.task == "multiclass" else np.mean
    right = [np.where(truth, each, 1.0 if first.task == "multiclass" else 1 - each) for each in probs]
    return {
        "Brier score": tuple(reduce(np.square(each - truth), axis=1) for each in probs),
        "NLL": tuple(reduce(-np.log(np.maximum(each, tiny)), axis=1) for each in right),
    }


def _t_test(stats: Any, name: str, values: tuple[np.ndarray, np.ndarray], groups: tuple[str, ...] | None) -> TestResult:
    means = [_per_group(each, groups) for each in values]
    unit = "image" if groups is None else "group"
    return TestResult(
        "paired t-test",
        f"{name} per {unit}",
        float(values[0].mean()),
        float(values[1].mean()),
        float(stats.ttest_rel(*means).pvalue) if np.any(means[0] != means[1]) else 1.0,
    )


def _per_group(values: np.ndarray, groups: tuple[str, ...] | None) -> np.ndarray:
    if groups is None:
        return values
    _, of_image = np.unique(groups, return_inverse=True)
    means: np.ndarray = np.bincount(of_image, values) / np.bincount(of_image)
    return means


def _mcnemar(stats: Any, first: Answers, second: Answers, truth: np.ndarray) -> TestResult:
    right = [np.take_along_axis(truth, each.probs.argmax(1, keepdim=True).numpy(), 1)[:, 0] for each in (first, second)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    differ = only_first + only_second
    p_value = float(stats.binomtest(only_first, differ).pvalue) if differ else 1.0
    return TestResult("McNemar", "accuracy", float(right[0].mean()), float(right[1].mean()), p_value)


def _delong(stats: Any, name: str, first: Answers, second: Answers, column: int, positive: np.ndarray) -> TestResult:
    scores = np.stack([answers.probs[:, column].double().numpy() for answers in (first, second)])
    areas, covariance = delong(scores, positive)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    gap = areas[0] - areas[1]
    p_value = float(2 * stats.norm.sf(abs(gap) / np.sqrt(variance))) if variance > 0 else float(gap == 0)
    return TestResult("DeLong", f"AUROC {name}", float(areas[0]), float(areas[1]), p_value)


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
    # One image tells nothing about spread.
    return np.cov(rows) if rows.shape[1] > 1 else np.zeros((len(rows), len(rows)))


def as_table(results: list[TestResult]) -> str:
    """Returns results as a Markdown table."""
    lines = ["| test | of | first | second | p |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.test} | {row.what} | {row.first:.4f} | {row.second:.4f} | {row.p_value:.3g} |" for row in results
    ]
    return "\n".join(lines)
