"""The rows of the paper's tables that can be had here, what stands for those that cannot, and its published figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError, did_you_mean
from diffmiczoo.reporting.reproduction.variants import Variant
from diffmiczoo.zoo.architectures import diffmicv1_resnet18

PAPER = "Yang et al., IEEE TMI 2025, doi 10.1109/TMI.2025.3530399"

#: The row that others are tested against.
OURS = "diffmic_v2"


def _v1_fields() -> dict[str, Any]:
    """Returns what makes a DiffMIC (v1) of a DiffMIC-v2, but for its encoders."""
    first, second = diffmicv1_resnet18().to_dict(), DiffMICConfig().to_dict()
    changed = {name for name in first if first[name] != second[name]} - {"raw_encoder"}
    return {name: getattr(diffmicv1_resnet18(), name) for name in sorted(changed)}


#: Rows of tables 1 to 3; "plain" is for budgets whose other rows have small encoders.
METHODS: dict[str, Variant] = {
    variant.key: variant
    for variant in (
        Variant("resnet18", "ResNet-18", plain="resnet18"),
        Variant("vit_s", "ViT-S", plain="vit_small_patch16_224"),
        Variant("swin_t", "Swin-T", plain="swin_tiny_patch4_window7_224"),
        Variant("pvt_v2", "PVT-v2", plain="pvt_v2_b2"),
        Variant(
            "coatnet_0",
            "CoAtNet-0 (for UniFormer-S)",
            plain="coatnet_0_rw_224",
            note="timm has no UniFormer; CoAtNet-0 also has convolution first and attention after, and is of its size",
        ),
        Variant("plain", "EfficientNet-Lite0", plain="tf_efficientnet_lite0"),
        Variant("ldam", "LDAM", plain="resnet18", recipe={"dcg_loss": "ldam"}, note="margins on plain logits"),
        Variant("ohem", "OHEM", plain="resnet18", recipe={"dcg_loss": "ohem"}, note="the hardest 70 % of each batch"),
        Variant(
            "gmic",
            "DCG alone (GMIC-like)",
            ablation="dcg",
            note="the DCG follows GMIC (Shen et al. 2021) and is not its program",
        ),
        Variant(
            "diffmic_v1",
            "DiffMIC (v1)",
            config=_v1_fields(),
            note="v1 in this package's terms: one noise vector, the prior as the mean of the process, MMD, ancestral "
            "sampling; its DCG is that of the other rows",
        ),
        Variant(OURS, "DiffMIC-v2"),
    )
}

#: What is trained where no methods are named: UniFormer and others need a GPU.
DEFAULT_METHODS = {
    "small": ("plain", "ldam", "ohem", "gmic", "diffmic_v1", OURS),
    "full": tuple(key for key in METHODS if key != "plain"),
}

#: Rows of table 4; the full model is that of the other tables.
ABLATIONS = (
    Variant("c1", "C1: global stream alone", ablation="c1"),
    Variant("c2", "C2: vanilla diffusion on the raw image", ablation="c2"),
    Variant("c3", "C3: C2 + global prior", ablation="c3"),
    Variant("c4", "C4: C2 + local prior", ablation="c4"),
    Variant("c5", "C5: F alone", ablation="c5"),
    Variant("c6", "C6: F and M, one t for all points", ablation="c6"),
    METHODS[OURS],
)


@dataclass(frozen=True)
class SweepPoint:
    """A value of a setting that is swept.

    Attributes:
        axis: "K", "Np" or "H".
        value: of the setting.
        variant: the row.
    """

    axis: str
    value: int
    variant: Variant


#: Setting → config field, values of the full budget (the paper's for H) and of others.
AXES: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "K": ("num_rois", (2, 4, 6, 8), (2, 4, 6, 8)),
    "Np": ("num_points", (1, 2, 4, 6, 8, 10), (1, 4, 6, 8)),
    "H": ("latent_dim", (2048, 4096, 6144, 8192), (64, 128, 256, 512)),
}


def sweep_points(base: DiffMICConfig, full: bool) -> list[SweepPoint]:
    """Returns all points of table 5 and figure 4; the value that a model has anyway is the model itself."""
    found = []
    for axis, (name, at_full, at_small) in AXES.items():
        own = getattr(base, name)
        for value in sorted({*(at_full if full else at_small), own}):
            key = f"{OURS}-{axis.lower()}{value}"
            other = Variant(key, f"{axis} = {value}", config={name: value})
            found.append(SweepPoint(axis, value, METHODS[OURS] if value == own else other))
    return found


def chosen_methods(names: Sequence[str], budget: str) -> list[Variant]:
    """Returns the variants of names, the budget's own ones where there are none.

    Raises:
        ValueError: a name is unknown.
    """
    wanted = tuple(names) or DEFAULT_METHODS.get(budget, DEFAULT_METHODS["small"])
    unknown = [name for name in wanted if name not in METHODS]
    if unknown:
        raise InvalidValueError(
            f"methods: {', '.join(unknown)} unknown{did_you_mean(unknown, METHODS, {})}; there are {', '.join(METHODS)}"
        )
    return [METHODS[name] for name in METHODS if name in wanted]


# ---------------------------------------------------------------------- published


@dataclass(frozen=True)
class Published:
    """What the paper says of a row; nobody measured it here.

    Attributes:
        dataset: the paper's.
        key: of the variant.
        metric: name of the metric.
        value: of the paper.
    """

    dataset: str
    key: str
    metric: str
    value: float


def _both(dataset: str, key: str, accuracy: float, macro_f1: float) -> Iterable[Published]:
    return Published(dataset, key, "accuracy", accuracy), Published(dataset, key, "macro_f1", macro_f1)


PUBLISHED: tuple[Published, ...] = (
    *_both("pmg2000", OURS, 0.935, 0.933),
    *_both("pmg2000", "diffmic_v1", 0.931, 0.926),
    *_both("ham10000", OURS, 0.909, 0.839),
    *_both("ham10000", "diffmic_v1", 0.906, 0.816),
    *_both("aptos2019", OURS, 0.871, 0.721),
    *_both("aptos2019", "diffmic_v1", 0.858, 0.716),
    Published("chestxray14", OURS, "auroc", 0.825),
    Published("chestxray14", "diffmic_v1", "auroc", 0.819),
    *_both("pmg2000", "c1", 0.879, 0.881),
    *_both("pmg2000", "c2", 0.906, 0.899),
    *_both("pmg2000", "c3", 0.915, 0.910),
    *_both("pmg2000", "c4", 0.917, 0.912),
    *_both("pmg2000", "c5", 0.913, 0.905),
    *_both("pmg2000", "c6", 0.927, 0.925),
    Published("pmg2000", f"{OURS}-h2048", "accuracy", 0.920),
    Published("pmg2000", f"{OURS}-h4096", "accuracy", 0.924),
    Published("pmg2000", f"{OURS}-h8192", "accuracy", 0.934),
)

#: What the paper says of cost, and of the sweeps in words.
PUBLISHED_COST = (
    "7.65 GMAC in each of 10 steps, 0.021 s per image on an RTX 4090, at 224 pixels; its program computes both image "
    "encoders again in every step, which is not done here"
)
PUBLISHED_SWEEPS = "the paper calls Np stable from 4 to 7 and K from 4 to 8"


def published(dataset: str, key: str, metric: str) -> float | None:
    """Returns what the paper says; None where it says nothing, or nothing that is known here."""
    found = (row.value for row in PUBLISHED if (row.dataset, row.key, row.metric) == (dataset, key, metric))
    return next(found, None)
