"""Tables and figures as files: Markdown for people, CSV and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from diffmiczoo.data.manifest import Manifest
from diffmiczoo.files import write_text
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.reproduction.comparison import comparison_document
from diffmiczoo.reporting.reproduction.cost_table import cost_document
from diffmiczoo.reporting.reproduction.documents import Document, Section
from diffmiczoo.reporting.reproduction.figures import (
    Picture,
    draw_convergence,
    draw_embedding,
    draw_maps,
    draw_sweeps,
)
from diffmiczoo.reporting.reproduction.methods import METHODS, PUBLISHED_SWEEPS
from diffmiczoo.reporting.reproduction.notes import made_of, not_shown_by, row_notes, seeds_note, split_notes
from diffmiczoo.reporting.reproduction.planning import Target, rows_of
from diffmiczoo.reporting.reproduction.summary import finished
from diffmiczoo.reporting.reproduction.variants import Budget, Run
from diffmiczoo.reporting.reproduction.workspace import Workspace
from diffmiczoo.zoo.factory import create_model

#: What a figure shows, in words.
_ABOUT = {
    "maps": "The DCG's own saliency, and Grad-CAM through each encoder, of the picture's true class.",
    "embedding": "The U-Net's features, each panel embedded by itself: look at whether classes part, not at places.",
    "sweep": f"Sweeps as in table 5. In words, {PUBLISHED_SWEEPS}.",
    "convergence": "Both diffusions build on a DCG of their own run, which is trained before; epochs cost different "
    "amounts of time.",
}


def write_target(
    target: Target, budget: Budget, runs: Sequence[Run], methods: Sequence[str], space: Workspace
) -> tuple[tuple[Path, ...], str]:
    """Writes a table or figure from what is finished.

    Args:
        target: table or figure.
        budget: of its runs.
        runs: all that are wanted.
        methods: keys of the rows of a comparison.
        space: with the finished runs; figures 3 and 5 also need its pictures and weights.

    Returns:
        The files, and the Markdown.

    Raises:
        ImportError: matplotlib is not installed, for figures.
    """
    if target.kind == "cost":
        document = cost_document(target, budget, methods, space.ledger)
    elif target.is_figure:
        document = _figure(target, budget, runs, space)
    else:
        document = comparison_document(target, budget, runs, methods, space.ledger)
    path, text = space.output / f"{target.name}.md", document.markdown()
    write_text(path, text)
    files = [path]
    if document.cells:
        files.append(path.with_suffix(".csv"))
        write_text(files[-1], document.csv())
    files.append(path.with_suffix(".json"))
    write_text(files[-1], json.dumps(document.to_dict(), indent=1, ensure_ascii=False) + "\n")
    drawn = [space.output / file for section in document.sections for file, _ in section.pictures]
    return (*files, *drawn), text


def _figure(target: Target, budget: Budget, runs: Sequence[Run], space: Workspace) -> Document:
    found = finished(space.ledger, runs)
    records = [record for each in found.values() for record in each]
    rows = rows_of(target, budget)
    if target.kind == "sweep":
        drawn = draw_sweeps(budget, runs, space.ledger, space.output, target.name)
    elif target.kind == "convergence":
        titles = {key: METHODS[key].title for key in (row.key for row in rows)}
        drawn = draw_convergence(runs, space.ledger, titles, space.output, target.name)
    else:
        drawn = _drawn_by_model(target, runs, space)
    keys = dict.fromkeys((run.dataset, run.protocol) for run in runs)
    splits = [space.ledger.splits[key] for key in keys if key in space.ledger.splits]
    notes = (_ABOUT[target.kind], *split_notes(splits))
    if not drawn:
        notes = ("Nothing is drawn yet: no run is finished, or its weights or pictures are not here.", *notes)
    counts = [len(each) for each in found.values() if each]
    made = [*made_of(budget, records, len(runs)), *row_notes(rows)]
    if target.kind in ("sweep", "convergence"):
        made.append(seeds_note(counts))
    starts = {record.imagenet for record in records}
    heading = splits[0].title if splits else target.title
    return Document(
        target.name,
        target.title,
        (Section(heading, notes=notes, pictures=tuple(drawn)),),
        tuple(made),
        tuple(not_shown_by(target, budget, splits, starts)),
    )


def _drawn_by_model(target: Target, runs: Sequence[Run], space: Workspace) -> list[Picture]:
    """Draws what needs the weights and the test pictures of a run."""
    run = next((each for each in runs if each.id in space.ledger.runs), None)
    test = None if run is None else space.manifests.get((run.dataset, run.protocol))
    weights = None if run is None else space.directory(run) / space.ledger.runs[run.id].tested
    if test is None or weights is None or not weights.is_dir():
        return []
    model: DiffMICv2 = create_model(f"local-dir:{weights}", pretrained=True, device=space.device)
    pictures: Manifest = test.split("test")
    draw = draw_maps if target.kind == "maps" else draw_embedding
    return draw(model, pictures, space.output, target.name)
