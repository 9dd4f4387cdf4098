"""The table of weights: what each entry `architecture.tag` was, or is to be, trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Weights from images that may not be used commercially.
NON_COMMERCIAL = "CC BY-NC 4.0"

_CLASSES: dict[str, dict[str, Any]] = {
    "ham10000": {"class_names": ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")},
    "aptos2019": {"class_names": ("no_dr", "mild", "moderate", "severe", "proliferative")},
    "busi": {"class_names": ("benign", "malignant", "normal")},
    "pmg2000": {"class_names": ("grade_0", "grade_1", "grade_2", "grade_3")},
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

_WEIGHT_LICENSE = {"ham10000": NON_COMMERCIAL, "aptos2019": NON_COMMERCIAL}


@dataclass(frozen=True)
class WeightsEntry:
    """One set of weights, published or not.

    Attributes:
        architecture, dataset: together the name, "architecture.dataset".
        config: the fields of `DiffMICConfig` in which it differs from its architecture.
        description: one sentence.
        license: of the weights.
        data_license: of the images that they are trained on.
    """

    architecture: str
    dataset: str
    config: dict[str, Any] = field(hash=False)
    description: str
    license: str
    data_license: str

    @property
    def name(self) -> str:
        """The entry's name, "architecture.dataset"."""
        return f"{self.architecture}.{self.dataset}"


def _entry(architecture: str, dataset: str, **config: Any) -> WeightsEntry:
    what, data_license = _DATA[dataset]
    classes = _CLASSES[dataset]
    return WeightsEntry(
        architecture,
        dataset,
        {"num_classes": len(classes["class_names"]), **classes, **config},
        f"{architecture} for {what} ({dataset}).",
        _WEIGHT_LICENSE.get(dataset, "Apache-2.0"),
        data_license,
    )


ENTRIES: dict[str, WeightsEntry] = {
    entry.name: entry
    for entry in (
        _entry("diffmicv2_nano", "ham10000", image_size=128),
        _entry("diffmicv2_nano", "aptos2019"),
        _entry("diffmicv2_nano", "busi"),
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
