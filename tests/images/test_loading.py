"""Pictures are decoded in order by threads, whatever else the process does."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import save_picture
from PIL import Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images import loading, quiet
from diffmiczoo.images.items import ImageError, as_items
from diffmiczoo.images.preprocessing import preprocess

CONFIG = DiffMICConfig(image_size=32, roi_size=8)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Twenty pictures of one grey each, their number: more than one thread is worth starting for."""
    return [save_picture(tmp_path / f"{n}.png", np.full((40, 40, 3), n, np.uint8)) for n in range(20)]


def greys(files: list[Path]) -> list[int]:
    return [int(square[0, 0, 0]) for square in loading.read_squares(as_items(files), CONFIG)]


@contextmanager
def another_thread(work: Callable[[], object]) -> Iterator[None]:
    """Within the context another thread does something over and over."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def child(function: Callable[[], Any]) -> Any:
    """Returns what a function returns in a forked process, which is killed where it hangs."""
    receiving, sending = os.pipe()
    process = os.fork()
    if process == 0:
        os.write(sending, repr(function()).encode())
        os._exit(0)
    os.close(sending)
    killer = threading.Timer(20, os.kill, (process, 9))
    killer.start()
    with os.fdopen(receiving) as pipe:
        answer = pipe.read()
    os.waitpid(process, 0)
    killer.cancel()
    return eval(answer)


@pytest.mark.parametrize("threads", [False, True])
def test_pictures_are_decoded_in_order_and_errors_take_their_place(tmp_path, picture, monkeypatch, threads) -> None:
    monkeypatch.setattr(loading, "WORTH_THREADS", 1 if threads else 100)
    items = as_items([picture, tmp_path / "missing.png", picture])
    if threads:
        items = as_items([save_picture(tmp_path / "a.png", picture), tmp_path / "missing.png", tmp_path / "a.png"])
    state, count, others = torch.get_rng_state(), torch.get_num_threads(), threading.active_count()
    squares = list(loading.read_squares(items, CONFIG))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == count and threading.active_count() == others
    assert isinstance(squares[1], ImageError) and squares[1].name == str(tmp_path / "missing.png")
    assert squares[0].dtype == torch.uint8 and torch.equal(squares[0], squares[2])
    (grey,) = loading.read_squares(as_items([torch.full((3, 8, 8), 0.5)]), CONFIG)
    assert grey.dtype == torch.float32 and preprocess([picture, grey], CONFIG).dtype == torch.float32


def test_while_another_thread_decodes(files) -> None:
    with another_thread(lambda: preprocess(str(files[3]), CONFIG)):
        for _ in range(5):
            assert greys(files) == list(range(20))


def test_in_any_kind_of_process(files) -> None:
    """Forked while a thread decodes, and daemonic as the processes of pools are: those may have no children."""
    import multiprocessing

    def within() -> list[int]:
        multiprocessing.current_process()._config["daemon"] = True
        return greys(files)

    with quiet._decoding.lock:  # as a thread that decodes holds it for a moment, and a fork copies it
        quiet._decoding.threads += 1
        try:
            assert child(within) == list(range(20))
        finally:
            quiet._decoding.threads -= 1


def test_in_a_process_that_is_forked_after_torch_computed(files) -> None:
    """As `gunicorn --preload` does after a prediction: torch's threads are not there any more."""
    before, numbers = torch.get_num_threads(), torch.ones(2_000_000)

    def within() -> tuple[list[int], float, int]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return greys(files), float(numbers.sum()), torch.get_num_threads()

    torch.set_num_threads(2)
    try:
        numbers.sum()
        assert child(within) == (list(range(20)), 2_000_000.0, 1)
    finally:
        torch.set_num_threads(before)


def test_with_few_descriptors_and_without_shared_memory(files, monkeypatch) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(torch.Tensor, "share_memory_", lambda self: pytest.fail("shared memory"))
    used = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, before[1]))
    try:
        assert greys(files * 5) == list(range(20)) * 5
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_where_no_threads_can_be_started(files, monkeypatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert greys(files) == list(range(20))


def test_an_interrupted_reader_leaves_no_threads_and_reads_no_further(files, monkeypatch) -> None:
    read: list[str] = []
    own = loading.read_square
    monkeypatch.setattr(loading, "read_square", lambda item, config: read.append(item.name) or own(item, config))
    others = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        for _ in loading.read_squares(as_items(files * 30), CONFIG):
            raise KeyboardInterrupt
    assert threading.active_count() == others
    assert len(read) < 20 * 30, "all were read"


def test_an_error_that_is_no_picture_s_fault_comes_through(files, monkeypatch) -> None:
    monkeypatch.setattr(loading, "read_square", lambda item, config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        greys(files)


def test_threads_of_torch_to_come_are_as_many_as_before(files) -> None:
    found: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        greys(files)
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == [3]


# ---------------------------------------------------------------------- warnings of decoders


def test_decoders_are_quiet_and_nothing_else_is(files) -> None:
    """The user's own filters hold for the user's own code while threads decode, and stay as they were."""
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet.quiet_decoders(), quiet.quiet_decoders():
            warnings.warn_explicit("broken EXIF", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
            warnings.warn_explicit("a tag", UserWarning, "x.py", 1, module="pydicom.valuerep")
            warnings.warn("the user's own", UserWarning, stacklevel=1)
        warnings.warn_explicit("later", UserWarning, "x.py", 1, module="PIL.Image")
    assert [str(warning.message) for warning in caught] == ["the user's own", "later"]
    assert warnings.filters == filters
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet.quiet_decoders():
            warnings.warn_explicit("broken EXIF", UserWarning, "x.py", 1, module="PIL.Image")
            with pytest.raises(UserWarning, match="own"):
                warnings.warn("the user's own", UserWarning, stacklevel=1)


def test_pillow_s_own_limit_holds(files, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    (answer,) = loading.read_squares(as_items(files[:1]), CONFIG)
    assert isinstance(answer, ImageError) and "is too large (1,600 pixels, Pillow's limit is 1,000)" in str(answer)
