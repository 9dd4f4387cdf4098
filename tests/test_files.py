"""Files that are whole or not there, and JSON files whose faults are named."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from diffmiczoo.errors import DiffMICError
from diffmiczoo.files import check_directory, check_file, is_stream, read_json_object, replaced, write_text


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


def test_permissions_and_owner_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
    before = path.stat()
    write_text(path, "new")
    after = path.stat()
    assert path.read_text() == "new" and after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_a_file_that_cannot_be_replaced_is_written_anew(tmp_path: Path, monkeypatch, number: int) -> None:
    """As one that is mounted into a container by itself, or lies in another's directory."""

    def refuse(old: Path, new: Path) -> None:
        raise OSError(number, os.strerror(number), str(old), None, str(new))

    write_text(tmp_path / "a.txt", "yesterday's, longer")
    monkeypatch.setattr(os, "replace", refuse)
    write_text(tmp_path / "a.txt", "today's")
    assert (tmp_path / "a.txt").read_text() == "today's" and len(list(tmp_path.iterdir())) == 1


def test_a_chain_of_links_and_one_that_leads_to_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "one.txt").symlink_to("two.txt")
    (tmp_path / "two.txt").symlink_to("real/file.txt")
    check_file(tmp_path / "one.txt", "--output")
    write_text(tmp_path / "one.txt", "text")
    assert (tmp_path / "one.txt").is_symlink() and (tmp_path / "two.txt").is_symlink()
    assert (tmp_path / "real" / "file.txt").read_text() == "text" and len(list((tmp_path / "real").iterdir())) == 1


def test_a_name_as_long_as_file_systems_take(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    write_text(path, "text")
    assert path.read_text() == "text"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /dev/stdout here")
@pytest.mark.parametrize("linked", [False, True])
def test_what_the_process_has_open_keeps_what_is_in_it(tmp_path: Path, linked: bool) -> None:
    """`(echo first; diffmiczoo … --output /dev/stdout; echo last) > file`: opened by name, it would begin anew."""
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"first\n")
        path = Path(f"/dev/fd/{file.fileno()}")
        if linked:
            (tmp_path / "link").symlink_to(path)
            path = tmp_path / "link"
        assert is_stream(path)
        check_file(path, "--output")
        write_text(path, "text\n")
        file.write(b"last\n")
    assert (tmp_path / "file").read_text() == "first\ntext\nlast\n"


def test_what_cannot_be_written_is_known_before(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("nowhere/file")
    for name, message in [
        ("", r"--output is empty"),
        (".", r"is a directory; --output needs a file"),
        ("nowhere/a.csv", r"nowhere is not a directory; --output needs one that exists"),
        ("file/a.csv", r"file is not a directory; --output needs one that exists"),
        ("lost", r"nowhere is not a directory; --output needs one that exists"),
        ("loop", r"loop is a link that leads nowhere"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_file(tmp_path / name if name else Path(), "--output")
    check_file(tmp_path / "file", "--output")
    check_file(tmp_path / "new", "--output")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for name in ("file", "new"):
        with pytest.raises(ValueError, match=rf"{name} may not be written \(permissions\); give --output another file"):
            check_file(tmp_path / name, "--output")


def test_a_directory_that_cannot_be_made_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_directory(tmp_path / "a" / "b")
    check_directory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(OSError, match=r"cannot be a directory: .*file is none"):
        check_directory(tmp_path / "file" / "b")


def test_a_full_disk_and_a_directory_are_errors(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "text")
    if Path("/dev/full").is_char_device():
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            write_text(Path("/dev/full"), "text")


def test_a_disk_that_is_full_in_the_end_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


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
