"""`DiffMICConfig`: every choice that shapes a DiffMIC-v2 model, validated, frozen and JSON-serialisable."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from diffmiczoo.config.settings import LATER, Between, Settings
from diffmiczoo.errors import InvalidValueError

Width = Annotated[int, Between(1, 65_536)]
FeatureIndex = Annotated[int, Between(-1, 32)]  # which of timm's feature maps; -1 is the last
Beta = Annotated[float, Between(1e-8, 0.999)]
LossWeight = Annotated[float, Between(0.0, 100.0)]

#: Fields that no tensor holds and that are fitted to the weights on labelled images: the calibration.
CALIBRATION_FIELDS = (
    "temperature", "prior_weight", "feature_weight", "class_offsets", "thresholds", "label_adjustment",
)  # fmt: skip

#: Logits are moved no further by `class_offsets`: odds by a factor of half a thousand million.
LARGEST_OFFSET = 20.0

#: Numbers of one image's starting noise; a hostile file must not take memory either by what it multiplies.
MOST_NOISE = 50_000_000


@dataclass(frozen=True, kw_only=True)
class DiffMICConfig(Settings):
    """What a DiffMIC-v2 model is: sizes, encoders, switches, diffusion schedule and pre-processing.

    The defaults are the paper's setting for HAM10000 (six 32-pixel ROIs, Np = 6, H = 6144). Fields that carry the
    same name as an argument of timm or diffusers mean the same thing.

    Raises:
        ValueError: a field has a value outside its range; the message names the field, the value and the range.
        TypeError: a field has a value of the wrong type.

    Source: DiffMIC-v2 (IEEE TMI 2025), sections III and IV-A.
    """

    # What is predicted
    num_classes: Annotated[int, Between(2, 100_000)] = 7
    class_names: tuple[str, ...] = ()  # empty: "class_0", "class_1", …
    task: Literal["multiclass", "multilabel"] = "multiclass"
    ordinal: Annotated[bool, LATER] = False  # classes are grades in order: near misses are better than far ones
    # Who predicts: the diffusion, the DCG alone, its global stream alone, or `dcg_encoder` as a whole with its own head
    predictor: Literal["diffusion", "dcg", "global", "classifier"] = "diffusion"

    # Pre-processing: crop to a square, resize to image_size, then (x - mean) / std for x in [0, 1]
    image_size: Annotated[int, Between(16, 4096)] = 224
    crop_mode: Literal["center", "border", "squash"] = "center"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    # DCG model τ_D: global encoder, ROIs, local encoder with gated attention (eq. 1-3)
    dcg_encoder: str = "resnet18"
    dcg_out_index: FeatureIndex = -1
    # The global stream goes through all of timm's classifier before its pooling, not through `dcg_out_index` stages
    dcg_trunk: Annotated[bool, LATER] = False
    local_out_index: FeatureIndex = -1
    saliency_top: Annotated[float, Between(1e-6, 1.0)] = 1.0  # share of the strongest saliency that ŷ_g averages
    num_rois: Annotated[int, Between(1, 256)] = 6  # K
    roi_size: Annotated[int, Between(4, 4096)] = 32  # pixels of the source
    # Side of the square that ROIs are cut from; the streams that see the whole image see image_size. None: the same
    roi_source_size: Annotated[Annotated[int, Between(16, 8192)] | None, LATER] = None
    # How the classes' saliency maps add up to where ROIs are, see `diffmiczoo.nn.roi.roi_evidence`
    roi_saliency: Annotated[Literal["sum", "probability", "top", "spread"], LATER] = "sum"
    roi_channels: Literal["rgb", "first"] = "rgb"
    attention_dim: Width = 128  # L

    # Guidance map M (eq. 4-5): both priors spread densely, their mean, or one of them at every point
    num_points: Annotated[int, Between(1, 64)] = 6  # Np
    guidance: Literal["dense", "fused", "global", "local", "none"] = "dense"
    prior_activation: Literal["none", "softmax", "sigmoid", "probs"] = "none"  # "probs": as the task asks

    # Image feature prior F (eq. 6)
    raw_encoder: str = "efficientsam_s"
    raw_out_index: FeatureIndex = -1
    roi_features: bool = True  # False: F sees the whole image only
    roi_encoder: str = "resnet18"
    roi_out_index: FeatureIndex = -1
    latent_dim: Width = 6144  # H
    feature_weighting: Literal["softmax", "none"] = "softmax"  # what Q's K + 1 columns pass through
    feature_norm: Literal["batchnorm", "none"] = "batchnorm"
    # Of the cross-entropy of a classifier on F, which learns beside the noise loss; 0: there is none
    feature_loss_weight: Annotated[LossWeight, LATER] = 0.0

    # Denoising U-Net (eq. 8)
    kernel_size: Literal[1, 3] = 1
    skip: bool = False

    # Diffusion and sampling (eq. 7, 9, 10)
    heterologous: bool = True  # a timestep per noise point in training; False draws one per image
    process_mean: Literal["zero", "prior"] = "zero"  # what y_t ends at: 0, or the guidance map as in DiffMIC (v1)
    num_train_timesteps: Annotated[int, Between(1, 100_000)] = 1000  # T
    beta_start: Beta = 1e-4
    beta_end: Beta = 0.02
    loss: Literal["mse", "focal"] = "mse"
    mmd_weight: LossWeight = 0.0  # of the MMD between ε and its predictions from each prior alone, as in DiffMIC (v1)
    sampler: str = "ddim"  # a name of `diffmiczoo.diffusion.samplers`, looked up when a model is built, like encoders
    sampling_steps: Annotated[int, Between(1, 100_000)] = 10
    num_samples: Annotated[int, Between(1, 1000)] = 1  # runs of the sampler that a prediction averages
    init: Literal["gaussian", "guided", "interpolated"] = "gaussian"
    shared_noise: bool = False  # one draw of y_T per |i - j| instead of one per point
    clip_sample: bool = True
    # Views of a picture that a prediction averages: its mirror images, and its quarter turns too
    tta: Annotated[Literal["none", "hflip", "flips", "rotations"], LATER] = "none"

    # Calibration: divides the logits of the scores before softmax or sigmoid; None means "not fitted". ŷ_g and ŷ_l are
    # added to that with a weight each; one number w, as older files have it, means (w / 2, w / 2)
    temperature: float | None = None
    prior_weight: Annotated[tuple[LossWeight, LossWeight], LATER] = (0.0, 0.0)
    feature_weight: Annotated[LossWeight, LATER] = 0.0  # the same of the classifier on F
    # Added to the calibrated logits: how much more frequent a class is than where the weights were trained, as
    # recalibration on local images found; empty means as frequent
    class_offsets: Annotated[tuple[float, ...], LATER] = ()
    thresholds: Annotated[tuple[float, ...], LATER] = ()  # multi-label: from which a label is given; empty means 0.5
    # One label: offsets on log probabilities for the label alone; empty means that it is the most probable class
    label_adjustment: Annotated[tuple[float, ...], LATER] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prior_weight", _of_both_priors(self.prior_weight))
        super().__post_init__()
        self._validate_sizes()
        self._validate_switches()
        self._validate_classes()

    def _validate_sizes(self) -> None:
        if self.roi_source_size is not None and self.roi_source_size < self.image_size:
            raise InvalidValueError(
                f"roi_source_size={self.roi_source_size} is smaller than image_size={self.image_size}; ROIs are cut "
                "from the same square or a larger one"
            )
        if self.roi_size > self.input_size:
            source = "image_size" if self.roi_source_size is None else "roi_source_size"
            raise InvalidValueError(f"roi_size={self.roi_size} is larger than {source}={self.input_size}")
        if self.beta_start > self.beta_end:
            raise InvalidValueError(f"beta_start={self.beta_start} is larger than beta_end={self.beta_end}")
        if self.sampling_steps > self.num_train_timesteps:
            raise InvalidValueError(
                f"sampling_steps={self.sampling_steps} is more than num_train_timesteps={self.num_train_timesteps}"
            )
        noise = self.num_samples * self.num_classes * self.num_points**2
        if noise > MOST_NOISE:
            raise InvalidValueError(
                f"num_samples={self.num_samples}, num_classes={self.num_classes} and num_points={self.num_points} need "
                f"{noise:,} random numbers for an image; at most {MOST_NOISE:,} are allowed"
            )
        if min(self.std) <= 0:
            raise InvalidValueError(f"std={self.std} must be positive")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise InvalidValueError(f"temperature={self.temperature} must be a positive number or None")

    def _validate_switches(self) -> None:
        if self.guidance == "none":
            guided = {"init": "guided", "process_mean": "prior"}
            wrong = [f"{name}={value!r}" for name, value in guided.items() if getattr(self, name) == value]
            wrong += [f"mmd_weight={self.mmd_weight}"] if self.mmd_weight else []
            if wrong:
                raise InvalidValueError(f"{', '.join(wrong)} needs a guidance map, but guidance is 'none'")
        if any(self.prior_weight) and self.predictor in ("global", "classifier"):
            raise InvalidValueError(
                f"prior_weight={self.prior_weight} weighs two priors; predictor={self.predictor!r} has only one"
            )
        if self.dcg_trunk and (self.dcg_out_index != -1 or self.predictor == "classifier"):
            raise InvalidValueError(
                f"dcg_trunk=True is all of the encoder; dcg_out_index={self.dcg_out_index} must be -1 with it, and "
                f"predictor={self.predictor!r} not 'classifier'"
            )
        if self.feature_weight and not self.feature_loss_weight:
            raise InvalidValueError(
                f"feature_weight={self.feature_weight} weighs a classifier on F; without "
                "feature_loss_weight there is none"
            )
        if self.feature_loss_weight and self.predictor != "diffusion":
            raise InvalidValueError(
                f"feature_loss_weight={self.feature_loss_weight} is for a diffusion; predictor={self.predictor!r} has "
                "no feature prior"
            )
        if self.ordinal and self.task != "multiclass":
            raise InvalidValueError("ordinal=True is for one grade out of several; a multilabel model has none")

    def _validate_classes(self) -> None:
        names = self.class_names
        if names and len(names) != self.num_classes:
            raise InvalidValueError(f"class_names has {len(names)} names, but num_classes is {self.num_classes}")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InvalidValueError(f"class_names repeats {', '.join(map(repr, repeated))}")
        if self.class_offsets and len(self.class_offsets) != self.num_classes:
            raise InvalidValueError(
                f"class_offsets has {len(self.class_offsets)} values; a model has one for each of its "
                f"{self.num_classes} classes, or none"
            )
        if not all(abs(value) <= LARGEST_OFFSET for value in self.class_offsets):
            raise InvalidValueError(f"class_offsets={self.class_offsets} must be within ±{LARGEST_OFFSET:g}")
        if self.thresholds and (self.task != "multilabel" or len(self.thresholds) != self.num_classes):
            raise InvalidValueError(
                f"thresholds has {len(self.thresholds)} values; a multilabel model has one for each of its "
                f"{self.num_classes} labels, others have none"
            )
        if not all(0 < value <= 1 for value in self.thresholds):
            raise InvalidValueError(f"thresholds={self.thresholds} must be probabilities in (0, 1]")
        if self.label_adjustment and (self.task != "multiclass" or len(self.label_adjustment) != self.num_classes):
            raise InvalidValueError(
                f"label_adjustment has {len(self.label_adjustment)} values; a multiclass model has one for each of its "
                f"{self.num_classes} classes, others have none"
            )

    @property
    def input_size(self) -> int:
        """Side in pixels of the squares that the model is given: those that ROIs are cut from."""
        return self.image_size if self.roi_source_size is None else self.roi_source_size

    @property
    def pool_weights(self) -> tuple[float, ...]:
        """The weight of each member that is added to the scores: of ŷ_g, ŷ_l and, where there is one, ŷ_F."""
        return (*self.prior_weight, self.feature_weight) if self.feature_loss_weight else self.prior_weight

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, or "class_0", "class_1", … where none were given."""
        return self.class_names or tuple(f"class_{index}" for index in range(self.num_classes))

    # Not fields, so that files and digests stay as they are.
    id2label = property(lambda self: dict(enumerate(self.labels)), doc="Class number → name, as in transformers.")
    label2id = property(lambda self: {name: index for index, name in enumerate(self.labels)}, doc="Name → number.")

    def uncalibrated(self) -> DiffMICConfig:
        """Returns a copy without what is fitted on validation images: `CALIBRATION_FIELDS` as they are by default."""
        return dataclasses.replace(self, **{name: getattr(type(self), name) for name in CALIBRATION_FIELDS})

    @property
    def calibration(self) -> dict[str, Any]:
        """The `CALIBRATION_FIELDS` and their values, for `replace`."""
        return {name: getattr(self, name) for name in CALIBRATION_FIELDS}


def _of_both_priors(weight: Any) -> Any:
    """Returns one number w, the weight of 0.5 · (ŷ_g + ŷ_l), as a weight for each; anything else as it is."""
    if isinstance(weight, int | float) and not isinstance(weight, bool):
        return (weight / 2, weight / 2)
    return weight
