"""`save_pretrained`, `from_pretrained` and `push_to_hub` of a model, under the names that Hub users expect."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import torch

from diffmiczoo.data.catalog import class_labels
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.hub.card_facts import CARD_FILE, METRICS_FILE, IncompleteCardError, missing_facts
from diffmiczoo.hub.client import DownloadOptions, weights_directory_of
from diffmiczoo.hub.companions import StorableModel
from diffmiczoo.hub.described_state import DescribedState
from diffmiczoo.hub.names import parse_directory_or_repository
from diffmiczoo.hub.publish import COMMIT_MESSAGE, push_directory
from diffmiczoo.hub.serialization import load_model, read_config, same_tensors, save_directory

Self = TypeVar("Self", bound="PretrainedModel")


class PretrainedModel(DescribedState, StorableModel):
    """A model that goes to and comes from directories and the Hub; built from a `DiffMICConfig` alone."""

    @property
    def display_name(self) -> str:
        """The name of the weights, or else the directory or repository that they were loaded from, or else ""."""
        if self.recalibration is not None:
            return f"{self.recalibration.source}, recalibrated"
        return self.weights_name or ("" if self.loaded_from is None else _source_of(self.loaded_from))

    @property
    def class_labels(self) -> dict[str, str]:
        """Class name → what it means in words, where the classes are those of a data set that the package knows."""
        return class_labels(self.config.class_names)

    def save_pretrained(self, directory: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """Writes `model.safetensors` and `config.json` into a directory, made if need be.

        Args:
            directory: where to; `create_model("local-dir:<directory>", pretrained=True)` reads it.
            dtype: store floating-point tensors as this type, for example `torch.float16`.

        Raises:
            ValueError: a value does not fit `dtype`.
            OSError: the directory cannot be written.
        """
        save_directory(self, directory, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls: type[Self],
        source: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **config_overrides: Any,
    ) -> Self:
        """Loads a model from a directory or from the Hub; registered names are `diffmiczoo.create_model`'s business.

        Args:
            source: a directory, or a repository "organisation/name[@revision]".
            device: where the model lives; "auto" for a GPU of CUDA where there is one; the CPU by default.
            dtype: of its floating-point tensors; float32 by default.
            revision: commit, branch or tag of the repository; the main branch by default.
            token: for the Hub; HF_TOKEN by default.
            cache_dir: where downloads are stored; huggingface_hub's own cache by default.
            local_files_only: never ask the network.
            config_overrides: fields of `DiffMICConfig` that do not shape the weights, such as `sampling_steps`.

        Returns:
            The model in eval mode.

        Raises:
            FileNotFoundError: there are no weights in the directory.
            ValueError: `source` is neither, the files do not belong together, or an override does not fit them.
            HubError: the Hub does not give them, or their content is wrong.
        """
        options = DownloadOptions(token, cache_dir, local_files_only)
        directory = weights_directory_of(parse_directory_or_repository(source).at(revision), options)
        return load_model(directory, cls, config_overrides, device=device, dtype=dtype)

    def push_to_hub(
        self,
        repo_id: str,
        facts: str | os.PathLike[str] | None = None,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = COMMIT_MESSAGE,
    ) -> str:
        """Publishes the model with a card.

        Args:
            repo_id: "organisation/name"; made if need be.
            facts: directory with the `card.json` and `metrics.json` that a card needs (`diffmiczoo.hub.card_facts`). By
                default those beside the weights that the model was loaded from, if it is still as it was there.
            private: whether a repository that is made is private; by default as its organisation has it.
            token: of an account that may write it; HF_TOKEN by default.
            commit_message: of the commit.

        Returns:
            The commit's address.

        Raises:
            IncompleteCardError: licence, data licence, training data, split, metrics, limits or intended use are
                missing; the message lists them and says where to put them.
            ValueError: the model was never trained, or changed since it was loaded.
            HubError: the Hub refuses it or cannot be reached.
        """
        if not self.trained:
            raise InvalidValueError("the model was not trained; there is nothing to publish")
        if facts is None:
            directory = self._directory_with_facts()
            return push_directory(directory, repo_id, self, private=private, token=token, commit_message=commit_message)
        with tempfile.TemporaryDirectory() as temporary:
            shutil.copytree(facts, temporary, dirs_exist_ok=True)
            self.save_pretrained(temporary)
            return push_directory(temporary, repo_id, self, private=private, token=token, commit_message=commit_message)

    def _directory_with_facts(self) -> Path:
        """Returns the directory that the model was loaded from, which describes it as it is."""
        directory = self.loaded_from
        how = (
            f"write {CARD_FILE} and {METRICS_FILE} into a directory and pass it: push_to_hub(repo_id, facts=DIRECTORY)"
        )
        if directory is None or not directory.is_dir():
            where = "the model was not loaded from a directory" if directory is None else f"{directory} is gone"
            raise IncompleteCardError(f"{where}, so that nothing is known for its card; {how}", missing_facts(None))
        missing = missing_facts(directory)
        if missing:
            raise IncompleteCardError(f"{directory} says too little for a card; {how}, or complete it there", missing)
        if read_config(directory) != self.config or not same_tensors(self, directory):
            raise InvalidValueError(
                f"the model was changed since it was loaded from {directory}, so that the card there is not about it; "
                f"{how}"
            )
        return directory


def _source_of(directory: Path) -> str:
    """Returns what people call the place of weights: a cached repository by its name."""
    cached = next((part for part in directory.parts if part.startswith("models--")), None)
    return os.fspath(directory) if cached is None else "/".join(cached.split("--")[1:])
