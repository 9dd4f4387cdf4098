"""Reference answers of the weights that ship: what they said before a change, to be compared with what they say after.

`python tests/reference_answers.py` compares to the last bit, which is what a refactoring on one machine has to keep;
`--write` stores the present answers. The test beside it allows for another machine's rounding.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import diffmiczoo

FILE = Path(__file__).with_suffix(".json")
EXAMPLES = Path(__file__).parents[1] / "examples" / "ham10000"
WEIGHTS = (
    *(f"diffmicv2_nano.{dataset}" for dataset in ("ham10000", "aptos2019", "busi", "chestxray14")),
    "diffmicv2_small.ham10000",
)


def pictures() -> list[Any]:
    """Returns four photographs and four synthetic pictures, the same whole numbers on every machine."""
    examples = [np.asarray(_decoded(path)) for path in sorted(EXAMPLES.glob("*.jpg"))[:4]]
    return examples + [_synthetic(seed) for seed in range(4)]


def _decoded(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")


def _synthetic(seed: int) -> np.ndarray:
    """Returns a dark disc with coloured spots on a light ground, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    height, width = 180 + 16 * seed, 220 - 8 * seed
    rows, columns = np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), 200 - 30 * seed) + rng.integers(-12, 13, (height, width, 1))
    for _ in range(12):
        row, column, radius = (int(rng.integers(low, high)) for low, high in ((0, height), (0, width), (8, 45)))
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        pixels[inside] += rng.integers(-90, 60, 3)
    return pixels.clip(0, 255).astype(np.uint8)


def answers(name: str) -> dict[str, Any]:
    """Returns what weights say of the pictures, in single precision."""
    model = diffmiczoo.create_model(name, pretrained=True)
    prediction = model.predict(pictures(), progress=False)
    values = {"probs": prediction.probs, "uncertainty": prediction.uncertainty, "rois": prediction.rois}
    return {key: np.asarray(value, dtype=np.float32).tolist() for key, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the present answers instead of comparing")
    found = {name: answers(name) for name in WEIGHTS}
    if parser.parse_args().write:
        FILE.write_text(json.dumps(found) + "\n")
        return
    stored = json.loads(FILE.read_text())
    for name in WEIGHTS:
        gaps = {
            key: float(np.abs(np.array(found[name][key]) - np.array(stored[name][key])).max()) for key in stored[name]
        }
        print(name, "same bits" if found[name] == stored[name] else f"DIFFERENT: {gaps}")
    if found != stored:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
