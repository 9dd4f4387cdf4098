"""How the command line writes answers: as a table, CSV or JSON, to the screen or a file, and as pictures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffmiczoo.inference.prediction import Prediction


def write_text(path: Path, text: str) -> None:
    """Replaces a file by a whole new one; names that are not UTF-8 keep their bytes."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
    temporary.replace(path)


def printable(text: str) -> str:
    """Returns a text that every screen takes; bytes of names that are not UTF-8 are replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def as_table(prediction: Prediction) -> str:
    """Returns a line per image for people: uncertainty and the three most probable classes."""
    width = max(len("image"), *(len(_short(name)) for name in prediction.names))
    lines = [f"{'image':<{width}}  {'uncertainty':>11}  answer"]
    for row, name in enumerate(prediction.names):
        answer = "  ".join(f"{label} {probability:.3f}" for label, probability in prediction[row].top(3)[0])
        lines.append(f"{_short(name):<{width}}  {float(prediction.uncertainty[row]):>11.3f}  {answer}")
    return "\n".join(lines)


def _short(name: str) -> str:
    name = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name)
    return name if len(name) <= 60 else "…" + name[-59:]


def as_csv(prediction: Prediction) -> str:
    """Returns a row per image: name, label, uncertainty, and the probability of each class."""
    buffer = io.StringIO()
    classes = prediction.class_names
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "label", "uncertainty", *(f"prob_{label}" for label in classes)])
    for row, (name, label) in enumerate(zip(prediction.names, prediction.labels, strict=True)):
        text = label if isinstance(label, str) else "|".join(label)
        values = [float(prediction.uncertainty[row]), *prediction.probs[row].tolist()]
        writer.writerow([name, text, *(f"{value:.6f}" for value in values)])
    return buffer.getvalue().rstrip("\n")


def as_json(prediction: Prediction) -> str:
    """Returns `Prediction.to_dict` as JSON."""
    return json.dumps(prediction.to_dict(), indent=2)


def as_json_lines(prediction: Prediction) -> str:
    """Returns a JSON object per image and line, those of `Prediction.to_dict`."""
    return "\n".join(json.dumps(record) for record in prediction.to_dict()["images"])


def write_overlays(prediction: Prediction, directory: Path) -> None:
    """Writes a PNG per image into a directory, made if need be; equal names get a number."""
    from tqdm.auto import tqdm

    directory.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    for row, name in enumerate(tqdm(prediction.names, desc="overlay", unit="img", disable=None)):
        stem = Path(name).stem
        unique = next(text for text in (stem, *(f"{stem}-{n}" for n in range(2, row + 3))) if text not in used)
        used.add(unique)
        prediction.save_overlay(directory / f"{unique}.png", row)
