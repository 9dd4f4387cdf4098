"""What keeps a chest classifier from learning who was photographed where: pictures changed before training and use.

    python tools/shortcut_study.py ../shared/data --output runs/shortcut --seed 0 --seed 1

Trains a plain EfficientNet-Lite0 on chestxray14_subset once for each change of its pictures and each seed, and prints
AUROC on its own test split beside that of logistic regression on a thumbnail of the same pictures, and on pictures from
elsewhere that went through the same change: children (pneumoniamnist) and other films of the NIH (nihcxr_64px, without
the patients of the first set). A change that removes the shortcut lowers the thumbnail and raises what is elsewhere.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from thumbnail_control import LEAST_CASES, control, indicator, thumbnail_features
from torchvision.transforms.v2 import functional as F

import diffmiczoo
from diffmiczoo.data.image_cache import load_squares
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.training.presets import NANO

PLAIN, SIZE, FINDING = "timm/tf_efficientnet_lite0", 160, "Pneumonia"
OWN, CHILDREN, FILMS = "chestxray14_subset", "pneumoniamnist", "nihcxr_64px"

RECIPE = NANO.replace(dcg_epochs=20, diffusion_epochs=0, batch_size=32, rotation=10.0, degrade=0.3, select="auroc")

#: Sides of the pictures that are written, and of the coarse ones; σ of what counts as a picture's local level.
_SIDE, _COARSE, _SIGMA = 256, 64, 16.0


def _crop(picture: Image.Image) -> Image.Image:
    side = round(0.75 * _SIDE)
    return F.center_crop(picture, [side, side])


def _flat(picture: Image.Image) -> Image.Image:
    """Subtracts the local mean and divides by the local deviation: no cell of a thumbnail differs from another."""
    values = np.array(picture, dtype=np.float32)
    away = values - gaussian_filter(values, _SIGMA)
    spread = np.sqrt(gaussian_filter(away**2, _SIGMA))
    return Image.fromarray((128 + 48 * away / (spread + 2)).round().clip(0, 255).astype(np.uint8))


def _coarse(picture: Image.Image) -> Image.Image:
    return picture.resize((_COARSE, _COARSE), Image.Resampling.BOX).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)


#: Name → what is done to a grey picture of 256 × 256 pixels, in order.
CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], ...]] = {
    "as they are": (),
    "middle": (_crop,),
    "equalised": (ImageOps.equalize,),
    "flat": (_flat,),
    "coarse": (_coarse,),
    "coarse, middle, flat": (_coarse, _flat, _crop),
    "coarse, middle, equalised": (_coarse, _crop, ImageOps.equalize),
}


def write_changed(source: Path, target: Path, steps: tuple[Callable[[Image.Image], Image.Image], ...]) -> None:
    """Writes a data set with changed pictures, once."""
    table = target / "labels.csv"
    if table.exists():
        return
    rows = list(csv.DictReader((source / "labels.csv").open(newline="", encoding="utf-8")))
    if source.name == CHILDREN:
        rows = [row for row in rows if row["split"] == "test"]
    (target / "images").mkdir(parents=True, exist_ok=True)
    for row, picture in zip(rows, _pictures(source, rows), strict=True):
        changed = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        for step in steps:
            changed = step(changed)
        row["file"] = f"images/{Path(row['file'].replace('.npz:', '_').replace(':', '_')).stem}.png"
        changed.save(target / row["file"])
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _pictures(source: Path, rows: list[dict[str, str]]) -> Iterator[Image.Image]:
    arrays = np.load(source / f"{CHILDREN}.npz") if source.name == CHILDREN else {}
    arrays = {name: arrays[name] for name in arrays}
    for row in rows:
        if arrays:
            _, split, place = row["file"].split(":")
            yield Image.fromarray(arrays[f"{split}_images"][int(place)])
        else:
            with Image.open(source / row["file"]) as picture:
                yield picture.copy()


def aurocs(truth: np.ndarray, probs: np.ndarray, labels: tuple[str, ...]) -> dict[str, float]:
    """Returns the AUROC of each label with enough cases."""
    often = [place for place in range(len(labels)) if LEAST_CASES <= truth[:, place].sum() < len(truth)]
    return {labels[place]: float(roc_auc_score(truth[:, place], probs[:, place])) for place in often}


def elsewhere(model: diffmiczoo.DiffMICv2, data: Path, own: set[str]) -> dict[str, float]:
    """Returns AUROC on pictures of other places: of pneumonia in children, and the mean of labels on other films."""
    labels = model.config.labels
    children = read_manifest(data / CHILDREN).split("test")
    sick = np.array([name == "pneumonia" for name in children.class_names])[children.targets()]
    probs = model.predict([record.item() for record in children.records]).probs[:, labels.index(FINDING)]
    films = read_manifest(data / FILMS, class_names=labels, task="multilabel")
    records = [place for place, record in enumerate(films.records) if record.group not in own]
    found = model.predict([films.records[place].item() for place in records]).probs.numpy()
    values = aurocs(indicator(films)[records], found, labels)
    return {"children": float(roc_auc_score(sick, probs)), "films": float(np.mean(list(values.values())))}


def measured(data: Path, output: Path, seed: int) -> dict[str, float]:
    """Trains on a changed data set; returns all AUROCs."""
    manifest = read_manifest(data / OWN, task="multilabel")
    labels = manifest.class_names
    model = diffmiczoo.create_model(
        PLAIN, class_names=labels, task="multilabel", image_size=SIZE, pretrained_backbones=True
    )
    diffmiczoo.fit(model, manifest, recipe=RECIPE.replace(seed=seed), output=output)
    splits = {name: manifest.split(name) for name in ("train", "val", "test")}
    truth = {name: indicator(part) for name, part in splits.items()}
    probs = model.predict([record.item() for record in splits["test"].records]).probs.numpy()
    own = aurocs(truth["test"], probs, labels)
    parts = {name: thumbnail_features(load_squares(part, model.config)) for name, part in splits.items()}
    thumbnail = {label: control(parts, truth, labels.index(label)) for label in own}
    shown = {label: float(roc_auc_score(truth["test"][:, labels.index(label)], thumbnail[label])) for label in own}
    known = {str(record.group) for record in manifest.records}
    return {
        "thumbnail, pneumonia": shown[FINDING],
        "thumbnail, mean": float(np.mean(list(shown.values()))),
        "pneumonia": own[FINDING],
        "mean": float(np.mean(list(own.values()))),
        **elsewhere(model, data, known),
    }


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1), show_default=True)
def main(data: Path, output: Path, seeds: tuple[int, ...]) -> None:
    """Prints a row for each change, mean over seeds; what was measured already is not measured again."""
    for change, steps in CHANGES.items():
        place = output / change.replace(", ", "_").replace(" ", "_")
        for name in (OWN, CHILDREN, FILMS):
            write_changed(data / name, place / name, steps)
        rows = []
        for seed in seeds:
            path = place / f"s{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(place, place / f"s{seed}", seed)), encoding="utf-8")
            rows.append(json.loads(path.read_text(encoding="utf-8")))
        means = {key: (np.mean([row[key] for row in rows]), np.std([row[key] for row in rows])) for key in rows[0]}
        click.echo(f"{change}: " + ", ".join(f"{key} {mean:.3f} ± {sd:.3f}" for key, (mean, sd) in means.items()))


if __name__ == "__main__":
    main()
