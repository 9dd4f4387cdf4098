"""The one home of what many tests build: models, recipes, pictures, tables, checkpoints; small and quick."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

import diffmiczoo
from diffmiczoo.cli import main
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.images.items import ImageError, Item, as_items
from diffmiczoo.images.reading import read_image
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.probabilities import scores_to_probs, uncertainty
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.callbacks import Callback
from diffmiczoo.training.checkpoint import Best, Checkpoint, Progress
from diffmiczoo.training.recipe import Recipe

#: Data sets and reference values beside the checkout; they are not part of the repository.
SHARED = Path(__file__).resolve().parents[2] / "shared"

#: Pillow's version, for what it reads otherwise in older ones.
PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])

#: Small enough for a fraction of a second; every part is there.
TINY = {
    "image_size": 64,
    "roi_size": 32,
    "roi_source_size": None,
    "num_rois": 2,
    "num_points": 3,
    "latent_dim": 8,
    "attention_dim": 4,
    "num_train_timesteps": 50,
    "sampling_steps": 3,
}

#: The smallest backbones that timm has, instead of the architecture's own.
SMALL_ENCODERS = {
    "dcg_encoder": "test_resnet",
    "dcg_out_index": -1,
    "local_out_index": -1,
    "raw_encoder": "test_resnet",
    "raw_out_index": -1,
    "roi_encoder": "test_resnet",
    "roi_out_index": -1,
}


QUICK = Recipe(
    dcg_epochs=2, diffusion_epochs=2, batch_size=8, dcg_lr=1e-2, diffusion_lr=1e-2, ema_decay=0.5, rotation=10, seed=3
)


#: One epoch of the first stage and two of the second: enough where it does not matter what is learned.
BRIEF = QUICK.replace(dcg_epochs=1, diffusion_epochs=2)

#: With everything that has a state or is random: average, accumulation, augmentation, mixing, balanced drawing.
FULL_RECIPE = Recipe(
    dcg_epochs=2,
    diffusion_epochs=2,
    batch_size=4,
    accumulate=2,
    dcg_lr=1e-2,
    diffusion_lr=1e-2,
    weight_decay=0.01,
    ema_decay=0.9,
    rotation=20,
    color_jitter=0.2,
    fill="reflect",
    rand_augment=9,
    degrade=0.5,
    mixup=0.2,
    cutmix=0.5,
    label_smoothing=0.1,
    balance_labels=0.1,
    drop_path=0.2,
    sampling="balanced",
    class_weights="balanced",
    warmup_epochs=0.5,
    seed=5,
)


def tiny_model(**fields: Any) -> DiffMICv2:
    """A model of two classes with the smallest encoders, not in eval mode."""
    torch.manual_seed(0)
    return DiffMICv2(DiffMICConfig(**{"num_classes": 2, **TINY, **SMALL_ENCODERS, **fields}))


def small_model(trained: bool = False, **fields: Any) -> DiffMICv2:
    """A model of three classes with the smallest encoders, in eval mode."""
    model = tiny_model(**{"num_classes": 3, **fields}).eval()
    model.trained = trained
    return model


def registered_model(name: str, **fields: Any) -> DiffMICv2:
    """A registered model with its own encoders and switches, but small."""
    torch.manual_seed(0)
    return diffmiczoo.create_model(name, **{**TINY, **fields})


def tiny_checkpoint(**fields: Any) -> Checkpoint:
    """The checkpoint of a run that has no weights."""
    empty = {"recipe": {}, "config": {}, "data": "", "world_size": 1, "history": [], "model": {}, "optimization": {}}
    return Checkpoint(**{**empty, "stage": 0, "progress": Progress(batch=3), "best": Best(), **fields})


class OnStep(Callback):
    """Calls a function before every training step, with the name of the stage, the epoch and the batch."""

    def __init__(self, function: Callable[[str, int, int], object]) -> None:
        self.on_step = function


def released_checkpoint(folder: Path, keys: str) -> dict[str, Tensor]:
    """Returns the state dict that `procedural_weights.py` defines, under the released program's names."""
    spec = importlib.util.spec_from_file_location("procedural_weights", folder / "procedural_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tensors = module.procedural_state_dict(folder / f"keys_{keys}.json", 0)
    return {key: torch.from_numpy(np.asarray(value)) for key, value in tensors.items()}


# ---------------------------------------------------------------------- pictures


def pictures(count: int = 5) -> list[np.ndarray]:
    """Pictures of noise, each of another size, (H, W, 3) uint8."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (60 + 7 * n, 90 - 5 * n, 3), dtype=np.uint8) for n in range(count)]


def smooth_picture(height: int, width: int) -> np.ndarray:
    """A picture of slow waves, which JPEG keeps nearly as it is."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(6 * rows + 4 * columns), np.cos(9 * rows * columns), np.sin(7 * columns)]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def save_picture(path: Path, array: np.ndarray, **options: Any) -> Path:
    """Writes a picture in the format of the path's ending and returns the path."""
    Image.fromarray(array).save(path, **options)
    return path


def write_images(directory: Path, names: list[str], seed: int = 0) -> None:
    """Writes a small picture of noise under each name."""
    rng = np.random.default_rng(seed)
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def write_image_folder(directory: Path) -> Path:
    """Writes twelve pictures of two classes that a pixel's brightness tells apart, in a folder per class."""
    rng = np.random.default_rng(0)
    for number in range(12):
        name, base = ("dark", 60) if number % 2 else ("light", 190)
        (directory / name).mkdir(parents=True, exist_ok=True)
        save_picture(
            directory / name / f"{number}.png", rng.integers(base - 40, base + 40, (70, 80, 3), dtype=np.uint8)
        )
    return directory


def write_manifest(directory: Path) -> Path:
    """Writes forty pictures and a CSV with splits and groups: bright ones are "light", the others "dark"."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        light = number % 2
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8) + (180 if light else 0)
        save_picture(directory / f"{number}.png", pixels.astype(np.uint8))
        split = "train" if number < 24 else "val" if number < 32 else "test"
        rows.append(f"{number}.png,{'light' if light else 'dark'},{split},patient{number // 2}")
    (directory / "labels.csv").write_text("file,label,split,group\n" + "\n".join(rows) + "\n")
    return directory / "labels.csv"


def read_picture(source: Any) -> Tensor:
    """Reads one picture from anything that `predict` takes."""
    return read_image(as_items(source)[0])


def reason_of(source: Any) -> str:
    """Returns why a picture cannot be read; fails where it can."""
    with pytest.raises(ImageError) as caught:
        read_picture(source)
    assert str(caught.value).startswith(f"{caught.value.name}: ")
    return caught.value.reason


# ---------------------------------------------------------------------- tables and predictions


def labels_of(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Returns file name → labels."""
    return {record.path.name: record.labels for record in manifest.records}


def edited(csv_file: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """Returns a copy of a manifest, beside it, with its lines changed."""
    lines = csv_file.read_text().splitlines()
    other = csv_file.with_name("edited.csv")
    other.write_text("\n".join(change(lines)) + "\n")
    return other


def noisy_data(task: str, count: int = 200, classes: int = 4, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Returns (probabilities, targets) of a model that is right more often than not."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    noisy = logits + 1.5 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    if ties:
        logits = logits.round()
    if task == "multilabel":
        return logits.sigmoid(), (noisy > 0.4).long()
    return logits.softmax(1), noisy.argmax(1)


def random_predictions(
    count: int = 200, classes: int = 4, skill: float = 1.0, seed: int = 0, **fields
) -> LabelledPredictions:
    """Predictions of a model for the same images whatever its skill."""
    targets = np.random.default_rng(0).integers(0, classes, count)
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, classes)) + skill * np.eye(classes)[targets])
    names = tuple(f"c{number}" for number in range(classes))
    return LabelledPredictions(
        tuple(f"{number}.png" for number in range(count)),
        tuple((names[target],) for target in targets),
        None,
        logits.softmax(1).float(),
        names,
        "multiclass",
        **fields,
    )


