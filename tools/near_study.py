"""Which changed pictures of the own kind does the gate flag, and what do the changes cost? A row per change, Markdown.

    python tools/near_study.py local-dir:DIRECTORY --data ../shared/data/busi

Predicts 120 pictures of the test split as they are and changed: noise, JPEG, blur, grey, cut, turned over.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageFilter, ImageOps
from PIL.Image import Image as Picture

import diffmiczoo
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.evaluate import evaluation_split
from diffmiczoo.inference.decisions import decide
from diffmiczoo.metrics.checks import indicator

COUNT = 120


def noisy(picture: Picture, channels: int) -> Picture:
    pixels = np.asarray(picture).astype(float)
    noise = np.random.default_rng(0).normal(0, 15, (*pixels.shape[:2], channels))
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def jpeg(picture: Picture) -> Picture:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=20)
    return Image.open(buffer).convert("RGB")


def halved(picture: Picture) -> Picture:
    return picture.resize((picture.width // 2, picture.height // 2)).resize(picture.size)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda picture: picture,
    "colour noise, sd 15": lambda picture: noisy(picture, 3),
    "grey noise, sd 15": lambda picture: noisy(picture, 1),
    "JPEG, quality 20": jpeg,
    "blur, radius 2": lambda picture: picture.filter(ImageFilter.GaussianBlur(2)),
    "blur, radius 4": lambda picture: picture.filter(ImageFilter.GaussianBlur(4)),
    "half the resolution": halved,
    "half as bright": lambda picture: picture.point(lambda value: value // 2),
    "1.5 times as bright": lambda picture: picture.point(lambda value: min(255, int(1.5 * value))),
    "without colour": lambda picture: picture.convert("L").convert("RGB"),
    "negative": ImageOps.invert,
    "upper left quarter": lambda picture: picture.crop((0, 0, picture.width // 2, picture.height // 2)),
    "upside down": ImageOps.flip,
}


@click.command()
@click.argument("name")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="What they were trained on.")
def main(name: str, data: Path) -> None:
    """Measure the weights NAME, which know their limits."""
    model = diffmiczoo.create_model(name, pretrained=True)
    config = model.config
    found = as_manifest(data, class_names=config.class_names, task=config.task)
    manifest = evaluation_split(config, found)
    records = random.Random(1).sample(list(manifest.records), min(COUNT, len(manifest)))
    targets = manifest.with_records(records).targets()
    pictures = [Image.open(record.path).convert("RGB") for record in records]
    click.echo("| change | flagged | accuracy |\n|---|---|---|")
    for what, change in CHANGES.items():
        said = model.predict([change(picture) for picture in pictures], progress=False)
        if said.in_distribution is None:
            raise click.ClickException(f"{name} has no gate; tools/fit_trust.py fits one")
        given = decide(said.probs, config.task, config.thresholds, config.label_adjustment)
        right = (given == indicator(targets, said.probs.shape, config.task)).all(1).float().mean()
        click.echo(f"| {what} | {100 * (~said.in_distribution).float().mean():.0f} % | {100 * right:.0f} % |")


if __name__ == "__main__":
    sys.exit(main())
