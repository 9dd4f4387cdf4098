"""`ServerSettings`: what a server serves, to whom, and how much it takes."""

from __future__ import annotations

from dataclasses import dataclass

#: The environment variable that stands for `--api-key`, which a list of processes would show.
KEY_VARIABLE = "DIFFMICZOO_API_KEY"


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What the process that computes is started with.

    Attributes:
        name: of the weights.
        steps, precision, device, threads, exact: as for `BatchPredictor`.
        batch_size: pictures computed at once.
        max_pixels: of a picture; larger ones are refused by their header.
    """

    name: str
    steps: int | None = None
    precision: str = "fp32"
    device: str = "cpu"
    threads: int | None = None
    batch_size: int = 8
    exact: bool = False
    max_pixels: int = 100_000_000


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server answers.

    Attributes:
        worker: what computes.
        api_key: without it requests are refused; None for no key.
        max_bytes: of a request's body.
        max_images: in one request.
        max_waiting: pictures that may wait; further requests are told to come again.
        wait: how long a picture waits for others to be computed with, in seconds.
        page: whether there is a page for people.
        patience: how long a client may send nothing in the middle of a request, in seconds.
        grace: how long requests may go on after the signal to end, in seconds.
    """

    worker: WorkerSettings
    api_key: str | None = None
    max_bytes: int = 64_000_000
    max_images: int = 32
    max_waiting: int = 256
    wait: float = 0.005
    page: bool = False
    patience: float = 30.0
    grace: float = 60.0
