"""Draws the overlay of README and docs: `python tools/overlay_pictures.py`."""

from __future__ import annotations

from pathlib import Path

import diffmiczoo

ROOT = Path(__file__).resolve().parents[1]
PICTURE = "examples/ham10000/ISIC_0024679.jpg"
TARGET = ROOT / "docs" / "images" / "overlay.png"


def main() -> None:
    """Writes the picture, with the name of the example as it is in the repository."""
    model = diffmiczoo.create_model("diffmicv2_ham10000", pretrained=True)
    prediction = model.predict([str(ROOT / PICTURE)])
    prediction.names[0] = PICTURE
    prediction.save_overlay(TARGET)
    print(f"wrote {TARGET.relative_to(ROOT)}: {prediction.summary(0)}")


if __name__ == "__main__":
    main()
