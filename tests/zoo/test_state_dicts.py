"""Files of tensors that others wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from diffmiczoo.cli import main
from diffmiczoo.zoo.convert import convert_official


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (eval, (f"open({str(self.target)!r}, 'w')",))


FILES = {
    "empty": (b"", "is empty; was the download interrupted"),
    "web page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page, not a checkpoint"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a pointer of Git LFS"),
    "text": (b"hello", "no checkpoint|not a checkpoint"),
    "cut zip": (b"PK\x03\x04" + bytes(100), "not a checkpoint, or cut short"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_checkpoints(case: str, tmp_path: Path) -> None:
    content, message = FILES[case]
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        convert_official(path)
    assert str(path) in str(caught.value)


def test_a_checkpoint_that_would_run_code_is_refused(released, tmp_path: Path) -> None:
    torch.save({"state_dict": released, "callbacks": Evil(tmp_path / "was here")}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"holds Python objects besides tensors.*refused"):
        convert_official(tmp_path / "evil.ckpt")
    assert not (tmp_path / "was here").exists()


def test_a_missing_file_and_a_file_cut_short(released, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt does not exist"):
        convert_official(tmp_path / "nothing.pt")
    torch.save(released, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:100_000])
    with pytest.raises(ValueError, match="not a checkpoint, or cut short"):
        convert_official(tmp_path / "cut.pt")
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "cut.pt"), "--output", str(tmp_path / "out")])
    assert done.exit_code == 2 and "Traceback" not in done.output and not (tmp_path / "out").exists()
