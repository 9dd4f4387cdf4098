"""Which pictures weights were trained on: short, exact, and with few false alarms."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from diffmiczoo.data.trained_on import PictureSet


def contents(count: int, start: int = 0) -> list[bytes]:
    return [hashlib.blake2b(str(n).encode(), digest_size=16).digest() for n in range(start, start + count)]


@pytest.mark.parametrize("count", [0, 1, 42, 5000])
def test_a_set_survives_as_text(count: int) -> None:
    pictures = PictureSet.of(contents(count))
    again = PictureSet.from_text(pictures.to_text())
    assert again == pictures and len(again) == count
    assert again.contains(contents(count)).all() and not again.contains(contents(200, start=10**6)).any()


def test_the_text_is_short() -> None:
    assert len(PictureSet.of(contents(500)).to_text()) < 2_600
    assert len(PictureSet.of(contents(3000)).to_text()) < 14_000
    assert len(PictureSet.of(contents(100_000)).to_text()) < 400_000


def test_order_and_repetition_are_lost() -> None:
    some = contents(50)
    assert PictureSet.of(some[::-1] + some[:7]).to_text() == PictureSet.of(some).to_text()


def test_a_later_training_adds_its_pictures() -> None:
    both = PictureSet.of(contents(30)).union(PictureSet.of(contents(30, start=20)))
    assert len(both) == 50 and both.contains(contents(50)).all()
    assert PictureSet.of(contents(3)).union(None) == PictureSet.of(contents(3))


def test_false_alarms_are_as_rare_as_said() -> None:
    """N / 2³²: of 2,000,000 hashes against 100,000 pictures 47 ± 7."""
    rng = np.random.default_rng(0)
    pictures = PictureSet(np.unique(rng.integers(0, 2**32, 100_000, dtype=np.uint32)))
    others = rng.integers(0, 2**32, 2_000_000, dtype=np.uint32)
    assert 20 < np.isin(others, pictures.hashes).sum() < 80


@pytest.mark.parametrize("text", ["", "not base85 \x00", "abcde", PictureSet.of(contents(9)).to_text()[:-5]])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the list of training pictures cannot be read"):
        PictureSet.from_text(text)
