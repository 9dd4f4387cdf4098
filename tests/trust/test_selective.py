"""Deferral: the promise holds as often as it says, and is refused with a reason where it cannot be made."""

import numpy as np
import pytest
from scipy.stats import binomtest

from diffmiczoo.trust.selective import Deferral, Step, aurc, fit_deferral, risk_coverage


def pictures(count: int, seed: int, hardest: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Returns uncertainties, and errors that happen with probability `hardest` · u²."""
    rng = np.random.default_rng(seed)
    uncertainty = rng.random(count)
    return uncertainty, rng.random(count) < hardest * uncertainty**2


def test_the_promise_holds_nine_times_of_ten():
    broken, shares = [], []
    for seed in range(400):
        try:
            step = fit_deferral(*pictures(400, seed)).step(0.1)
        except ValueError:
            continue
        # Among those up to u the rate of errors is 0.3 · u².
        broken.append(0.3 * step.limit**2 > 0.1)
        shares.append(step.kept / 400)
    # 10 % may break it; four standard errors of 400 tries are 6 %. It is useless if nearly all are deferred.
    assert sum(broken) < 0.16 * 400 and len(broken) > 380 and np.mean(shares) > 0.4


def test_each_step_is_clopper_and_pearsons_test():
    for kept, errors, limit in [(100, 1, 0.05), (100, 2, 0.05), (59, 0, 0.05), (200, 4, 0.04)]:
        deferral = Deferral((Step(0.5, kept, errors),), kept)
        bound = binomtest(errors, kept).proportion_ci(0.8).high  # two-sided 80 %: 10 % above
        if bound <= limit:
            assert deferral.step(limit).kept == kept
        else:
            with pytest.raises(ValueError, match="cannot be promised"):
                deferral.step(limit)


def test_steps_after_the_first_that_fails_are_not_taken():
    steps = (Step(0.2, 120, 0), Step(0.3, 130, 40), Step(0.4, 2000, 50))
    assert Deferral(steps, 3000).step(0.05) == steps[0]


def test_the_first_step_may_have_errors_where_that_leaves_a_third_of_the_pictures():
    steps = (Step(0.1, 60, 1), Step(0.2, 120, 1), Step(0.3, 180, 2), Step(0.4, 240, 60))
    assert Deferral(steps, 300).step(0.05) == steps[2]  # 60 with an error would fail, and is not tested
    few = tuple(Step(each.limit, each.kept // 2, 0) for each in steps)
    assert Deferral(few, 150).step(0.05) == few[3]  # 105 would be needed, so that 60 without an error begin


def test_what_cannot_be_promised_says_why_and_what_can():
    with pytest.raises(ValueError, match=r"at most 5 % with 90 % confidence cannot be promised: 20 calibration groups"):
        fit_deferral(*pictures(20, 0)).step(0.05)
    bad = fit_deferral(np.linspace(0, 1, 300), np.ones(300))
    with pytest.raises(ValueError, match="are predicted wrongly"):
        bad.step(0.05)
    deferral = fit_deferral(*pictures(100, 3))
    least = deferral.least()
    assert deferral.step(least) is not None
    with pytest.raises(ValueError, match=f"the smallest that can is {100 * least:g} %"):
        deferral.step(least / 2)


@pytest.mark.parametrize("value", [0, 1, -0.1, "x", True, float("nan")])
def test_wrong_errors_are_named(value):
    with pytest.raises(ValueError, match=r"defer_error=.* must be a share between 0 and 1"):
        fit_deferral(*pictures(50, 0)).step(value)


def test_pictures_that_a_person_sees_anyway_are_never_kept():
    uncertainty, wrong = pictures(200, 5)
    uncertainty[::2] = np.inf
    deferral = fit_deferral(uncertainty, wrong)
    assert deferral.groups == 200 and deferral.steps[-1].kept == 100
    assert deferral.steps[-1].errors == wrong[1::2].sum()
    with pytest.raises(ValueError, match="infinite for every picture"):
        fit_deferral(np.full(3, np.inf), [0, 0, 1])


def test_a_group_counts_once():
    uncertainty, wrong = pictures(90, 6)
    assert fit_deferral(uncertainty, wrong, np.repeat(np.arange(30), 3)).groups == 30


def test_risk_and_coverage_by_hand():
    assert risk_coverage([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]).tolist() == [0, 0.5, 1 / 3, 0.5]
    assert risk_coverage([0.1, 0.1, 0.3, 0.4], [0, 1, 0, 1])[:2].tolist() == [0.5, 0.5]
    assert aurc([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]) == pytest.approx((0.5 + 1 / 3 + 0.5) / 4)
    with pytest.raises(ValueError, match=r"wrong has shape \(1,\), uncertainty \(2,\)"):
        aurc([0.1, 0.2], [1])
