"""The report on what weights know about their limits, through JSON and into a card."""

import json

import pytest

from diffmiczoo.hub.card_tables import known_limits
from diffmiczoo.metrics.trust import DeferralOutcome, SetCoverage, TrustReport

SETS = (
    SetCoverage(0.1, False, 1.4, 0.91, (0.85, 0.95), {"nv": (0.97, None)}),
    SetCoverage(0.1, True, 2.0, 0.92, None, {"nv": (0.9, (0.8, 0.99)), "df": (1.0, None)}),
)
PROMISES = (DeferralOutcome(0.02, None, None, 0), DeferralOutcome(0.05, 0.4, 0.03, 120))
REPORT = TrustReport(0.94, (0.9, 0.98), {"busi": (0.99, 132)}, SETS, PROMISES, 0.05, (0.0, 0.1), 0.03)


def test_json_gives_it_back():
    again = TrustReport.from_dict(json.loads(json.dumps(REPORT.to_dict())))
    assert again.table() == REPORT.table() and again.coverage(0.1, True).size == 2.0
    with pytest.raises(ValueError, match="no report of what weights know"):
        TrustReport.from_dict({"kept": 1})
    with pytest.raises(ValueError, match=r"sets at 0.3 was not measured"):
        REPORT.coverage(0.3, True)


def test_a_card_tells_it():
    text = known_limits(REPORT)
    assert "6.0 % of the test pictures (2.0 % to 10.0 % expected), 99.0 % of 132 from busi" in text
    assert "for at most 5.0 % errors a person sees 40.0 % of the test pictures, and 3.0 % of the other 120" in text
    assert "| surest | 10 % | 20 % |" in text and "2.0 %" in text
    few = TrustReport(None, None, {}, SETS, PROMISES[:1], 0.05, (0.0,), None)
    assert "too few validation pictures to tell" in known_limits(few) and "No share of errors" in known_limits(few)
