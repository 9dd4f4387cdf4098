"""SHA-256 verification, done once for each file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import diffmiczoo
from diffmiczoo.hub.checksums import ChecksumError, FileHash, sha256_of, verify


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("diffmiczoo.hub.checksums.cache_directory", lambda: tmp_path / "verified")
    return tmp_path / "verified"


def test_a_file_is_read_once_while_it_stays_the_same(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"right")
    right = FileHash(sha256_of(path), 5)
    verify(path, right)
    monkeypatch.setattr("diffmiczoo.hub.checksums.sha256_of", lambda _: pytest.fail("read again"))
    verify(path, right)
    monkeypatch.undo()
    monkeypatch.setattr("diffmiczoo.hub.checksums.cache_directory", lambda: cache)
    for wrong in (b"wrong", b"right!"):
        path.write_bytes(wrong)
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        with pytest.raises(ChecksumError, match="expected"):
            verify(path, right)


def test_a_remembered_verification_is_for_that_content_only(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"right")
    verify(path, FileHash(sha256_of(path), 5))
    with pytest.raises(ChecksumError, match="has sha256"):
        verify(path, FileHash("0" * 64, 5))


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "occupied").write_text("a file, not a directory")
    monkeypatch.setattr("diffmiczoo.hub.checksums.cache_directory", lambda: tmp_path / "occupied" / "verified")
    path = tmp_path / "file"
    path.write_bytes(b"right")
    verify(path, FileHash(sha256_of(path), 5))


def test_changed_weights_of_the_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    name = "diffmicv2_nano.ham10000"
    source = Path(diffmiczoo.__file__).parent / "weights" / name
    shutil.copytree(source, tmp_path / name)
    monkeypatch.setattr("diffmiczoo.zoo.weights.WEIGHTS_DIRECTORY", tmp_path)
    assert diffmiczoo.create_model(name, pretrained=True).trained
    with (tmp_path / name / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(ValueError, match=r"has sha256 .*install diffmiczoo again"):
        diffmiczoo.create_model(name, pretrained=True)
