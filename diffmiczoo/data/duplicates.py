"""Pictures that are copies of each other: the same pixels, or the same picture saved, resized, turned or lit anew.

On arrays alone. A picture is described by a hash of its square and by its texture: a small grey picture without its
slow changes and with the same contrast everywhere, because light and outline are what pictures of one kind (chests,
fundi) share.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: Sides of the two small grey pictures that are compared: one to find pairs that may be copies, one to tell.
COARSE, FINE = 32, 64

#: Correlations of the coarse textures, of what turning leaves of them and of all, from which a pair is looked at; and
#: how much lower than that of the fine textures the correlation of what turning leaves of them may be.
_LEAST_INVARIANT, _LEAST_COARSE, _SLACK = 0.75, 0.8, 0.06

#: Where the correlation of the fine textures of copies begins: so many standard deviations above that of pictures
#: taken at random, within these bounds. docs/experiments/duplicates.md has the measurements.
_DEVIATIONS, _BOUNDS = 6.0, (0.65, 0.92)

#: Pairs taken at random, and the least number of pictures for it; fewer are compared with the lower bound.
_RANDOM_PAIRS, _LEAST_PICTURES = 2000, 30

#: From so many pictures on, more pairs are taken, and the bound also lies above the most similar pair that is to be
#: expected, from a normal tail through these two quantiles: a set from two cameras has two kinds of pairs, of which
#: the median and the spread around it know only the more frequent one.
_MANY_PICTURES, _MANY_PAIRS, _TAIL = 500, 20_000, (0.98, 0.998)

#: In grey levels: what is added to the local contrast that texture is divided by, so that noise stays small, and the
#: least contrast that a picture is compared at (black ones are no copies of each other).
_NOISE, _LEAST_CONTRAST = 2.0, 0.5

#: Of the signed bytes that hold a texture: steps of a standard deviation.
_STEPS = 28.0

#: Rows that are compared with all others at once, and pairs that are looked at at once; they bound the memory.
_ROWS, _PAIRS = 2048, 1024

#: Pairs of a block of rows that are looked at more closely; it bounds the time.
_MOST_PAIRS = 32768

#: What a picture may have become, in the order of `_turned`.
TURNS = (
    "",
    "turned by 90°",
    "turned by 180°",
    "turned by 270°",
    "mirrored",
    "mirrored and turned by 90°",
    "upside down",
    "mirrored and turned by 270°",
)


@dataclass(frozen=True, eq=False)
class Prints:
    """What pictures are compared by.

    Attributes:
        contents: (N,) hashes of 16 bytes of the squares.
        coarse: (N, `COARSE`, `COARSE`) int8 texture, 0 throughout where a picture has none.
        fine: (N, `FINE`, `FINE`) int8, the same.
    """

    contents: np.ndarray
    coarse: Tensor
    fine: Tensor

    def __len__(self) -> int:
        return len(self.contents)

    @classmethod
    def of(cls, squares: Iterable[Tensor], most: int | None = None) -> Prints:
        """Computes the prints of batches of squares (B, 3, S, S) uint8.

        Args:
            squares: the batches; with `most` one is in memory at a time.
            most: how many squares there are at most. The memory for their prints is taken at once: many small pieces
                between the large ones that each batch needs for a moment would take up several times as much.
        """
        if most is None:
            squares = list(squares)
            most = sum(map(len, squares))
        contents: list[bytes] = []
        coarse, fine = (torch.empty(most, side, side, dtype=torch.int8) for side in (COARSE, FINE))
        for batch in squares:
            rows = slice(len(contents), len(contents) + len(batch))
            contents += [content_hash(square) for square in batch.numpy()]
            coarse[rows], fine[rows] = _textures(batch)
        return cls(np.array(contents, dtype="V16"), coarse[: len(contents)], fine[: len(contents)])

    @classmethod
    def joined(cls, parts: Sequence[Prints]) -> Prints:
        """Puts prints behind each other."""
        contents = np.concatenate([part.contents for part in parts])
        return cls(contents, torch.cat([part.coarse for part in parts]), torch.cat([part.fine for part in parts]))


@dataclass(frozen=True)
class Copy:
    """A pair of pictures that show the same.

    Attributes:
        first, second: their places, first < second.
        correlation: of their textures, at most 1.
        turn: what the second one is besides, of `TURNS`.
    """

    first: int
    second: int
    correlation: float
    turn: str = ""


def content_hash(square: np.ndarray) -> bytes:
    """Returns 16 bytes that tell a square (3, S, S) uint8 from all others."""
    return hashlib.blake2b(np.ascontiguousarray(square).tobytes(), digest_size=16).digest()


def same_content(prints: Prints) -> list[list[int]]:
    """Returns the sets of places whose squares hold the same pixels, in order."""
    found = defaultdict(list)
    for place, content in enumerate(prints.contents):
        found[content.tobytes()].append(place)
    return [places for places in found.values() if len(places) > 1]


def near_copies(
    prints: Prints,
    asked: Callable[[Tensor, Tensor], Tensor] | None = None,
    sort: Callable[[int, int], Hashable] = lambda first, second: None,
) -> list[Copy]:
    """Finds for each picture the earlier one that it was saved, resized, turned or lit anew from, if there is any.

    Of several of one sort the most similar one is taken; pairs with equal pixels are left out. Every pair is compared
    by what turning and mirroring leave of the coarse textures, 136 numbers, in blocks; pairs that are alike in it by
    what they leave of the fine ones; pairs that still are by both textures in all 8 positions.

    Args:
        prints: of N pictures.
        asked: places (P,) and places (P,) → whether each pair is of interest; all are by default.
        sort: two places → what sort of pair they are; by default there is one sort.
    """
    least = least_correlation(prints)
    best: dict[tuple[int, Hashable], Copy] = {}
    for block in _alike(prints, least - _SLACK):
        places = block if asked is None else block[asked(*block.T)]
        for copy in _copies(prints, places, least):
            equal = prints.contents[copy.first].tobytes() == prints.contents[copy.second].tobytes()
            key = (copy.second, sort(copy.first, copy.second))
            if not equal and (key not in best or copy.correlation > best[key].correlation):
                best[key] = copy
    return sorted(best.values(), key=lambda copy: (copy.second, copy.first))


def least_correlation(prints: Prints) -> float:
    """Returns from which correlation of fine textures on two of these pictures are copies.

    Pictures of one kind have something in common, fundi more than moles; so the place is found from pairs taken at
    random (the same ones each time), on Fisher's scale, where correlations have an even spread.
    """
    low, high = _BOUNDS
    count = len(prints)
    if count < _LEAST_PICTURES:
        return low
    pairs = _MANY_PAIRS if count >= _MANY_PICTURES else _RANDOM_PAIRS
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(count, (pairs,), generator=generator)
    second = (first + torch.randint(1, count, (pairs,), generator=generator)) % count
    blocks = zip(first.split(_ROWS), second.split(_ROWS), strict=True)
    alike = torch.cat([(_flat(prints.fine[one]) * _flat(prints.fine[other])).sum(1) for one, other in blocks])
    spread = torch.atanh(alike.clamp(-0.999, 0.999))
    # Quantiles: copies among the pairs must not move the bound.
    middle, upper = spread.quantile(0.5), spread.quantile(0.84)
    bound = middle + _DEVIATIONS * (upper - middle)
    if count >= _MANY_PICTURES:
        bound = torch.maximum(bound, _end_of_tail(spread, count * (count - 1) / 2))
    return min(max(float(torch.tanh(bound)), low), high)


def _end_of_tail(spread: Tensor, pairs: float) -> Tensor:
    """Returns what one of ten sets with so many pairs has a pair above, by the tail of some of them."""
    normal = torch.distributions.Normal(0.0, 1.0)
    low, high, end = normal.icdf(torch.tensor([*_TAIL, 1 - 0.1 / pairs], dtype=torch.float64))
    at_low, at_high = spread.double().quantile(torch.tensor(_TAIL, dtype=torch.float64))
    return at_low + (at_high - at_low) * (end - low) / (high - low)


def _textures(squares: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the coarse and the fine texture of squares (B, 3, S, S)."""
    grey = squares.float().mean(1, keepdim=True)
    coarse, fine = (_texture(F.interpolate(grey, size=(side, side), mode="area")) for side in (COARSE, FINE))
    return coarse, fine


