"""What a recalibrated model's folder says of it: README.md and recalibration.json, and a section for cards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import check_directory, write_text
from diffmiczoo.hub.card import NOT_CLINICAL
from diffmiczoo.hub.card_tables import table
from diffmiczoo.hub.companions import StorableModel
from diffmiczoo.hub.serialization import RECALIBRATED, RECALIBRATION_FILE, save_directory
from diffmiczoo.metrics.recalibration import Recalibration, cells
from diffmiczoo.runtime.text import markdown_text

_BACK = (
    "The calibration from before is stored with the weights: `model.undo_recalibration()` goes back to it. All other "
    "numbers that are known of the weights were measured with the calibration from before."
)


def check_output(directory: Path, source: Path | None) -> None:
    """Refuses a folder that a recalibrated model cannot be written into.

    Args:
        directory: it.
        source: the folder that the weights were loaded from.

    Raises:
        ValueError: it is that of the weights themselves, whose card would no longer be about them.
        OSError: nothing can be written there.
    """
    if source is not None and directory.exists() and source.exists() and directory.samefile(source):
        raise InvalidValueError(f"{directory} holds the weights that are recalibrated; choose another folder")
    check_directory(directory)


def save_recalibrated(model: StorableModel, directory: str | os.PathLike[str]) -> None:
    """Writes weights, config, README.md and recalibration.json of a recalibrated model into a folder, made if need be.

    Tensors are stored in half precision where that loses nothing, as those of shipped weights are.

    Raises:
        ValueError: the model was not recalibrated.
        OSError: the folder cannot be written.
    """
    if model.recalibration is None:
        raise InvalidValueError("the model was not recalibrated")
    directory = Path(directory)
    save_directory(model, directory, dtype=torch.float16 if _fits_half(model) else None)
    write_text(directory / RECALIBRATION_FILE, json.dumps(model.recalibration.to_dict(), indent=1) + "\n")
    write_text(directory / "README.md", _readme(model.recalibration, directory))


def _fits_half(model: StorableModel) -> bool:
    tensors = (tensor for tensor in model.state_dict().values() if tensor.is_floating_point())
    return all(torch.equal(tensor.half().to(tensor.dtype), tensor) for tensor in tensors)


def _readme(found: Recalibration, directory: Path) -> str:
    use = (
        "```python\nimport diffmiczoo\n\n"
        f'model = diffmiczoo.create_model("local-dir:{directory.name}", pretrained=True)\n```'
    )
    parts = [f"# {markdown_text(found.source)}{RECALIBRATED}", NOT_CLINICAL, use, recalibration_section(found)]
    return "\n\n".join(parts) + "\n"


def recalibration_section(found: Recalibration) -> str:
    """Returns what was done and what came of it, as Markdown."""
    parts = ["## Recalibration", markdown_text(found.sentence())]
    if found.changes:
        rows = [(each.label, *cells(each)) for each in found.changes]
        headings = ("local pictures", "before", "after", "difference")
        columns = {name: list(column) for name, column in zip(headings, zip(*rows, strict=True), strict=True)}
        parts += [
            "Measured on the local pictures with 95 % bootstrap intervals over groups; *after* by cross-fitting: each "
            "fifth of the groups with what was fitted to the others.",
            table(columns),
        ]
    return "\n\n".join([*parts, *map(markdown_text, found.notes), _BACK])


def with_recalibration(card: str, found: Recalibration) -> str:
    """Returns a card that says before its results that the model was recalibrated after they were measured."""
    card = card.replace(", fitted on the validation split;", ", fitted to local pictures (Recalibration);", 1)
    return card.replace("\n## Results\n", f"\n{recalibration_section(found)}\n\n## Results\n", 1)
