"""One run at a time in a directory."""

from __future__ import annotations

import errno
import os

from diffmiczoo.training import lock


def test_file_systems_without_locks_keep_nobody_out(manifest_csv, tmp_path, monkeypatch) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "lockf", lockf)
    with lock.exclusive(tmp_path), lock.exclusive(tmp_path, rank=1):
        assert sorted(path.name for path in tmp_path.glob(".lock*")) == [".lock0", ".lock1"]
