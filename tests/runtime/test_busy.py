"""When a process is said to wait for cores."""

from __future__ import annotations

import pytest

from diffmiczoo.runtime import busy
from diffmiczoo.runtime.busy import BusyWatch, busy_hint, usable_cores


@pytest.mark.parametrize(
    ("wall", "cpu", "threads", "cores", "load", "hint"),
    [
        (10, 9, 2, 2, 4.0, "this machine is busy: load 4.0 on 2 cores, and 2 threads get the time of 0.9; try"),
        (10, 19, 2, 2, 4.0, None),  # others wait, this one does not
        (10, 5, 2, 2, 1.0, None),  # it reads files on a quiet machine
        (10, 3, 1, 2, 9.0, None),  # nothing to lower
        (10, 20, 64, 2, 0.5, "64 threads share 2 usable cores; try --threads 2"),  # a container's quota
        (10, 5, 4, 1, 0.5, "4 threads share 1 usable core; try --threads 1"),
    ],
)  # fmt: skip
def test_waiting_for_cores_is_told_from_other_waiting(wall, cpu, threads, cores, load, hint: str | None) -> None:
    found = busy_hint(wall, cpu, threads, cores, load)
    assert found is None if hint is None else found.startswith(hint)


def test_it_is_said_once(monkeypatch) -> None:
    now = iter([5.0, 11.0, 11.0, 30.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    monkeypatch.setattr("time.process_time", lambda: 0.0)
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 9.0, 9.0), raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setattr(busy, "usable_cores", lambda: 2)
    watch = BusyWatch(0.0, 0.0)
    assert watch.hint() is None  # too early to tell
    assert watch.hint().startswith("this machine is busy") and watch.hint() is None


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("x", 4)])
def test_a_containers_quota_counts(quota: str, cores: int, tmp_path, monkeypatch) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(busy, "_QUOTA_FILE", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert usable_cores() == cores
