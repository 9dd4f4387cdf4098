"""Weights to the Hugging Face Hub, with the card that they must not go without."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.hub.card import render_card, render_license
from diffmiczoo.hub.card_facts import CARD_FILE, METRICS_FILE, read_facts
from diffmiczoo.hub.checklist import CHECKLIST_FILE, render_checklist
from diffmiczoo.hub.client import FILES
from diffmiczoo.hub.companions import StorableModel
from diffmiczoo.hub.errors import Request, translate_errors
from diffmiczoo.hub.licenses import LICENSE_FILE
from diffmiczoo.hub.names import hub_name, parse_model_name
from diffmiczoo.hub.recalibrated import with_recalibration

COMMIT_MESSAGE = "Weights by diffmiczoo"


def push_directory(
    directory: str | os.PathLike[str],
    repository: str,
    model: StorableModel,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = COMMIT_MESSAGE,
    beside: Mapping[str, str] | None = None,
) -> str:
    """Publishes a directory of weights with its card in one commit.

    Args:
        directory: holds what `save_pretrained` writes, `card.json` and `metrics.json`
            (`diffmiczoo.hub.card_facts.read_facts`), and optionally `recipe.json`, `LICENSE` and PNG pictures. Card,
            checklists and, where there is none, `LICENSE` are written anew.
        repository: "organisation/name"; made if need be.
        model: what the directory's weights give when they are loaded; for the card.
        private: whether a repository that is made is private; by default as its organisation has it.
        token: of an account that may write it; HF_TOKEN by default.
        commit_message: of the commit.
        beside: file → text of what else goes into the repository, such as `handler.py`.

    Returns:
        The commit's address.

    Raises:
        IncompleteCardError: licence, data licence, training data, split, metrics, limits or intended use are missing.
        ValueError: `repository` is not of this form, or the model was never trained.
        HubError: the Hub refuses it or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    load_as = hub_name(repository)
    own_name = parse_model_name(load_as).repository.split("/")[1]
    directory = Path(directory)
    if not model.trained:
        raise InvalidValueError("the model was not trained; there is nothing to publish")
    facts = read_facts(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = model.weights_name or own_name
    card = render_card(name, model.config, parameters, facts, load_as=load_as)
    if model.recalibration is not None:
        card = with_recalibration(card, model.recalibration)
    published = [*FILES, CARD_FILE, METRICS_FILE, *facts.pictures]
    operations = [CommitOperationAdd(file, str(directory / file)) for file in published]
    written = {**(beside or {}), "README.md": card, CHECKLIST_FILE: render_checklist(name, model.config, facts)}
    if (directory / LICENSE_FILE).is_file():
        operations.append(CommitOperationAdd(LICENSE_FILE, str(directory / LICENSE_FILE)))
    else:
        written[LICENSE_FILE] = render_license(name, model.config, facts)
    operations += [CommitOperationAdd(file, text.encode()) for file, text in written.items()]
    api = HfApi(token=token, library_name="diffmiczoo")
    with translate_errors(Request(repository, "the upload")):
        api.create_repo(repository, private=private, exist_ok=True)
        info: Any = api.create_commit(repository, operations, commit_message=commit_message)
    return str(info.commit_url)


def push_space(
    repository: str, files: Mapping[str, str], *, private: bool | None = None, token: str | None = None
) -> str:
    """Publishes a page as a Space of the Hub, in one commit.

    Args:
        repository: "organisation/name" of the Space; made if need be.
        files: file → text.
        private: whether a Space that is made is private; by default as its organisation has it.
        token: of an account that may write it; HF_TOKEN by default.

    Returns:
        The Space's address.

    Raises:
        ValueError: `repository` is not of this form.
        HubError: the Hub refuses it or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    parse_model_name(hub_name(repository))
    api = HfApi(token=token, library_name="diffmiczoo")
    operations = [CommitOperationAdd(file, text.encode()) for file, text in files.items()]
    with translate_errors(Request(repository, "the upload")):
        api.create_repo(repository, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        api.create_commit(repository, operations, repo_type="space", commit_message="Page by diffmiczoo")
    return f"{api.endpoint}/spaces/{repository}"
