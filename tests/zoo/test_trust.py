"""What shipped weights know about their limits holds on their test split, by the report that was made with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scipy.stats import binom

from diffmiczoo.hub.card_facts import METRICS_FILE
from diffmiczoo.hub.serialization import load_model
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo.weights import WEIGHTS, WEIGHTS_DIRECTORY

SHIPPED = sorted(name for name in WEIGHTS if (WEIGHTS_DIRECTORY / name / METRICS_FILE).is_file())

#: Pictures of the same kind from elsewhere, which weights may take for their own.
NEAR = {
    "diffmicv2_nano.aptos2019": {"retinamnist"},
    "diffmicv2_nano.chestxray14": {"nihcxr_64px", "pneumoniamnist"},
}


def report_of(name: str) -> dict[str, Any]:
    metrics = json.loads((WEIGHTS_DIRECTORY / name / METRICS_FILE).read_text(encoding="utf-8"))
    assert "trust" in metrics, f"{name} knows nothing of its limits: tools/fit_trust.py"
    return metrics["trust"]


@pytest.mark.parametrize("name", SHIPPED)
def test_own_pictures_pass_and_foreign_ones_do_not(name: str) -> None:
    report = report_of(name)
    low, high = report["kept_band"]
    assert low <= report["kept"] <= high
    others = {other: share for other, (share, _) in report["flagged"].items() if other not in NEAR.get(name, ())}
    assert len(others) >= 3 and min(others.values()) >= 0.95, others


def test_sets_cover_what_they_promise_in_every_class() -> None:
    inside = []
    for name in SHIPPED:
        metrics = json.loads((WEIGHTS_DIRECTORY / name / METRICS_FILE).read_text(encoding="utf-8"))
        for each in metrics.get("trust", {}).get("sets", ()):
            pairs = [(each["coverage"], each["band"]), *each["class_coverage"].values()]
            inside += [band[0] <= share <= band[1] for share, band in pairs if band is not None]
    # Of bands that hold 99 %, as many may be missed as one of a thousand draws would.
    assert len(inside) - sum(inside) <= binom(len(inside), 0.01).ppf(0.999)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_no_person_sees_is_wrong_as_rarely_as_promised(name: str) -> None:
    for outcome in report_of(name)["deferral"]:
        if outcome["seen"] is not None:
            wrong = round(outcome["found"] * outcome["others"])
            assert wrong <= binom(outcome["others"], outcome["error"]).ppf(0.999)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_weights_hold_it_in_little_room(name: str) -> None:
    report_of(name)
    model = load_model(WEIGHTS_DIRECTORY / name, DiffMICv2)
    assert model.trust is not None and model.start_noise is not None
    assert len(model.trust.to_text()) <= 256_000
    assert not model.trust.changed(model.config.to_dict())
