"""`save_pretrained`, `from_pretrained` and `push_to_hub` of a model, under the names that Hub users expect."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from diffmiczoo.model import DiffMICv2


class PretrainedModel:
    """A model that goes to and comes from directories and the Hub."""

    def save_pretrained(self, directory: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """Writes `model.safetensors` and `config.json` into a directory, made if need be.

        Args:
            directory: where to; `create_model("local-dir:<directory>", pretrained=True)` reads it.
            dtype: store floating-point tensors as this type, for example `torch.float16`.
        """
        from diffmiczoo.hub.serialization import save_directory

        save_directory(cast("DiffMICv2", self), directory, dtype=dtype)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **options: Any) -> DiffMICv2:
        """Loads a model from a directory, the Hub ("organisation/repository[@revision]") or by a registered name.

        Args:
            source: where the weights are.
            options: of `create_model`: device, dtype, revision, token, cache_dir, local_files_only, …

        Raises:
            FileNotFoundError: there are no weights there.
            ValueError: the files do not belong together.
            HubError: the Hub does not give them, or their content is wrong.
        """
        from diffmiczoo.hub.client import HUB_PREFIX
        from diffmiczoo.zoo.registry import create_model

        name = os.fspath(source)
        if os.path.isdir(name):
            name = f"local-dir:{name}"
        elif name.count("/") == 1 and ":" not in name:
            name = HUB_PREFIX + name
        return create_model(name, pretrained=True, **options)

    def push_to_hub(
        self, repo_id: str, facts: str | os.PathLike[str], *, private: bool = False, token: str | None = None
    ) -> str:
        """Publishes the model with a card; see `diffmiczoo.hub.client.push_directory`.

        Args:
            repo_id: "organisation/name"; made if need be.
            facts: directory with the `card.json` and `metrics.json` that a card needs.
            private: make it private.
            token: of an account that may write it; HF_TOKEN by default.

        Returns:
            The commit's address.

        Raises:
            IncompleteCardError: licence, data licence, training data, split, metrics, limits or intended use miss.
            ValueError: the model was never trained.
            HubError: the Hub refuses it or cannot be reached.
        """
        import shutil
        import tempfile

        from diffmiczoo.hub.client import push_directory

        with tempfile.TemporaryDirectory() as directory:
            shutil.copytree(facts, directory, dirs_exist_ok=True)
            self.save_pretrained(directory)
            return push_directory(directory, repo_id, private=private, token=token)
