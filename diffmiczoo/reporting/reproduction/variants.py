"""`Variant`, `Budget`, `Run`: what a row of a table trains, at what size, and each single training of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROTOCOLS = ("paper", "grouped")

#: What the protocols are called in tables.
PROTOCOL_TITLES = {"paper": "by image", "grouped": "leak-free"}


@dataclass(frozen=True)
class Variant:
    """A row of a table: a model and how it learns.

    Attributes:
        key: its name in ids and files, and for `--methods`.
        title: in tables.
        plain: name of a plain classifier in timm; "" for one of this package's architectures.
        architecture: its name where it is not the budget's own.
        ablation: as `create_model` takes it.
        config: config field → value.
        recipe: recipe field → value.
        note: what to know of it, a sentence.
    """

    key: str
    title: str
    plain: str = ""
    architecture: str = ""
    ablation: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Budget:
    """How large models and pictures are, how many there are of them, and how long is trained.

    Attributes:
        name: "small", "full", or what else a caller calls it.
        architecture: of rows with a DCG or a diffusion; "" for the paper's of the data set.
        pictures: of a data set at most, 0 for all; groups of pictures stay whole.
        epochs: of the DCG and of the diffusion; a plain classifier has both together. None: the preset's or paper's.
        image_size: pixels; None for the model's own.
        config: config field → value, for rows with a DCG or a diffusion.
        recipe: recipe field → value, for all rows.
        start: what encoders start from: "imagenet", "random", or "packaged": ImageNet's weights where an installed
            package holds them, so that nothing is fetched, else random ones.
    """

    name: str
    architecture: str = ""
    pictures: int = 0
    epochs: tuple[int, int] | None = None
    image_size: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    start: str = "imagenet"

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values."""
        values = {**vars(self), "config": dict(self.config), "recipe": dict(self.recipe)}
        return {**values, "epochs": None if self.epochs is None else list(self.epochs)}

    @property
    def sentence(self) -> str:
        """Says it in one line."""
        pictures = f"at most {self.pictures:,} pictures of a data set" if self.pictures else "all pictures"
        size = "the models' own image sizes" if self.image_size is None else f"{self.image_size} pixels"
        epochs = "the paper's epochs" if self.epochs is None else f"{self.epochs[0]} + {self.epochs[1]} epochs"
        own = f", {self.architecture}" if self.architecture else ""
        return f"budget {self.name}: {pictures}, {size}, {epochs}{own}"


#: What is reproduced has the paper's rule for ROIs and its sampler, which `diffmicv2_nano` has not.
_AS_PUBLISHED = {
    "local_out_index": 2,
    "roi_saliency": "sum",
    "latent_dim": 256,
    "sampling_steps": 10,
    "num_samples": 1,
    "clip_sample": True,
}

#: Small models and pictures, a few epochs: to see the protocol work on two cores, not to compare methods.
SMALL = Budget(
    "small",
    architecture="diffmicv2_nano",
    pictures=300,
    epochs=(5, 15),
    image_size=64,
    config={"roi_size": 32, "num_rois": 4, **_AS_PUBLISHED},
    recipe={"batch_size": 8},
    start="packaged",
)

#: The paper's setting: its architectures, epochs and 224 pixels.
FULL = Budget("full")

BUDGETS = {"small": SMALL, "full": FULL}


@dataclass(frozen=True)
class Run:
    """One training with its test.

    Attributes:
        dataset: name of the data set.
        protocol: of `PROTOCOLS`.
        variant: key of the row.
        model: as `create_model` takes it.
        seed: of the parameters and of training.
        ablation: as `create_model` takes it.
        config: config field → value.
        recipe: recipe field → value.
        base: which recipe `recipe` changes: "preset", "paper" or "paper_chest".
        imagenet: whether the encoders start from ImageNet's weights.
    """

    dataset: str
    protocol: str
    variant: str
    model: str
    seed: int
    ablation: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    base: str = "preset"
    imagenet: bool = False

    @property
    def id(self) -> str:
        """A name that is another one for whatever differs: data set, protocol, row, seed, and a hash of the rest."""
        rest = [self.model, self.ablation, dict(self.config), dict(self.recipe), self.base, self.imagenet]
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:8]
        words = "-".join((self.dataset, self.protocol, self.variant, f"s{self.seed}"))
        return f"{file_name(words)}-{digest}"


def file_name(words: str) -> str:
    """Returns words as any file system takes them: medmnist:NAME has a colon."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", words)
