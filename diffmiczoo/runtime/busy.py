"""Whether other processes take the cores away that this one computes on."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

#: Share of the time that its threads could compute, below which a process is taken for one that waits for cores.
_LEAST_SHARE = 0.6

#: Seconds that are looked at together.
_WINDOW = 10.0

#: Where Linux says how many cores' time a container may use: "QUOTA PERIOD", or "max PERIOD".
_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Returns how many cores this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA_FILE.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def busy_hint(wall: float, cpu: float, threads: int, cores: int, load: float) -> str | None:
    """Returns a sentence where a process with several threads waits for cores; None where all is well.

    Threads that share the work of a layer wait for the slowest of them, and spin meanwhile: two processes with two
    threads each on two cores can take ten times as long as with one each.

    Args:
        wall: seconds that went by.
        cpu: seconds that the process computed meanwhile, of all threads together.
        threads: that torch uses.
        cores: that the process may use.
        load: processes that run or wait to, the system's average over a minute.
    """
    if threads > cores:
        return f"{threads} threads share {cores} usable {_cores(cores)}; try --threads {cores}, or {_call(cores)}"
    share = cpu / (wall * threads)
    if threads == 1 or load <= 1.2 * cores or share >= _LEAST_SHARE:
        return None
    return (
        f"this machine is busy: load {load:.1f} on {cores} {_cores(cores)}, and {threads} threads get the time of "
        f"{share * threads:.1f}; try --threads 1, or {_call(1)}"
    )


def _cores(count: int) -> str:
    return "core" if count == 1 else "cores"


def _call(threads: int) -> str:
    return f"torch.set_num_threads({threads})"


@dataclass
class BusyWatch:
    """Looks from time to time whether the process waits for cores, until it has said so once."""

    _since: float = field(default_factory=time.monotonic)
    _cpu: float = field(default_factory=time.process_time)
    _said: bool = False

    def hint(self) -> str | None:
        """Returns the sentence of `busy_hint`, once; to be called between steps."""
        wall = time.monotonic() - self._since
        if self._said or wall < _WINDOW or not hasattr(os, "getloadavg"):
            return None
        cpu = time.process_time() - self._cpu
        found = busy_hint(wall, cpu, torch.get_num_threads(), usable_cores(), os.getloadavg()[0])
        self._since, self._cpu, self._said = time.monotonic(), time.process_time(), found is not None
        return found
