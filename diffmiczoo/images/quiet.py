"""Decoders without their warnings, in any number of threads at once."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Only what comes from decoders, so that other threads keep the warnings of their own code.
_DECODERS = (
    r"(PIL|pillow_\w+|pydicom|pylibjpeg|openjpeg|libjpeg|jpeg_ls|gdcm|numpy|tifffile|"
    r"diffmiczoo\.images\.(dicom|pixels|tiff|deep))\b"
)
_FILTER: Any = ("ignore", None, Warning, re.compile(_DECODERS), 0)


class _Decoding:
    """How many threads decode; the filter is there as long as there is one.

    `warnings.catch_warnings` in each of them would put back what another thread is still using, and a lock around all
    of the decoding would let one thread wait for the other.
    """

    def __init__(self) -> None:
        self.lock, self.threads = threading.Lock(), 0

    def begin(self) -> None:
        with self.lock:
            self.threads += 1
            if self.threads == 1:
                warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]

    def end(self) -> None:
        with self.lock:
            self.threads -= 1
            if self.threads == 0:
                self.remove()

    @staticmethod
    def remove() -> None:
        with suppress(ValueError):  # the caller may have put other filters in place meanwhile
            warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]

    def forked(self) -> None:
        """A forked process has none of the threads, and would wait for ever for a lock that one of them held."""
        self.__init__()  # type: ignore[misc]
        self.remove()


_decoding = _Decoding()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_decoding.forked)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Within the context decoders do not warn: nobody can act on it when the image is read after all."""
    _decoding.begin()
    try:
        yield
    finally:
        _decoding.end()
