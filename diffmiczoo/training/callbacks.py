"""`Callback`: code of the caller's that a run calls at fixed points; TensorBoard is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffmiczoo.errors import MissingExtraError


class Callback:
    """Subclass it and override what you need. Every process of a run calls its own callbacks."""

    def on_step(self, stage: str, epoch: int, batch: int) -> None:
        """Runs before each training step; `epoch` and `batch` count from 0."""

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Runs after each epoch, with the epoch's row of metrics.csv."""

    def on_checkpoint(self, path: Path) -> None:
        """Runs after a checkpoint was written, which only rank 0 does."""

    def on_end(self) -> None:
        """Runs when training ends, by an error too."""


class TensorBoardCallback(Callback):
    """Writes the numbers of every epoch for TensorBoard.

    Args:
        directory: made if need be.

    Raises:
        ImportError: tensorboard is not installed; the message names the extra.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError(
                'tensorboard=True needs tensorboard: pip install "diffmiczoo[tensorboard]"'
            ) from error
        self._writer = SummaryWriter(str(directory))

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Writes one row."""
        for name, value in row.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{row['stage']}/{name}", value, row["epoch"])

    def on_end(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()