def _texture(pictures: Tensor) -> Tensor:
    """Returns pictures (B, 1, H, W) without their slow changes and with even contrast, as bytes (B, H, W)."""
    changes = pictures - _blurred(pictures)
    even = (changes / (_blurred(changes**2).sqrt() + _NOISE))[:, 0]
    even = even - even.mean((1, 2), keepdim=True)
    steps = _STEPS * even / even.std((1, 2), keepdim=True).clamp(min=1e-6)
    contrast = changes[:, 0].std((1, 2), keepdim=True)
    return torch.where(contrast < _LEAST_CONTRAST, torch.zeros(()), steps.clamp(-127, 127)).round().to(torch.int8)


def _flat(textures: Tensor) -> Tensor:
    """Returns textures (P, H, W) as vectors (P, H · W) of length 1; 0 where there is none."""
    return F.normalize(textures.float().flatten(1))


def _blurred(pictures: Tensor) -> Tensor:
    for _ in range(2):
        pictures = F.avg_pool2d(F.pad(pictures, [2] * 4, mode="replicate"), 5, stride=1)
    return pictures


def _turn(pictures: Tensor, turn: int) -> Tensor:
    """Returns pictures (…, H, W) in a position, by its place in `TURNS`."""
    mirrored, quarters = divmod(turn, 4)
    return (pictures.flip(-1) if mirrored else pictures).rot90(quarters, (-2, -1))


