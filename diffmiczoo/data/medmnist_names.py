"""Names such as "medmnist:dermamnist@224", and what is known of the sets that they stand for.

Classes, tasks, numbers of images and licences are those that the package `medmnist` 3.0.2 publishes, and for
`dermamnist_corrected` and `dermamnist_extended` those of their authors' `medmnist_corrected`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from diffmiczoo.data.catalog import DATASETS
from diffmiczoo.errors import InvalidValueError, did_you_mean

PREFIX, CORRUPTED_PREFIX = "medmnist:", "medmnist-c:"

#: Sides of the pictures in pixels.
SIZES = (28, 64, 128, 224)

#: What people may write, who read of DermaMNIST-C and -E.
_OTHER_NAMES = {
    "dermamnist-c": ("dermamnist_corrected",),
    "dermamnist_c": ("dermamnist_corrected",),
    "dermamnist-e": ("dermamnist_extended",),
    "dermamnist_e": ("dermamnist_extended",),
}

_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)
_LESIONS = (
    "actinic keratoses and intraepithelial carcinoma",
    "basal cell carcinoma",
    "benign keratosis-like lesions",
    "dermatofibroma",
    "melanoma",
    "melanocytic nevi",
    "vascular lesions",
)
_NON_COMMERCIAL = "CC BY-NC 4.0"


@dataclass(frozen=True)
class MedMNISTSet:
    """One 2-D set of MedMNIST v2, or one that others made of it.

    Attributes:
        class_names: what the numbers 0, 1, … stand for.
        num_images: of the official train, val and test split.
        multilabel: an image may have several classes, or none.
        ordinal: the classes are grades, from the lowest to the highest.
        license: of the images.
        note: what to know of it, a sentence; "" for nothing.
        bare_28: the file of 28 pixels has no size in its name.
    """

    class_names: tuple[str, ...]
    num_images: tuple[int, int, int]
    multilabel: bool = False
    ordinal: bool = False
    license: str = "CC BY 4.0"
    note: str = ""
    bare_28: bool = True


MEDMNIST: dict[str, MedMNISTSet] = {
    "pathmnist": MedMNISTSet(
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        (89_996, 10_004, 7_180),
    ),
    "chestmnist": MedMNISTSet(
        (
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ),
        (78_468, 11_219, 22_433),
        multilabel=True,
    ),
    "dermamnist": MedMNISTSet(
        _LESIONS,
        (7_007, 1_003, 2_005),
        license=_NON_COMMERCIAL,
        note="641 lesions have images in both train and test, 332 in both train and val (Abhishek et al., Scientific "
        "Data 12, 196, 2025): figures on it are too good; medmnist:dermamnist_corrected is without",
    ),
    "octmnist": MedMNISTSet(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"), (97_477, 10_832, 1_000)
    ),
    "pneumoniamnist": MedMNISTSet(("normal", "pneumonia"), (4_708, 524, 624)),
    "retinamnist": MedMNISTSet(
        DATASETS["aptos2019"].class_names,
        (1_080, 120, 400),
        ordinal=True,
        note="MedMNIST calls its grades of diabetic retinopathy 0 to 4; they are named as those of aptos2019 and are "
        "in order: ordinal=True (--config ordinal=true) says so of a new model",
    ),
    "breastmnist": MedMNISTSet(("malignant", "normal, benign"), (546, 78, 156)),
    "bloodmnist": MedMNISTSet(
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        (11_959, 1_712, 3_421),
    ),
    "tissuemnist": MedMNISTSet(
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        (165_466, 23_640, 47_280),
    ),
    "organamnist": MedMNISTSet(_ORGANS, (34_561, 6_491, 17_778)),
    "organcmnist": MedMNISTSet(_ORGANS, (12_975, 2_392, 8_216)),
    "organsmnist": MedMNISTSet(_ORGANS, (13_932, 2_452, 8_827)),
    "dermamnist_corrected": MedMNISTSet(
        _LESIONS, (8_215, 573, 1_227), license=_NON_COMMERCIAL, note="DermaMNIST-C of Abhishek et al.", bare_28=False
    ),
    "dermamnist_extended": MedMNISTSet(
        _LESIONS, (10_015, 193, 1_511), license=_NON_COMMERCIAL, note="DermaMNIST-E of Abhishek et al.", bare_28=False
    ),
}


@dataclass(frozen=True)
class MedMNISTName:
    """A name, taken apart.

    Attributes:
        text: the name without the folder.
        flag: key of `MEDMNIST`.
        size: side of the pictures in pixels.
        folder: where the file is looked for.
        corrupted: the pictures are those of MedMNIST-C.
        corruption: the only corruption of MedMNIST-C; "" for all.
    """

    text: str
    flag: str
    size: int
    folder: Path
    corrupted: bool = False
    corruption: str = ""

    @property
    def known(self) -> MedMNISTSet:
        """What is known of the set."""
        return MEDMNIST[self.flag]

    @property
    def file(self) -> Path:
        """The file of a set that is not corrupted."""
        return self.folder / file_name(self.flag, self.size)


def file_name(flag: str, size: int) -> str:
    """Returns what the file of a set is called: "dermamnist.npz", "dermamnist_224.npz"."""
    bare = size == 28 and MEDMNIST[flag].bare_28
    return f"{flag}.npz" if bare else f"{flag}_{size}.npz"


def is_medmnist(data: object) -> bool:
    """Whether something is such a name: a text or path that begins with "medmnist:" or "medmnist-c:"."""
    return isinstance(data, str | os.PathLike) and os.fspath(data).startswith((PREFIX, CORRUPTED_PREFIX))


def parse_medmnist(name: str | os.PathLike[str]) -> MedMNISTName:
    """Takes a name apart: `medmnist:NAME[@SIZE][:FOLDER]` or `medmnist-c:NAME[/CORRUPTION]:FOLDER`.

    The folder of the first is by default that of the environment's MEDMNIST_ROOT, else `~/.medmnist`, where the package
    `medmnist` puts its files.

    Raises:
        ValueError: no set has this name, or it does not come in this size.
    """
    text = os.fspath(name)
    prefix, _, rest = text.partition(":")
    what, colon, folder = rest.partition(":")
    if prefix + ":" == CORRUPTED_PREFIX:
        return _corrupted(text, what, folder)
    flag, at, size = what.partition("@")
    _check_flag(text, flag, list(MEDMNIST))
    if at and size not in map(str, SIZES):
        raise InvalidValueError(f"{text!r}: size {size!r} must be one of {', '.join(map(str, SIZES))} pixels")
    place = folder if colon and folder else os.environ.get("MEDMNIST_ROOT") or "~/.medmnist"
    return MedMNISTName(f"{PREFIX}{what}", flag, int(size or 28), Path(place).expanduser())


def _corrupted(text: str, what: str, folder: str) -> MedMNISTName:
    flag, _, corruption = what.partition("/")
    _check_flag(text, flag, [name for name, known in MEDMNIST.items() if known.bare_28])
    if not folder:
        raise InvalidValueError(
            f"{text!r}: say which folder MedMNIST-C was unpacked into: {CORRUPTED_PREFIX}{what}:FOLDER, where "
            f"FOLDER/{flag}/CORRUPTION.npz are"
        )
    return MedMNISTName(f"{CORRUPTED_PREFIX}{what}", flag, 224, Path(folder).expanduser(), True, corruption)


def _check_flag(text: str, flag: str, known: list[str]) -> None:
    if flag in known:
        return
    if flag.endswith("3d"):
        raise InvalidValueError(f"{text!r}: {flag} holds volumes; only the 2-D sets of MedMNIST are read")
    near = did_you_mean([flag], known, _OTHER_NAMES)
    raise InvalidValueError(f"{text!r}: {flag!r} is no 2-D set of MedMNIST; these are {', '.join(known)}{near}")
