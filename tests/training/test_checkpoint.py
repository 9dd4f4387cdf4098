"""Checkpoints are whole or absent, and of this version."""

from __future__ import annotations

import pytest
import torch
from factories import tiny_checkpoint

from diffmiczoo.training.checkpoint import load_checkpoint, save_checkpoint


def test_checkpoints_are_replaced_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "checkpoint.pt"
    first = tiny_checkpoint(stage=0)
    save_checkpoint(first, path)

    class Unwritable:
        def __reduce__(self):
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="the one before it is intact"):
        save_checkpoint(tiny_checkpoint(stage=1, optimization={"x": Unwritable()}), path)
    assert load_checkpoint(path) == first and list(tmp_path.iterdir()) == [path]
    path.unlink()
    with pytest.raises(OSError, match="there is none before it; two of them have to fit on the disk"):
        save_checkpoint(tiny_checkpoint(stage=1, optimization={"x": Unwritable()}), path)
    for content in (b"not a checkpoint", b"a text, which pickle reads as numbers of its memo\n", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="delete it to start again"):
            load_checkpoint(path)
    torch.save({"format": 3, "recipe": {}}, path)
    with pytest.raises(ValueError, match="delete it to start again"):
        load_checkpoint(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=r"cannot be read .* left as it is"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint = tiny_checkpoint()
    save_checkpoint(checkpoint, path)
    assert load_checkpoint(path) == checkpoint
    torch.save({"format": 2, "position": {"batch": 3}}, path)
    with pytest.raises(ValueError, match=r"another version of diffmiczoo .* start again with resume='never'"):
        load_checkpoint(path)
