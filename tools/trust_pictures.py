"""Draws docs/images/trust.png: what weights know about their limits, on pictures of their test split and of others.

    python tools/trust_pictures.py diffmicv2_nano.busi --data ../shared/data/busi --foreign ../shared/data/ham10000 …

Four panels, a question each: is it of the right kind, which classes cannot be ruled out, what should a person see, how
surely is it wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import diffmiczoo
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.members import collect_members
from diffmiczoo.evaluation.trust import Known, some_of
from diffmiczoo.metrics.held_back import HeldBack
from diffmiczoo.model import DiffMICv2
from diffmiczoo.trust.selective import risk_coverage
from diffmiczoo.trust.stored import Trust

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "trust.png"

#: Pictures of each foreign set, the levels of sets, and the promised errors.
MOST_FOREIGN, ALPHAS, ERRORS = 100, (0.05, 0.1, 0.2), (0.1, 0.2)

_RIGHT, _WRONG, _GREY = "#0b7a8c", "#c2410c", "#8a949e"


def draw_gate(axes: Axes, trust: Trust, test: HeldBack, foreign: dict[str, np.ndarray]) -> None:
    assert trust.gate is not None
    parts = {"own": trust.gate.score(test.features)} | {name: trust.gate.score(each) for name, each in foreign.items()}
    edges = np.geomspace(0.2, max(each.max() for each in parts.values()), 40)
    for place, (name, scores) in enumerate(parts.items()):
        share = np.full(len(scores), 1 / len(scores))
        axes.hist(scores, edges, weights=share, alpha=0.55, label=name, color=_RIGHT if name == "own" else f"C{place}")
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="ood_score, above 1: flagged", ylabel="share of the pictures")
    axes.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.set_xticks([], minor=True)
    axes.set_xlim(0.4, edges[-1])
    axes.set_title("Is the picture of the right kind?", fontsize=10)
    axes.legend(fontsize=7, frameon=False)


def draw_sets(axes: Axes, trust: Trust, test: HeldBack, names: tuple[str, ...]) -> None:
    assert trust.sets is not None
    for place, alpha in enumerate(ALPHAS):
        inside = trust.sets.contains(test.probs, alpha, by_class=True)
        covered = [(inside & test.truth)[:, each].sum() / test.truth[:, each].sum() for each in range(len(names))]
        left = np.arange(len(names)) + 0.26 * (place - 1)
        axes.bar(left, covered, 0.24, color=_RIGHT, alpha=1 - 0.3 * place, label=f"α = {alpha}")
        axes.plot([left[0] - 0.15, left[-1] + 0.15], [1 - alpha] * 2, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set(ylim=(0.5, 1.02), ylabel="true class in the set")
    axes.set_title("Which classes cannot be ruled out?", fontsize=10)
    axes.legend(fontsize=7, loc="lower right")


def draw_deferral(axes: Axes, trust: Trust, test: HeldBack) -> None:
    assert trust.deferral is not None
    risks = risk_coverage(test.uncertainty, test.wrong)
    axes.plot(np.arange(1, len(risks) + 1) / len(risks), risks, color=_WRONG)
    for error in ERRORS:
        kept = float((test.uncertainty <= trust.deferral.step(error).limit).mean())
        axes.plot([0, kept], [error] * 2, color="black", linewidth=0.8, linestyle=":")
        axes.plot([kept] * 2, [0, error], color="black", linewidth=0.8)
        axes.text(kept, error, f" ≤ {error:.0%} promised\n for {kept:.0%}", fontsize=7, va="bottom", ha="right")
    axes.set(xlim=(0, 1), ylim=(0, 0.3), xlabel="share of the pictures that no person sees", ylabel="wrong among them")
    axes.set_title("What should a person see?", fontsize=10)


def draw_uncertainty(axes: Axes, test: HeldBack) -> None:
    edges = np.linspace(0, 1, 11)
    for wrong, name, colour in ((False, "right", _RIGHT), (True, "wrong", _WRONG)):
        values = test.uncertainty[test.wrong == wrong]
        axes.hist(values, edges, weights=np.full(len(values), 1 / len(values)), alpha=0.6, color=colour, label=name)
    axes.set(xlabel="uncertainty", ylabel="share of the pictures")
    axes.set_title("How surely is it wrong?", fontsize=10)
    axes.legend(fontsize=7, frameon=False)


def figure_of(model: DiffMICv2, data: Path, foreign: tuple[Path, ...]) -> Figure:
    config, trust = model.config, model.trust
    if trust is None or trust.gate is None or trust.sets is None or trust.deferral is None:
        raise click.ClickException("these weights do not know their limits; run tools/fit_trust.py")
    manifest = as_manifest(data, class_names=config.class_names, task=config.task).split("test")
    test, others = Known.of(collect_members(model, manifest), manifest, config), {}
    for path in foreign:
        found = as_manifest(path)
        some = some_of(found.split("test") if found.has_splits else found, MOST_FOREIGN)
        others[path.stem.removesuffix("_subset")] = collect_members(model, some).features.numpy()
    figure = Figure(figsize=(8, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    gate, sets, deferral, uncertainty = (figure.add_subplot(2, 2, place + 1) for place in range(4))
    draw_gate(gate, trust, test, others)
    draw_sets(sets, trust, test, config.labels)
    draw_deferral(deferral, trust, test)
    draw_uncertainty(uncertainty, test)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure


@click.command()
@click.argument("name")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="What they were trained on.")
@click.option("--foreign", multiple=True, type=click.Path(exists=True, path_type=Path), help="Pictures of other kinds.")
def main(name: str, data: Path, foreign: tuple[Path, ...]) -> None:
    """Draw what the weights NAME know about their limits."""
    figure_of(diffmiczoo.create_model(name, pretrained=True), data, foreign).savefig(PICTURE)


if __name__ == "__main__":
    sys.exit(main())
