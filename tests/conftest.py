"""Fixtures of the whole suite: shared data, tiny models, no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import SHARED, SMALL_ENCODERS, TINY
from loopback.fixtures import hub, hub_client, hub_process, hub_repo, start_hub_process  # noqa: F401
from PIL import Image

from diffmiczoo.config import DiffMICConfig


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(int(os.environ.get("DIFFMICZOO_TEST_THREADS", "1")))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection but to this machine, so that a test which fetches anything fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if self.family in (socket.AF_INET, socket.AF_INET6) and host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and reference values beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder with data and reference values is not beside this checkout")
    return SHARED


@pytest.fixture
def tiny_config() -> DiffMICConfig:
    return DiffMICConfig(num_classes=3, **TINY, **SMALL_ENCODERS)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Twelve pictures of two classes that a pixel's brightness tells apart, as a folder per class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(12):
        name, base = ("dark", 60) if number % 2 else ("light", 190)
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(base - 40, base + 40, (70, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def make_dicom() -> Callable[..., Path]:
    """Returns a function (path, pixels, deflated=False, **elements) that writes a DICOM file and returns its path."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    def write(path: Path, pixels: np.ndarray, deflated: bool = False, **elements: Any) -> Path:
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
        if pixels.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = pixels.itemsize * 8
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
        dataset.PixelData = pixels.tobytes()
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian if deflated else ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def manifest_csv(tmp_path) -> Path:
    """Forty pictures in a CSV with splits and groups: bright ones are "light", the others "dark"."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        light = number % 2
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8) + (180 if light else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        split = "train" if number < 24 else "val" if number < 32 else "test"
        rows.append(f"{number}.png,{'light' if light else 'dark'},{split},patient{number // 2}")
    (tmp_path / "labels.csv").write_text("file,label,split,group\n" + "\n".join(rows) + "\n")
    return tmp_path / "labels.csv"
