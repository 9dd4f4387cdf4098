"""`DiffMICConfig`: every choice that shapes a DiffMIC-v2 model, validated, frozen and JSON-serialisable."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Field → the values it may take.
CHOICES: dict[str, tuple[Any, ...]] = {
    "task": ("multiclass", "multilabel"),
    "crop_mode": ("center", "border", "squash"),
    "interpolation": ("bilinear", "bicubic"),
    "roi_channels": ("rgb", "first"),
    "predictor": ("diffusion", "dcg", "global"),
    "guidance": ("dense", "fused", "global", "local", "none"),
    "prior_activation": ("none", "softmax", "sigmoid", "probs"),
    "feature_weighting": ("softmax", "none"),
    "feature_norm": ("batchnorm", "none"),
    "kernel_size": (1, 3),
    "process_mean": ("zero", "prior"),
    "sampler": ("ddim", "ancestral"),
    "init": ("gaussian", "guided", "interpolated"),
    "loss": ("mse", "focal"),
}

#: Field → (smallest, largest) value; the upper ends keep a hostile file from asking for absurd amounts of memory.
RANGES: dict[str, tuple[float, float]] = {
    "num_classes": (2, 100_000),
    "image_size": (16, 4096),
    "roi_size": (4, 4096),
    "num_rois": (1, 256),
    "attention_dim": (1, 65_536),
    "saliency_top": (1e-6, 1.0),
    "num_points": (1, 64),
    "latent_dim": (1, 65_536),
    "num_train_timesteps": (1, 100_000),
    "sampling_steps": (1, 100_000),
    "num_samples": (1, 1000),
    "beta_start": (1e-8, 0.999),
    "beta_end": (1e-8, 0.999),
    "mmd_weight": (0.0, 100.0),
    "prior_weight": (0.0, 100.0),
    "dcg_out_index": (-1, 32),
    "local_out_index": (-1, 32),
    "raw_out_index": (-1, 32),
    "roi_out_index": (-1, 32),
}


#: Numbers of one image's starting noise; a hostile file must not take memory either by what it multiplies.
MOST_NOISE = 50_000_000


@dataclass(frozen=True, kw_only=True)
class DiffMICConfig:
    """What a DiffMIC-v2 model is: sizes, encoders, switches, diffusion schedule and pre-processing.

    The defaults are the paper's setting for HAM10000 (six 32-pixel ROIs, Np = 6, H = 6144). Fields that carry the
    same name as an argument of timm or diffusers mean the same thing.

    Raises:
        ValueError: a field has a value outside its range; the message names the field, the value and the range.
        TypeError: a field has a value of the wrong type.

    Source: DiffMIC-v2 (IEEE TMI 2025), sections III and IV-A.
    """

    # What is predicted
    num_classes: int = 7
    class_names: tuple[str, ...] = ()  # empty: "class_0", "class_1", …
    task: str = "multiclass"
    ordinal: bool = False  # classes are grades in order, so that near misses are better than far ones
    predictor: str = "diffusion"  # who answers: the diffusion, the DCG alone, or its global stream alone

    # Pre-processing: crop to a square, resize to image_size, then (x - mean) / std for x in [0, 1]
    image_size: int = 224
    crop_mode: str = "center"
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    # DCG model τ_D: global encoder, ROIs, local encoder with gated attention (eq. 1-3)
    dcg_encoder: str = "resnet18"
    dcg_out_index: int = -1  # which of timm's feature maps; -1 is the last
    local_out_index: int = -1
    saliency_top: float = 1.0  # share of the strongest saliency responses that the global prior averages
    num_rois: int = 6  # K
    roi_size: int = 32  # pixels
    roi_channels: str = "rgb"
    attention_dim: int = 128  # L

    # Guidance map M (eq. 4-5): both priors spread densely, their mean, or one of them at every point
    num_points: int = 6  # Np
    guidance: str = "dense"
    prior_activation: str = "none"  # "probs": softmax or sigmoid as the task asks

    # Image feature prior F (eq. 6)
    raw_encoder: str = "efficientsam_s"
    raw_out_index: int = -1
    roi_features: bool = True  # False: F sees the whole image only
    roi_encoder: str = "resnet18"
    roi_out_index: int = -1
    latent_dim: int = 6144  # H
    feature_weighting: str = "softmax"  # what Q's K + 1 columns pass through
    feature_norm: str = "batchnorm"

    # Denoising U-Net (eq. 8)
    kernel_size: int = 1
    skip: bool = False

    # Diffusion and sampling (eq. 7, 9, 10)
    heterologous: bool = True  # a timestep per noise point in training; False draws one per image
    process_mean: str = "zero"  # what y_t ends at: 0, or the guidance map as in DiffMIC (v1)
    num_train_timesteps: int = 1000  # T
    beta_start: float = 1e-4
    beta_end: float = 0.02
    loss: str = "mse"
    mmd_weight: float = 0.0  # of the MMD between ε and its predictions from each prior alone, as in DiffMIC (v1)
    sampler: str = "ddim"
    sampling_steps: int = 10
    num_samples: int = 1  # runs of the sampler that an answer averages
    init: str = "gaussian"
    shared_noise: bool = False  # one draw of y_T per |i - j| instead of one per point
    clip_sample: bool = True

    # Calibration: divides the logits of the scores before softmax or sigmoid; None means "not fitted". The DCG's own
    # logits are added to that with a weight
    temperature: float | None = None
    prior_weight: float = 0.0
    thresholds: tuple[float, ...] = ()  # multi-label: the probability from which a label is given; empty means 0.5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _coerced(field.name, field.type, getattr(self, field.name)))
        self._validate_values()
        self._validate_class_names()
        self._validate_thresholds()

    def _validate_values(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)!r} is outside {low}..{high}")
        if self.roi_size > self.image_size:
            raise ValueError(f"roi_size={self.roi_size} is larger than image_size={self.image_size}")
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start={self.beta_start} is larger than beta_end={self.beta_end}")
        if self.sampling_steps > self.num_train_timesteps:
            raise ValueError(
                f"sampling_steps={self.sampling_steps} is more than num_train_timesteps={self.num_train_timesteps}"
            )
        noise = self.num_samples * self.num_classes * self.num_points**2
        if noise > MOST_NOISE:
            raise ValueError(
                f"num_samples={self.num_samples}, num_classes={self.num_classes} and num_points={self.num_points} need "
                f"{noise:,} random numbers for an image; at most {MOST_NOISE:,} are allowed"
            )
        if self.guidance == "none":
            guided = {"init": "guided", "process_mean": "prior"}
            wrong = [f"{name}={value!r}" for name, value in guided.items() if getattr(self, name) == value]
            wrong += [f"mmd_weight={self.mmd_weight}"] if self.mmd_weight else []
            if wrong:
                raise ValueError(f"{', '.join(wrong)} needs a guidance map, but guidance is 'none'")
        if self.prior_weight and self.predictor != "diffusion":
            raise ValueError(
                f"prior_weight={self.prior_weight} is for a diffusion; predictor={self.predictor!r} has none"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std} must be positive")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be a positive number or None")

    def _validate_class_names(self) -> None:
        names = self.class_names
        if names and len(names) != self.num_classes:
            raise ValueError(f"class_names has {len(names)} names, but num_classes is {self.num_classes}")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"class_names repeats {', '.join(map(repr, repeated))}")

    def _validate_thresholds(self) -> None:
        if self.ordinal and self.task != "multiclass":
            raise ValueError("ordinal=True is for one grade out of several; a multilabel model has none")
        if self.thresholds and (self.task != "multilabel" or len(self.thresholds) != self.num_classes):
            raise ValueError(
                f"thresholds has {len(self.thresholds)} values; a multilabel model has one for each of its "
                f"{self.num_classes} labels, others have none"
            )
        if not all(0 < value <= 1 for value in self.thresholds):
            raise ValueError(f"thresholds={self.thresholds} must be probabilities in (0, 1]")

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, or "class_0", "class_1", … where none were given."""
        return self.class_names or tuple(f"class_{index}" for index in range(self.num_classes))

    def replace(self, **changes: Any) -> DiffMICConfig:
        """Returns a copy with some fields changed.

        Raises:
            ValueError: a name is not a field, or a value is not allowed.
        """
        _reject_unknown(changes, "config field")
        return dataclasses.replace(self, **changes)

    def uncalibrated(self) -> DiffMICConfig:
        """Returns a copy without what is fitted on validation images: temperature, prior weight, thresholds."""
        return dataclasses.replace(self, temperature=None, prior_weight=0.0, thresholds=())

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, source: str = "config") -> DiffMICConfig:
        """Builds a config from exactly the fields that `to_dict` writes; those that came later may be missing.

        Args:
            values: field → value.
            source: where the values come from, for the error message.

        Raises:
            ValueError: a field is unknown, missing or has a value that is not allowed.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{source}: expected an object with the fields of DiffMICConfig, found {values!r}")
        expected = {field.name for field in dataclasses.fields(cls)}
        missing, unknown = sorted(expected - values.keys() - _LATER), sorted(values.keys() - expected)
        if missing or unknown:
            raise ValueError(f"{source}: missing fields {missing}, unknown fields {unknown}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the config as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DiffMICConfig:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not JSON, or a field is unknown, missing or not allowed.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a JSON file ({error})") from error
        return cls.from_dict(values, source=str(path))


#: Fields that came after the first published weights; without them these mean what the defaults say.
_LATER = {"ordinal", "thresholds", "prior_weight"}


def _reject_unknown(values: dict[str, Any], what: str) -> None:
    import difflib

    names = [field.name for field in dataclasses.fields(DiffMICConfig)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; the fields are {', '.join(names)}"
            raise ValueError(f"{name!r} is not a {what}{hint}")


def _coerced(name: str, kind: Any, value: Any) -> Any:
    """Returns `value` in the field's own type; only int → float and list → tuple are converted."""
    if kind == "bool":
        matches = isinstance(value, bool)
    elif kind == "int":
        matches = isinstance(value, int) and not isinstance(value, bool)
    elif kind == "float" or kind == "float | None":
        if value is None and kind == "float | None":
            return None
        matches = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        value = float(value) if matches else value
    elif kind == "str":
        matches = isinstance(value, str) and bool(value)
    else:
        return _coerced_tuple(name, kind, value)
    if not matches:
        raise TypeError(f"{name}={value!r} is not of type {kind}")
    return value


def _coerced_tuple(name: str, kind: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name}={value!r} is not a list")
    if kind in ("tuple[str, ...]", "tuple[float, ...]"):
        item_kind = kind.removeprefix("tuple[").removesuffix(", ...]")
        return tuple(_coerced(f"{name}[{index}]", item_kind, item) for index, item in enumerate(value))
    if len(value) != 3:
        raise ValueError(f"{name}={value!r} has {len(value)} values; expected 3, one per colour channel")
    return tuple(_coerced(f"{name}[{index}]", "float", item) for index, item in enumerate(value))
