"""The words that folders and columns use for a split: train, val, test."""

from __future__ import annotations

import re
from collections.abc import Mapping

from diffmiczoo.data.manifest import SPLITS
from diffmiczoo.errors import InvalidValueError

#: What a row or folder is mapped to that is left out.
SKIP = "skip"

_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}

_WITH_WHAT = re.compile(r"(.+?)[ _.-]*(set|data|dataset|images|imgs|image|split|folder|samples)?", re.IGNORECASE)


def split_of(name: str, words: Mapping[str, str] | None = None) -> str | None:
    """Returns the split that a word stands for, in any case, or None.

    Args:
        name: such as "Training", "valid", "test_set" or " DEV ".
        words: further words → train, val, test or skip; they go before the usual ones.
    """
    for known in (words or {}, _WORDS):
        by_case = {word.strip().casefold(): split for word, split in known.items()}
        word = name.strip().casefold()
        if word in by_case:
            return by_case[word]
        match = _WITH_WHAT.fullmatch(word)
        if match and match[2] and match[1] in by_case:
            return by_case[match[1]]
    return None


def split_in(name: str) -> str | None:
    """Returns the split that a word in a name stands for, "train" of "ISIC_Training_Input"; None for several."""
    words = re.split(r"[\W_\d]+|(?<=[a-z])(?=[A-Z])", name)
    found = {_WORDS[word.casefold()] for word in words if word.casefold() in _WORDS}
    return found.pop() if len(found) == 1 else None


def check_split_words(words: Mapping[str, str]) -> None:
    """Raises ValueError where a word is mapped to something that is no split."""
    for word, split in words.items():
        if split not in (*SPLITS, SKIP):
            raise InvalidValueError(f"{word}={split}: a split is {', '.join(SPLITS)}, or {SKIP} for what is left out")
