"""One line per epoch, for where no bar can be watched: a batch system, a file, a remote job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.metrics.table import overall_metrics
from diffmiczoo.training.callbacks import Callback
from diffmiczoo.training.stages import Stage


class EpochLog(Callback):
    """Writes stage, epoch, loss, metrics and the time that is left to the standard error.

    Args:
        stages: of the run, in order.
        select: name of the metric that chooses the best epoch, which is shown first.
        every: how many epochs go by between two lines; the last one of a stage is always written.
    """

    def __init__(self, stages: Sequence[Stage], select: str, every: int) -> None:
        self.stages, self.every = tuple(stages), every
        self._shown = list(dict.fromkeys([select, *(metric.name for metric in overall_metrics() if metric.headline)]))
        self._seconds: list[float] = []

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Writes the line of an epoch where it is the turn for one."""
        self._seconds.append(row["seconds"])
        place = next(place for place, stage in enumerate(self.stages) if stage.name == row["stage"])
        if row["epoch"] % self.every and row["epoch"] != self.stages[place].epochs:
            return
        metrics = "".join(f", {name} {row[name]:.4f}" for name in self._shown if name in row)
        print(
            f"{row['stage']} epoch {row['epoch']}/{self.stages[place].epochs}: loss {row['train_loss']:.4f}{metrics}; "
            f"{row['seconds']:.0f} s, {self._left(place, row['epoch'])}",
            file=sys.stderr,
            flush=True,
        )

    def _left(self, place: int, epoch: int) -> str:
        """Says how long the rest will take if its epochs take as long as the last ones."""
        epochs = self.stages[place].epochs - epoch + sum(stage.epochs for stage in self.stages[place + 1 :])
        recent = self._seconds[-5:]
        return f"about {duration(epochs * sum(recent) / len(recent))} left" if epochs else "the last one"


def log_interval(log_every: int | None, progress: bool | None) -> int:
    """Returns how many epochs go by between two lines, 0 for none.

    Args:
        log_every: as `fit` takes it; None means 1 where no bars are shown and `progress` does not ask for silence.
        progress: as `fit` takes it.

    Raises:
        ValueError: `log_every` is negative or not a whole number.
    """
    if log_every is None:
        return int(progress is None and not sys.stderr.isatty())
    if isinstance(log_every, bool) or not isinstance(log_every, int) or log_every < 0:
        raise InvalidValueError(f"log_every={log_every!r} must be a whole number of at least 0; 0 writes no lines")
    return log_every


def duration(seconds: float) -> str:
    """Returns a time in the unit that suits it: "40 s", "7 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