def _turned(pictures: Tensor) -> Iterator[Tensor]:
    """Yields pictures (…, H, W) in all positions."""
    return (_turn(pictures, turn) for turn in range(len(TURNS)))


def _invariants(textures: Tensor) -> Tensor:
    """Returns what is equal for all positions of pictures (N, H, H), H · (H + 2) / 8 numbers of length 1, or 0."""
    half = textures.shape[-1] // 2
    rows, columns = torch.triu_indices(half, half)
    # A point off the diagonal stands for two in its quarter.
    weights = torch.where(rows == columns, 1.0, 2.0**0.5)
    parts = [torch.zeros(0, len(weights))]
    for block in textures.split(_ROWS):
        mean = torch.stack(list(_turned(block.float()))).mean(0)
        parts.append(F.normalize(mean[:, rows, columns] * weights))
    return torch.cat(parts)


def _alike(prints: Prints, least_fine: float) -> Iterator[Tensor]:
    """Yields places (P, 2) of pairs whose invariants are alike, each once, for a block of rows at a time.

    The coarse ones leave few pairs in most blocks, which makes the fine ones, four times as many numbers, cheap.
    """
    coarse, fine = _invariants(prints.coarse).split(_ROWS), _invariants(prints.fine).split(_ROWS)
    for row in range(len(coarse)):
        for column in range(row, len(coarse)):
            similar = coarse[row] @ coarse[column].T >= _LEAST_INVARIANT
            if row == column:
                similar = similar.triu(1)
            if similar.sum() > len(similar):
                alike = fine[row] @ fine[column].T
                similar &= alike >= least_fine
                # Where nearly all pictures are alike the copies among them are the most alike.
                if (values := alike[similar]).numel() > _MOST_PAIRS:
                    similar &= alike >= values.topk(_MOST_PAIRS).values[-1]
            yield similar.nonzero() + torch.tensor([row, column]) * _ROWS


def _copies(prints: Prints, places: Tensor, least: float) -> Iterator[Copy]:
    """Yields those of some pairs (P, 2) that are copies in one of the 8 positions."""
    coarse, position = _best_position(prints.coarse, places)
    chosen = coarse >= _LEAST_COARSE
    places, position = places[chosen], position[chosen]
    for turn, words in enumerate(TURNS):
        turned = places[position == turn]
        second = _turn(prints.fine[turned[:, 1]], turn)
        fine = (_flat(prints.fine[turned[:, 0]]) * _flat(second)).sum(1)
        for pair in (fine >= least).nonzero()[:, 0].tolist():
            yield Copy(int(turned[pair, 0]), int(turned[pair, 1]), round(float(fine[pair]), 3), words)


def _best_position(textures: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the largest correlation (P,) of pairs (P, 2) over the positions of the second one, and its position (P,).

    Each picture is turned once, however many pairs it is in.
    """
    pictures, (first, second) = zip(*(column.unique(return_inverse=True) for column in places.T), strict=True)
    one, other = (textures[picture].float() for picture in pictures)
    one, other = _flat(one)[..., None], torch.stack([_flat(turned) for turned in _turned(other)], dim=1)
    parts = zip(first.split(_PAIRS), second.split(_PAIRS), strict=True)
    best = torch.cat([other[column] @ one[row] for row, column in parts])[..., 0].max(1)
    return best.values, best.indices
