"""`Recipe`: every setting of a training run, validated, frozen and JSON-serialisable."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHOICES = {
    "precision": ("fp32", "bf16", "fp16"),
    "select": ("accuracy", "balanced_accuracy", "macro_f1", "quadratic_kappa", "auroc", "average_precision", "nll"),
    "loss": (None, "mse", "focal"),
    "class_weights": ("none", "balanced"),
    "sampling": ("shuffle", "balanced"),
    "freeze": ("none", "backbones"),
}

RANGES = {
    "dcg_epochs": (0, 100_000),
    "diffusion_epochs": (0, 100_000),
    "batch_size": (2, 65_536),
    "dcg_lr": (0.0, 1.0),
    "diffusion_lr": (0.0, 1.0),
    "encoder_lr": (0.0, 1.0),
    "min_lr_ratio": (0.0, 1.0),
    "warmup_epochs": (0.0, 1000.0),
    "weight_decay": (0.0, 10.0),
    "ema_decay": (0.0, 0.99999),
    "layer_decay": (0.01, 1.0),
    "accumulate": (1, 65_536),
    "mixup": (0.0, 100.0),
    "patience": (0, 100_000),
    "clip_grad": (0.0, 1e6),
    "hflip": (0.0, 1.0),
    "vflip": (0.0, 1.0),
    "rotation": (0.0, 180.0),
    "min_scale": (0.05, 1.0),
    "color_jitter": (0.0, 1.0),
    "validate_every": (1, 100_000),
    "num_workers": (0, 256),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; the defaults are the paper's setting where it gives one.

    Raises:
        ValueError: a field is out of range; the message names the field, the value and the range.

    Source: DiffMIC-v2 (IEEE TMI 2025), section IV-A.
    """

    # Stage 1, the DCG model, and stage 2, the diffusion with the DCG frozen; 0 epochs skip a stage
    dcg_epochs: int = 100
    dcg_lr: float = 2e-4
    diffusion_epochs: int = 1000
    diffusion_lr: float = 1e-3
    batch_size: int = 64

    # What is learned from: the loss of the diffusion, "mse" or "focal" (None is the model's own); rare classes may
    # weigh more in the loss ("balanced") or be drawn more often
    loss: str | None = None
    class_weights: str = "none"
    sampling: str = "shuffle"

    # What learns: "backbones" keeps the encoders as they are, with the statistics of their BatchNorm
    freeze: str = "none"

    # Optimiser: AdamW (Adam for weight_decay = 0), linear warm-up, cosine to lr · min_lr_ratio
    accumulate: int = 1  # batches whose gradients make one step
    encoder_lr: float | None = None  # of the encoders' backbones; None is the stage's own
    layer_decay: float = 1.0  # factor on the learning rate from each block of an encoder to the one before it
    min_lr_ratio: float = 0.01
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    clip_grad: float = 0.0  # largest gradient norm; 0 turns clipping off
    ema_decay: float = 0.0  # of the weights; 0 turns the average off
    precision: str = "fp32"
    compile: bool = False  # encoders and U-Net through torch.compile

    # Augmentation
    hflip: float = 0.5
    vflip: float = 0.0
    rotation: float = 30.0  # degrees either way
    min_scale: float = 1.0  # smallest share of the area that a random crop keeps
    color_jitter: float = 0.0  # largest change of brightness, contrast and saturation
    mixup: float = 0.0  # α of the Beta distribution of the mixing share; 0 turns it off

    # Validation: the epoch with the best `select` is kept
    select: str = "auroc"
    validate_every: int = 1
    patience: int = 0  # epochs without a better one after which a stage ends; 0 never ends it early

    num_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if not isinstance(getattr(self, name), str | None) or getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}")
        if not isinstance(self.compile, bool):
            raise ValueError(f"compile={self.compile!r} is not true or false")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is None and name == "encoder_lr":
                continue
            whole = isinstance(getattr(Recipe, name), int)
            kind, what = (int, "a whole number") if whole else (int | float, "a number")
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                raise ValueError(f"{name}={value!r} is not {what} within {low}..{high}")

    def replace(self, **changes: Any) -> Recipe:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, source: str = "recipe") -> Recipe:
        """Builds a recipe; fields that are not given keep their defaults.

        Raises:
            ValueError: a field is unknown or out of range.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"{source}: unknown fields {unknown}")
        return cls(**values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Reads what `save` wrote, or a JSON object with some of the fields.

        Raises:
            ValueError: the file is not a JSON object, or a field is unknown or out of range.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a JSON file ({error})") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected a JSON object with the fields of a recipe")
        return cls.from_dict(values, source=str(path))
