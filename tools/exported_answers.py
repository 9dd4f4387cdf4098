"""Exports shipped weights, runs each file with `runner.py`, and compares with `predict` on the same pictures.

    python tools/exported_answers.py --data ../shared/data
    python tools/exported_answers.py --data ../shared/data --precision int8 --keep out diffmicv2_busi

What is printed is in docs/export.md. The runner is a process of its own, which is given the files' paths.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import diffmiczoo
from diffmiczoo.benchmark.timing import markdown_table
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.export import certify
from diffmiczoo.inference.certificate import TOLERANCES, Certificate, CertificateError
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.model import DiffMICv2

#: Name of weights → folder of their data.
FOLDERS = {
    "diffmicv2_ham10000": "ham10000",
    "diffmicv2_aptos2019": "aptos2019",
    "diffmicv2_busi": "busi",
    "diffmicv2_chestxray14": "chestxray14_subset",
    "diffmicv2_small.ham10000": "ham10000",
}


@dataclass(frozen=True)
class Runner:
    """What `runner.py` answered beside `predict`: pictures that differ, and the largest difference of a probability.

    `ties` are pictures whose score of the gate, or a probability, lies on its limit within rounding: so do pictures of
    the validation split that gave the limit. They count nowhere else.
    """

    pictures: int
    probs: float
    labels: int
    rois: int
    in_distribution: int
    sets: int
    ties: int
    seconds: float

    @property
    def same(self) -> bool:
        return self.probs <= TOLERANCES["fp32"] and not (self.labels or self.rois or self.in_distribution or self.sets)


def pictures_of(model: DiffMICv2, data: Path, count: int) -> list[str]:
    """Returns pictures of the test split, and of the validation split where there are too few."""
    manifest = as_manifest(data, class_names=model.config.class_names, task=model.config.task)
    records = [*manifest.split("test").records, *manifest.split("val").records]
    return [str(record.path) for record in records[:count]]


def run_runner(file: Path, pictures: list[str]) -> tuple[list[dict[str, Any]], float]:
    """Returns the records that `runner.py` beside a file prints, and the seconds that it took."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-I", str(file.with_name("runner.py")), str(file), *pictures],
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()], time.monotonic() - began


def ties_of(known: Prediction) -> np.ndarray:
    """Returns which pictures lie on a limit of the gate or of the sets at .1, (B,)."""
    ties = np.zeros(len(known), bool)
    if known.ood_score is not None:
        ties |= np.abs(known.ood_score.numpy() - 1) <= certify.GATE_TIE
    if known.shown_sets is not None and known.trust is not None and known.trust.sets is not None:
        rule = next(each for each in known.trust.sets.rules if each.alpha == 0.1)
        lowest = np.array([-1.0 if low is None else low for low in rule.by_class])
        ties |= (np.abs(known.probs.numpy() - lowest) <= TOLERANCES["fp32"]).any(1)
    return ties


def compare(known: Prediction, records: list[dict[str, Any]], seconds: float = 0.0) -> Runner:
    """Compares records of the runner with a prediction for the same files."""
    if [record["name"] for record in records] != list(known.names):
        raise click.ClickException("the runner answered other pictures than it was given")
    probs = np.array([list(record["probs"].values()) for record in records])
    rois = np.array([[roi["box"] for roi in record["rois"]] for record in records])
    inside = [None] * len(records) if known.in_distribution is None else known.in_distribution.tolist()
    sets = known.shown_sets or [None] * len(records)
    one = known.config.task == "multiclass"
    ties = ties_of(known).tolist()
    rows = list(zip(records, known.labels, inside, sets, ties, strict=True))
    return Runner(
        pictures=len(records),
        probs=float(np.abs(probs - known.probs.numpy()).max()),
        labels=sum((record["label"] if one else record["labels"]) != label for record, label, *_ in rows),
        rois=int((rois != known.rois.numpy()).any((1, 2)).sum()),
        in_distribution=sum(record["in_distribution"] != value and not tie for record, _, value, _, tie in rows),
        sets=sum(record.get("set") != value and not tie for record, _, _, value, tie in rows),
        ties=sum(ties),
        seconds=seconds,
    )


def check(name: str, data: Path, count: int, precision: str, folder: Path) -> tuple[Certificate, Runner | None]:
    """Exports weights and compares; there is no runner's part where the file was refused."""
    model = diffmiczoo.create_model(name, pretrained=True, device="cpu")
    pictures, file = pictures_of(model, data, count), folder / f"{name}.{precision}.onnx"
    try:
        found = model.export(file, precision=precision, verify=pictures, with_runner=True, force=True)
    except CertificateError as error:
        return error.certificate, None
    return found, compare(model.predict(pictures, progress=False), *run_runner(file, pictures))


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FOLDERS)))
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pictures", "count", default=200, show_default=True)
@click.option("--precision", type=click.Choice(list(TOLERANCES)), default="fp32", show_default=True)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Folder that the files stay in.")
def main(names: tuple[str, ...], data: Path, count: int, precision: str, keep: Path | None) -> None:
    """Compare the exported files of shipped weights, and what runner.py makes of them, with predict."""
    rows, different = [], False
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names or FOLDERS:
            certificate, runner = check(name, data / FOLDERS[name], count, precision, folder)
            click.echo(certificate.summary(), err=True)
            different |= not certificate.passed or (precision == "fp32" and runner is not None and not runner.same)
            rows.append([name, *_cells(certificate), *_runner_cells(runner)])
    click.echo(markdown_table(HEADER, rows))
    sys.exit(int(different))


HEADER = (
    "weights", "pictures", "MB", "largest |Δp|", "labels", "label ties (other)", "sets, gate (near)", "ROIs",
    "ROI ties (other)", "runner: largest |Δp|", "labels", "ROIs", "in_distribution", "sets", "ties", "seconds",
)  # fmt: skip


def _cells(found: Certificate) -> list[str]:
    return [
        str(found.images),
        f"{found.size / 1e6:.1f}",
        f"{found.differences['probs']:.1e}",
        str(found.labels_differ),
        f"{found.label_ties} ({found.label_ties_differ})",
        f"{found.others_differ} ({found.other_ties_differ})",
        str(found.rois_differ),
        f"{found.roi_ties} ({found.roi_ties_split})",
    ]


def _runner_cells(found: Runner | None) -> list[str]:
    if found is None:
        return ["no file"] + [""] * 6
    _, probs, *counts, seconds = dataclasses.astuple(found)
    return [f"{probs:.1e}", *map(str, counts), f"{seconds:.0f}"]


if __name__ == "__main__":
    main()
