"""A real server with a tiny model, and the pictures that it is asked for."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from factories import small_model
from PIL import Image

import diffmiczoo

#: The environment of servers: nothing but this machine, one thread.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(Path(diffmiczoo.__file__).parents[1]),
    "PYTHONUNBUFFERED": "1",
}


@dataclass
class RunningServer:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=30, trust_env=False, **options)

    def worker(self) -> int:
        """Returns the number of the process that computes."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [pid for thread in threads for pid in (thread / "children").read_text().split()]
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
        return next(pid for pid, line in lines.items() if b"spawn_main" in line)

    def until_healthy(self) -> None:
        with self.client() as client:
            for _ in range(300):
                if client.get("/health").status_code == 200:
                    return
                time.sleep(0.1)
        raise AssertionError("the server is not healthy again")

    def end(self) -> str:
        """Ends the server and returns what it wrote."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=20)[0]


def start_server(weights: str, *options: str) -> RunningServer:
    command = [sys.executable, "-m", "diffmiczoo.cli", "serve", weights, "--port", "0", *options]
    environment = {**os.environ, **ENVIRONMENT}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"answers at (http://\S+)", line):
            return RunningServer(process, found[1])
    raise AssertionError(f"the server ended with {process.wait()}: {said}")


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    """A tiny model that calls itself trained."""
    directory = tmp_path_factory.mktemp("served")
    small_model(trained=True, image_size=32, roi_size=16, num_rois=1).save_pretrained(directory)
    return f"local-dir:{directory}"


@pytest.fixture(scope="module")
def server(weights: str) -> Iterator[RunningServer]:
    running = start_server(weights, "--exact", "--batch-size", "8", "--max-megabytes", "2", "--max-images", "5")
    yield running
    running.end()


@pytest.fixture(scope="session")
def contents() -> list[bytes]:
    """Twelve small pictures."""
    rng, found = np.random.default_rng(0), []
    for number in range(12):
        buffer, pixels = io.BytesIO(), rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((70 + number, 80)).save(buffer, format=("PNG", "JPEG")[number % 2])
        found.append(buffer.getvalue())
    return found
