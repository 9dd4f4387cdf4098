"""The table of weights: what each entry `architecture.tag` was, or is to be, trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffmiczoo.hub.checksums import Digest
from diffmiczoo.hub.client import hub_organization

#: Weights from images that may not be used commercially.
NON_COMMERCIAL = "cc-by-nc-4.0"

_CLASSES: dict[str, dict[str, Any]] = {
    "ham10000": {"class_names": ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")},
    "aptos2019": {"class_names": ("no_dr", "mild", "moderate", "severe", "proliferative"), "ordinal": True},
    "busi": {"class_names": ("benign", "malignant", "normal")},
    "pmg2000": {"class_names": ("grade_0", "grade_1", "grade_2", "grade_3"), "ordinal": True},
    "chestxray14": {
        "class_names": (
            "Atelectasis",
            "Cardiomegaly",
            "Effusion",
            "Infiltration",
            "Mass",
            "Nodule",
            "Pneumonia",
            "Pneumothorax",
            "Consolidation",
            "Edema",
            "Emphysema",
            "Fibrosis",
            "Pleural_Thickening",
            "Hernia",
        ),
        "task": "multilabel",
    },
}

_DATA = {
    "ham10000": ("dermatoscopy, 7 kinds of pigmented skin lesions", "CC BY-NC 4.0"),
    "aptos2019": ("fundus photographs, 5 grades of diabetic retinopathy", "competition data, research use only"),
    "busi": ("breast ultrasound, 3 classes", "CC BY 4.0"),
    "pmg2000": ("placental ultrasound, 4 grades", "in-house data of the paper's authors, not public"),
    "chestxray14": ("frontal chest X-rays, 14 findings, multi-label", "NIH Clinical Center, free use with citation"),
}

_SPLIT = {
    "ham10000": "By lesion: all images of a lesion, and published duplicates, on one side.",
    "aptos2019": "By image, stratified by grade.",
    "busi": "By image, duplicates on one side.",
    "pmg2000": "By image, 8:2, as in the paper.",
    "chestxray14": "By patient: the official training and test lists.",
}

INTENDED_USE = (
    "Comparing methods, teaching, and as a start for fine-tuning on other images of the same kind, within the licences."
)

_WEIGHT_LICENSE = {"ham10000": NON_COMMERCIAL, "aptos2019": NON_COMMERCIAL}


@dataclass(frozen=True)
class WeightsEntry:
    """One set of weights, published or not.

    Attributes:
        architecture, dataset: together the name, "architecture.dataset".
        config: the fields of `DiffMICConfig` in which it differs from its architecture.
        description: one sentence.
        license: of the weights, an identifier of the Hub.
        data_license: of the images that they are trained on.
        files: file → content, of what ships or is published; empty while there are no weights.
        revision: commit of the Hub's repository that holds them; None while they are not published there.
        split: how training, validation and test images are kept apart.
        intended_use: what the weights are good for.
    """

    architecture: str
    dataset: str
    config: dict[str, Any] = field(hash=False)
    description: str
    license: str
    data_license: str
    files: dict[str, Digest] = field(default_factory=dict, hash=False)
    revision: str | None = None
    split: str = ""
    intended_use: str = ""

    @property
    def name(self) -> str:
        """The entry's name, "architecture.dataset"."""
        return f"{self.architecture}.{self.dataset}"

    @property
    def repository(self) -> str:
        """The Hub's repository of the weights; DIFFMICZOO_HUB_ORG names another organisation, such as a mirror's."""
        return f"{hub_organization()}/{self.name}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return tuple(self.config["class_names"])


#: Where the digests of files and what else is known of finished weights are written down when they are released.
INDEX = Path(__file__).parents[1] / "weights" / "index.json"


def _entry(architecture: str, dataset: str, **config: Any) -> WeightsEntry:
    what, data_license = _DATA[dataset]
    classes = _CLASSES[dataset]
    released = _INDEX.get(f"{architecture}.{dataset}", {})
    return WeightsEntry(
        architecture,
        dataset,
        {"num_classes": len(classes["class_names"]), **classes, **config},
        f"{architecture} for {what} ({dataset}).",
        _WEIGHT_LICENSE.get(dataset, "apache-2.0"),
        data_license,
        files={name: Digest(**content) for name, content in released.get("files", {}).items()},
        revision=released.get("revision"),
        split=_SPLIT[dataset],
        intended_use=INTENDED_USE,
    )


_INDEX: dict[str, Any] = json.loads(INDEX.read_text(encoding="utf-8"))

ENTRIES: dict[str, WeightsEntry] = {
    entry.name: entry
    for entry in (
        _entry("diffmicv2_nano", "ham10000", image_size=128),
        _entry("diffmicv2_nano", "aptos2019", image_size=192),
        _entry("diffmicv2_nano", "busi", image_size=192),
        _entry("diffmicv2_nano", "chestxray14"),
        _entry("diffmicv2_nano", "pmg2000"),
        _entry("diffmicv2_resnet18", "ham10000"),
        _entry("diffmicv2_resnet18", "aptos2019"),
        _entry("diffmicv2_resnet18", "pmg2000"),
        _entry("diffmicv2_densenet169", "chestxray14"),
    )
}

#: Data set → the weights that are recommended for it.
DATASET_NAMES = {
    f"diffmicv2_{dataset}": f"diffmicv2_nano.{dataset}"
    for dataset in ("ham10000", "aptos2019", "busi", "chestxray14", "pmg2000")
}
