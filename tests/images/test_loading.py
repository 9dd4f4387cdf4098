"""Pictures are decoded in order, by one process or several."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images import loading
from diffmiczoo.images.items import ImageError, as_items
from diffmiczoo.images.preprocessing import (
    preprocess,
)

CONFIG = DiffMICConfig(image_size=32, roi_size=8)


@pytest.mark.parametrize("processes", [False, True])
def test_pictures_are_decoded_in_order_and_errors_take_their_place(tmp_path, picture, monkeypatch, processes) -> None:
    monkeypatch.setattr(loading, "WORTH_PROCESSES", 1 if processes else 100)
    items = as_items([picture, tmp_path / "missing.png", picture])
    state = torch.get_rng_state()
    squares = list(loading.read_squares(items, CONFIG))
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(squares[1], ImageError) and squares[1].name == str(tmp_path / "missing.png")
    assert squares[0].dtype == torch.uint8 and torch.equal(squares[0], squares[2])
    (grey,) = loading.read_squares(as_items([torch.full((3, 8, 8), 0.5)]), CONFIG)
    assert grey.dtype == torch.float32 and preprocess([picture, grey], CONFIG).dtype == torch.float32


def test_a_thread_starts_no_processes(picture, monkeypatch) -> None:
    monkeypatch.setattr(loading, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(loading, "DataLoader", lambda *_, **__: pytest.fail("started processes"))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(loading.read_squares(as_items([picture]), CONFIG)))
    thread.start()
    thread.join()
    assert len(found) == 1 and found[0].dtype == torch.uint8
