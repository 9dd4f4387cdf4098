"""Files that are whole or not there, and JSON files whose faults are named."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from diffmiczoo.errors import DiffMICError
from diffmiczoo.files import read_json_object, replaced, write_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "first ä \udcff")
    assert (tmp_path / "a.txt").read_bytes() == "first ä ".encode() + b"\xff"

    def interrupted() -> None:
        with replaced(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "a.txt").read_bytes().startswith(b"first")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_text(pipe, "text")
    reader.join(10)
    assert received == [b"text"] and pipe.is_fifo()


def test_a_full_disk_and_a_directory_are_errors(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "text")
    if Path("/dev/full").is_char_device():
        with pytest.raises(OSError, match="No space left"):
            write_text(Path("/dev/full"), "text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a JSON file"),
        (b"\xff\xfe", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        (b"[1]", "expected a JSON object, found list"),
    ],
)
def test_faults_of_json_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_json_object(tmp_path / "a.json")
    assert "a.json" in str(caught.value) and isinstance(caught.value, DiffMICError)
    with pytest.raises(FileNotFoundError):
        read_json_object(tmp_path / "none.json")
