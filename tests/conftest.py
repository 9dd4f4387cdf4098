"""Fixtures of the whole suite: shared data, tiny models, no network."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import QUICK, SHARED, SMALL_ENCODERS, TINY, tiny_model, write_image_folder, write_manifest
from loopback.fixtures import (  # noqa: F401
    hub,
    hub_client,
    hub_process,
    hub_repo,
    start_hub_process,
    use_client_environment,
)

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.training.fit import TrainingResult


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(int(os.environ.get("DIFFMICZOO_TEST_THREADS", "1")))


@pytest.fixture(autouse=True)
def own_environment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps the user's cache, tokens and terminal out of every test, and one test's cache out of the next."""
    use_client_environment(monkeypatch, {"HF_HOME": f"{tmp_path_factory.getbasetemp()}/hf-{id(request.node)}"})
    monkeypatch.delenv("DIFFMICZOO_HUB_ORG", raising=False)
    monkeypatch.delenv("DIFFMICZOO_MODEL", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")


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
    return write_image_folder(tmp_path / "pictures")


@pytest.fixture(scope="session")
def make_dicom() -> Callable[..., Path]:
    """Returns a function (path, pixels, deflated=False, **elements) that writes a DICOM file and returns its path.

    An element that is None is left out.
    """
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
            if value is None:
                del dataset[keyword]
        dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian if deflated else ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def manifest_csv(tmp_path: Path) -> Path:
    """Forty pictures in a CSV with splits and groups: bright ones are "light", the others "dark"."""
    return write_manifest(tmp_path)


@pytest.fixture(scope="session")
def common_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as `manifest_csv` for fixtures that live longer than a test; nobody may write there."""
    return write_manifest(tmp_path_factory.mktemp("manifest"))


@pytest.fixture(scope="session")
def quick_run(common_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """The tiny model after QUICK; nobody may change it or write into its directory."""
    output = tmp_path_factory.mktemp("quick") / "run"
    return diffmiczoo.fit(tiny_model(), common_manifest, recipe=QUICK, output=output, progress=False)


@pytest.fixture
def run_directory(quick_run: TrainingResult, tmp_path: Path) -> Path:
    """The directory of a finished run, to be written into."""
    return shutil.copytree(quick_run.output, tmp_path / "run")
