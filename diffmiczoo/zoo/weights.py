"""The table of weights: what each entry `architecture.tag` was, or is to be, trained on, and where its files are."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from diffmiczoo.data.catalog import DATASETS, DatasetInfo
from diffmiczoo.hub.checksums import FileHash

#: Holds a directory for each entry whose weights ship with the package; inside of an archive where the package is.
WEIGHTS_DIRECTORY: Any = resources.files("diffmiczoo").joinpath("weights")

#: Hashes of the files, and commits on the Hub, of finished weights; `tools/release_weights.py` writes it.
INDEX: Any = WEIGHTS_DIRECTORY.joinpath("index.json")

INTENDED_USE = (
    "Comparing methods, teaching, and as a start for fine-tuning on other images of the same kind, within the licences."
)


def hub_organization() -> str:
    """Returns whose repositories hold the registered weights: DIFFMICZOO_HUB_ORG, "diffmiczoo" by default."""
    return os.environ.get("DIFFMICZOO_HUB_ORG", "diffmiczoo")


@dataclass(frozen=True)
class Weights:
    """One set of weights, published or not.

    Attributes:
        architecture: what it is built from.
        dataset: what it is trained on.
        overrides: fields of `DiffMICConfig` in which it differs from its architecture, besides those that its data set
            sets (`config`).
        files: file → content, of what ships or is published; empty while there are no weights.
        revision: commit of the Hub's repository that holds them; None while they are not published there.
    """

    architecture: str
    dataset: DatasetInfo
    overrides: dict[str, Any] = field(default_factory=dict, hash=False)
    files: dict[str, FileHash] = field(default_factory=dict, hash=False)
    revision: str | None = None

    @property
    def name(self) -> str:
        """The entry's name, "architecture.dataset"."""
        return f"{self.architecture}.{self.dataset.name}"

    @property
    def description(self) -> str:
        """One sentence."""
        return f"{self.architecture} for {self.dataset.title} ({self.dataset.name})."

    @property
    def config(self) -> dict[str, Any]:
        """The fields of `DiffMICConfig` in which it differs from its architecture."""
        return {
            "num_classes": len(self.dataset.class_names),
            "class_names": self.dataset.class_names,
            "task": self.dataset.task,
            "ordinal": self.dataset.ordinal,
            **self.overrides,
        }

    @property
    def repository(self) -> str:
        """The Hub's repository of the weights; DIFFMICZOO_HUB_ORG names another organisation, such as a mirror's."""
        return f"{hub_organization()}/{self.name}"

    @property
    def directory(self) -> Path | None:
        """The directory of the package that holds the weights, or None where they do not ship.

        Of a package that is imported from an archive it is a copy, which is removed when the process ends.
        """
        directory = WEIGHTS_DIRECTORY.joinpath(self.name)
        if not self.ships:
            return None
        return directory if isinstance(directory, Path) else _unpacked(self.name)

    @property
    def ships(self) -> bool:
        """Whether the weights come with the package."""
        return bool(WEIGHTS_DIRECTORY.joinpath(self.name, "model.safetensors").is_file())

    @property
    def exists(self) -> bool:
        """Whether the weights ship or are published."""
        return self.ships or self.revision is not None


_INDEX: dict[str, Any] = json.loads(INDEX.read_text(encoding="utf-8"))


@functools.cache
def _unpacked(name: str) -> Path:
    """Copies the weights of an entry out of the archive that the package lies in; they are mapped from a file."""
    target = Path(tempfile.mkdtemp(prefix="diffmiczoo-")) / name
    atexit.register(shutil.rmtree, target.parent, ignore_errors=True)
    target.mkdir()
    for entry in WEIGHTS_DIRECTORY.joinpath(name).iterdir():
        (target / entry.name).write_bytes(entry.read_bytes())
    return target


def _weights(architecture: str, dataset: str, **overrides: Any) -> Weights:
    released = _INDEX.get(f"{architecture}.{dataset}", {})
    files = {name: FileHash(**content) for name, content in released.get("files", {}).items()}
    return Weights(architecture, DATASETS[dataset], overrides, files, released.get("revision"))


WEIGHTS: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        _weights("diffmicv2_nano", "ham10000", image_size=128),
        _weights("diffmicv2_nano", "aptos2019", image_size=192),
        _weights("diffmicv2_nano", "busi", image_size=192),
        _weights("diffmicv2_nano", "chestxray14"),
        _weights("diffmicv2_nano", "pmg2000"),
        _weights("diffmicv2_small", "ham10000"),
        _weights("diffmicv2_small", "aptos2019"),
        _weights("diffmicv2_small", "busi"),
        _weights("diffmicv2_resnet18", "ham10000"),
        _weights("diffmicv2_resnet18", "aptos2019"),
        _weights("diffmicv2_resnet18", "pmg2000"),
        _weights("diffmicv2_densenet169", "chestxray14"),
    )
}

#: Short name of a data set → the weights that are recommended for it.
ALIASES = {f"diffmicv2_{name}": f"diffmicv2_nano.{name}" for name in DATASETS if f"diffmicv2_nano.{name}" in WEIGHTS}
