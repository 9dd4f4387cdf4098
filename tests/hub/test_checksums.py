"""SHA-256 verification, done once for each file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from loopback.fixtures import use_client_environment

import diffmiczoo
from diffmiczoo.hub.checksums import ChecksumError, FileHash, sha256_of, verify


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"right")
    return path


def overwrite(path: Path, content: bytes, later: int) -> None:
    """Changes the bytes of a file in place; `later` nanoseconds pass on its clock."""
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(0, before + later))


def test_a_file_is_read_once_while_size_and_time_stay_the_same(file: Path) -> None:
    right = FileHash(sha256_of(file), 5)
    verify(file, right)
    overwrite(file, b"other", later=0)
    verify(file, right)  # it would say so, had it read the file
    for wrong in (b"wrong", b"right!"):
        overwrite(file, wrong, later=1)
        with pytest.raises(ChecksumError, match="expected"):
            verify(file, right)


def test_a_remembered_verification_is_for_that_content_only(file: Path) -> None:
    verify(file, FileHash(sha256_of(file), 5))
    with pytest.raises(ChecksumError, match="has sha256"):
        verify(file, FileHash("0" * 64, 5))


def test_a_cache_that_cannot_be_written_costs_only_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = file.with_name("occupied")
    home.write_text("a file, not a directory")
    use_client_environment(monkeypatch, {"HF_HOME": str(home)})
    right = FileHash(sha256_of(file), 5)
    verify(file, right)
    verify(file, right)
    overwrite(file, b"other", later=0)
    with pytest.raises(ChecksumError, match="has sha256"):
        verify(file, right)
    assert home.read_text() == "a file, not a directory"


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
