"""`Recipe`: every setting of a training run, validated, frozen and JSON-serialisable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from diffmiczoo.config import Between, Settings
from diffmiczoo.errors import InvalidTypeError
from diffmiczoo.metrics.table import selection_names

Epochs = Annotated[int, Between(0, 100_000)]
Unit = Annotated[float, Between(0.0, 1.0)]  # a rate, a probability or a share


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """How a model is trained; the defaults are the paper's setting where it gives one.

    A file may give some of the fields; the others keep their defaults.

    Raises:
        ValueError: a field is not among its choices or bounds; the message names the field, the value and the range.
        TypeError: a field has a value of the wrong type.

    Source: DiffMIC-v2 (IEEE TMI 2025), section IV-A.
    """

    partial: ClassVar[bool] = True
    other_names: ClassVar[dict[str, tuple[str, ...]]] = {
        **dict.fromkeys(("epochs", "num_epochs", "max_epochs", "n_epochs"), ("dcg_epochs", "diffusion_epochs")),
        **dict.fromkeys(("lr", "learning_rate"), ("dcg_lr", "diffusion_lr", "encoder_lr")),
        **dict.fromkeys(("workers", "dataloader_num_workers"), ("num_workers",)),
        **dict.fromkeys(("early_stopping", "early_stopping_patience"), ("patience",)),
        **dict.fromkeys(("amp", "fp16", "bf16", "mixed_precision"), ("precision",)),
        **dict.fromkeys(("gradient_accumulation_steps", "accumulate_grad_batches"), ("accumulate",)),
        **dict.fromkeys(("per_device_train_batch_size", "bs"), ("batch_size",)),
    }

    # Stage 1, the DCG model, and stage 2, the diffusion with the DCG frozen; 0 epochs skip a stage
    dcg_epochs: Epochs = 100
    dcg_lr: Unit = 2e-4
    diffusion_epochs: Epochs = 1000
    diffusion_lr: Unit = 1e-3
    batch_size: Annotated[int, Between(2, 65_536)] = 64
    # Pixels at which the DCG sees whole pictures in the first two thirds of its epochs; None: the model's image_size
    start_size: Annotated[int, Between(16, 4096)] | None = None

    # What is learned from: the loss of the diffusion (None is the model's own); rare classes may weigh more in the loss
    # ("balanced") or be drawn more often
    loss: Literal["mse", "focal"] | None = None
    # The loss of the DCG's predictions and of a plain classifier's; of "ohem" the share of a batch that is learned from
    dcg_loss: Literal["cross_entropy", "ldam", "ohem"] = "cross_entropy"
    hard_share: Annotated[float, Between(0.01, 1.0)] = 0.7
    class_weights: Literal["none", "balanced"] = "none"
    sampling: Literal["shuffle", "balanced"] = "shuffle"

    # What encoders start from: "given", the weights that the model has; "trained", from those of the streams before
    # them, and then the DCG's streams learn one after the other, `dcg_epochs` each
    encoder_start: Literal["given", "trained"] = "given"

    # What learns: "backbones" keeps the encoders as they are, with the statistics of their BatchNorm
    freeze: Literal["none", "backbones"] = "none"

    # Against learning by heart: for the DCG's cross-entropies the share of a label that is spread over all classes
    # (multi-label: over yes and no), and the standard deviation, in grades, of what neighbouring grades get
    label_smoothing: Annotated[float, Between(0.0, 0.5)] = 0.0
    ordinal_smoothing: Annotated[float, Between(0.0, 5.0)] = 0.0
    drop_path: Annotated[float, Between(0.0, 0.9)] = 0.0  # of the encoders: probability that the last block is skipped
    # Trained models (directories, repositories, names of weights) whose mean answer to each augmented picture is so
    # large a share of the DCG's labels
    teachers: tuple[str, ...] = ()
    teacher_share: Unit = 0.5

    # Optimiser: AdamW (Adam for weight_decay = 0), linear warm-up, cosine to lr · min_lr_ratio
    accumulate: Annotated[int, Between(1, 65_536)] = 1  # batches whose gradients make one step
    encoder_lr: Unit | None = None  # of the encoders' backbones; None is the stage's own
    # Factor on the learning rate from each block of an encoder to the one before it
    layer_decay: Annotated[float, Between(0.01, 1.0)] = 1.0
    min_lr_ratio: Unit = 0.01
    warmup_epochs: Annotated[float, Between(0.0, 1000.0)] = 0.0
    weight_decay: Annotated[float, Between(0.0, 10.0)] = 0.0
    clip_grad: Annotated[float, Between(0.0, 1e6)] = 0.0  # largest gradient norm; 0 turns clipping off
    ema_decay: Annotated[float, Between(0.0, 0.99999)] = 0.0  # of the weights; 0 turns the average off
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False  # encoders and U-Net through torch.compile
    sync_batchnorm: bool = False  # several processes: BatchNorm's statistics are those of all their batches

    # Augmentation
    hflip: Unit = 0.5
    vflip: Unit = 0.0
    rotation: Annotated[float, Between(0.0, 180.0)] = 30.0  # degrees either way
    min_scale: Annotated[float, Between(0.05, 1.0)] = 1.0  # smallest share of the area that a random crop keeps
    fill: Literal["black", "reflect"] = "black"  # what `rotation` shows beyond the picture's edges
    color_jitter: Unit = 0.0  # largest change of brightness, contrast and saturation
    degrade: Unit = 0.0  # probability of JPEG artefacts, noise or blur, as other cameras and files have them
    rand_augment: Annotated[float, Between(0.0, 30.0)] = 0.0  # magnitude of two random changes, 9 is usual; 0 for none
    # α of the Beta distribution of the share that another picture gets: of every pixel, of the area; 0 turns it off
    mixup: Annotated[float, Between(0.0, 100.0)] = 0.0
    cutmix: Annotated[float, Between(0.0, 100.0)] = 0.0

    # Validation: the epoch with the best `select` is taken
    select: Annotated[str, selection_names] = "auroc"
    # Accuracy on validation images that labels may give up for balanced accuracy; 0: they are the most probable class
    balance_labels: Unit = 0.0
    validate_every: Annotated[int, Between(1, 100_000)] = 1
    patience: Epochs = 0  # without a better one after which a stage ends; 0 never ends it early

    num_workers: Annotated[int, Between(0, 256)] = 0  # processes for `rand_augment`; without it batches need none
    seed: Annotated[int, Between(0, 2**63 - 1)] = 0


def seed_of(recipe: Recipe | None) -> int:
    """Returns the seed of a recipe, 0 where there is none.

    Raises:
        TypeError: it is something else.
    """
    if recipe is None:
        return 0
    if not isinstance(recipe, Recipe):
        raise InvalidTypeError(
            f"recipe is a {type(recipe).__name__}; expected a Recipe, as diffmiczoo.Recipe(...), Recipe.load(path) or "
            "Recipe.from_dict(values) give one"
        )
    return recipe.seed
