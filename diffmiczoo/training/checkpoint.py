"""Checkpoints that a killed process cannot break: the old or the new file, never a mixture."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

# Counts the ways in which the state of a run has been laid out.
_FORMAT = 2


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes `state` to `path` atomically.

    Raises:
        OSError: the disk is full or not writable; an older checkpoint at `path` is left as it was.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": _FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path}: the checkpoint could not be written ({error}); the one before it is intact") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, tensors and plain values only.

    Raises:
        ValueError: the file is not such a checkpoint, or one of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{path}: not a checkpoint of diffmiczoo ({error}); delete it to start again") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint of diffmiczoo; delete it to start again")
    found = state.pop("format", None)
    if found != _FORMAT:
        raise ValueError(
            f"{path}: written by another version of diffmiczoo (format {found}, expected {_FORMAT}); "
            "finish the run with that version, or start again with resume='never'"
        )
    return state
