"""Table 6 from what was counted and timed."""

from __future__ import annotations

from collections.abc import Sequence

from diffmiczoo.reporting.reproduction.costs import cost_rows
from diffmiczoo.reporting.reproduction.documents import Cell, Document, Section
from diffmiczoo.reporting.reproduction.ledger import Ledger
from diffmiczoo.reporting.reproduction.methods import PAPER, PUBLISHED_COST
from diffmiczoo.reporting.reproduction.planning import Target, rows_of
from diffmiczoo.reporting.reproduction.records import CostRecord
from diffmiczoo.reporting.reproduction.variants import Budget

_COLUMNS = ("method", "pixels", "parameters", "GMAC once", "MMAC a step", "steps", "GMAC a picture", "ms a picture")


def cost_document(target: Target, budget: Budget, methods: Sequence[str], ledger: Ledger) -> Document:
    """Returns table 6.

    Args:
        target: the table.
        budget: whose models are timed.
        methods: keys of the rows.
        ledger: with what was counted.
    """
    wanted = [variant.key for variant, _ in cost_rows(rows_of(target, budget, methods), budget)]
    records = [ledger.costs[key] for key in wanted if key in ledger.costs]
    machines = sorted({record.hardware for record in records if record.hardware})
    repeats = max((record.repeats for record in records), default=0)
    made = (
        "Multiply-accumulates of convolutions, matrix products and attention are counted, half of what PyTorch's "
        "counter of floating-point operations gives. Guidance map and image features do not depend on the timestep and "
        "are computed once.",
        f"Time: one picture at a time from memory, random weights, float32, median of {repeats} after one that is not "
        f"counted, on {'; '.join(machines) or 'no machine yet'}. Rows without a time were counted only.",
        f"The paper ({PAPER}, quoted): {PUBLISHED_COST}.",
    )
    return Document(
        target.name,
        target.title,
        (Section("Cost of one picture", _COLUMNS, tuple(map(_row, records))),),
        made,
        (
            "Which is faster on another machine, in batches, in half precision or exported: `diffmiczoo benchmark`.",
            "What else ran on the machine meanwhile: a time is an upper bound.",
        ),
        tuple(cell for record in records for cell in _cells(record)),
    )


def _row(record: CostRecord) -> tuple[str, ...]:
    macs = record.macs
    time = "–" if record.seconds is None else f"{1000 * record.seconds:,.0f}"
    once, total = (f"{macs[name] / 1e9:.3f}" for name in ("condition", "total"))
    step = f"{macs['unet'] / 1e6:,.2f}"
    step, steps = (step, str(record.steps)) if record.steps else ("–", "–")
    size, parameters = str(record.image_size), f"{record.parameters / 1e6:.2f} M"
    return (record.title, size, parameters, once, step, steps, total, time)


def _cells(record: CostRecord) -> list[Cell]:
    values = {"parameters": float(record.parameters), **{f"macs_{k}": float(v) for k, v in record.macs.items()}}
    values |= {} if record.seconds is None else {"seconds": record.seconds}
    return [Cell("cost", "", record.key, record.title, name, value) for name, value in values.items()]