ANIMALS = DiffMICConfig(
    num_classes=3, class_names=("cat", "dog", "eel"), image_size=64, roi_size=16, num_rois=2, temperature=0.7
)

ANIMALS_MULTILABEL = ANIMALS.replace(task="multilabel")
SCORES = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.3, 0.9], [0.1, 0.8, 0.7], [0.4, 0.4, 0.4]])


def animal_prediction(config: DiffMICConfig = ANIMALS, scores: torch.Tensor = SCORES, **changes: Any) -> Prediction:
    """A prediction of four pictures for the classes of ANIMALS."""
    count = len(scores)
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(count, 2, config.num_classes, generator=generator)
    probs = scores_to_probs(scores, config, members)
    pixels = np.random.default_rng(0).integers(0, 255, (count, 80, 100, 3), dtype=np.uint8)
    names = [f"scan{index}.png" for index in range(count)]
    values: dict[str, Any] = {
        "names": names,
        "scores": scores,
        "global_logits": members[:, 0],
        "local_logits": members[:, 1],
        "feature_logits": members[:, 0, :0],
        "probs": probs,
        "uncertainty": uncertainty(probs, config.task),
        "rois": torch.tensor([[0.0, 0.0, 16.0, 16.0], [32.0, 48.0, 48.0, 64.0]]).repeat(count, 1, 1),
        "roi_attention": torch.tensor([[0.25, 0.75]]).repeat(count, 1),
        "saliency": torch.randn(count, config.num_classes, 4, 4, generator=generator),
        "items": [Item(name, array) for name, array in zip(names, pixels, strict=True)],
        "errors": {"bad.png": "bad.png: is empty"},
        "config": config,
        "steps": 10,
        "seed": 0,
        "num_samples": 1,
        "trained": True,
        "sizes": [(80, 100)] * count,
    }
    return Prediction(**values | changes)


# ---------------------------------------------------------------------- the command line


def run_command(*arguments: object) -> Result:
    """Runs `diffmiczoo` in this process; fails where it ends with a traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
