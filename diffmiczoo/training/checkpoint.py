"""The state of a run, and files of it that a killed process cannot break: the old or the new one, never a mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.errors import InvalidValueError, UnusableFileError
from diffmiczoo.files import replaced

#: Version of the layout of `Checkpoint`; higher by one with every change of it.
_FORMAT = 3


@dataclass
class Progress:
    """Where a stage is: `epoch` and `batch` are done so far; `loss` is the epoch's sum, `seconds` what it took."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Best:
    """The best epoch of a stage so far.

    Attributes:
        epoch: from 1; 0 before the first validation.
        value: of the metric that selects, higher is better.
        improved: the last epoch that was better than all before it, from 1, for `Recipe.patience`.
        weights: state dict on the CPU; None before the first validation.
        calibration: fields of the config that were fitted to this epoch's scores.
    """

    epoch: int = 0
    value: float = -math.inf
    improved: int = 0
    weights: dict[str, Tensor] | None = None
    calibration: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to resume: no state of a random generator, as every number depends on seed and place alone.

    Attributes:
        recipe, config: as JSON-ready values; a run resumes only with the same.
        data: hash of the pixels, names of files, labels and splits; the same holds.
        world_size: number of processes; the same holds.
        history: a row per epoch.
        stage: number of the stage.
        progress, best: of this stage.
        model: state dict.
        optimization: `Optimization.state_dict()`.
    """

    recipe: dict[str, Any]
    config: dict[str, Any]
    data: str
    world_size: int
    history: list[dict[str, Any]]
    stage: int
    progress: Progress
    best: Best
    model: dict[str, Tensor]
    optimization: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values, which `torch.load(weights_only=True)` reads."""
        return {**_shallow(self), "progress": _shallow(self.progress), "best": _shallow(self.best)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Checkpoint:
        """Builds a checkpoint from what `to_dict` returned."""
        return cls(**{**values, "progress": Progress(**values["progress"]), "best": Best(**values["best"])})


def _shallow(record: Any) -> dict[str, Any]:
    # dataclasses.asdict would copy every tensor.
    return {entry.name: getattr(record, entry.name) for entry in fields(record)}


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint atomically.

    Raises:
        OSError: the disk is full or not writable; an older checkpoint at `path` is left as it was.
    """
    try:
        with replaced(path) as file:
            torch.save({"format": _FORMAT, **checkpoint.to_dict()}, file)
    except (OSError, RuntimeError) as error:
        before = "the one before it is intact" if path.exists() else "there is none before it"
        raise UnusableFileError(
            f"{path}: the checkpoint could not be written ({error}); {before}; two of them have to fit on the disk"
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads what `save_checkpoint` wrote, tensors and plain values only.

    Raises:
        ValueError: the file is not such a checkpoint, or one of another version.
        OSError: the file cannot be read.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError) as error:
        raise UnusableFileError(f"{path}: cannot be read ({error}); it is left as it is") from error
    except Exception as error:  # a broken file can be any program of pickle's, and its errors are any
        raise InvalidValueError(
            f"{path}: not a checkpoint of diffmiczoo ({type(error).__name__}: {error}); delete it to start again"
        ) from error
    if not isinstance(values, dict):
        raise InvalidValueError(f"{path}: not a checkpoint of diffmiczoo; delete it to start again")
    found = values.pop("format", None)
    if found != _FORMAT:
        raise InvalidValueError(
            f"{path}: written by another version of diffmiczoo (format {found}, expected {_FORMAT}); "
            "finish the run with that version, or start again with resume='never'"
        )
    try:
        return Checkpoint.from_dict(values)
    except (KeyError, TypeError) as error:
        raise InvalidValueError(
            f"{path}: a checkpoint that lacks or has more than this version knows ({error}); delete it to start again"
        ) from error


def remove_partial_checkpoints(path: Path) -> None:
    """Removes the unfinished files that killed processes left beside `path`; nobody else may be writing there."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)
