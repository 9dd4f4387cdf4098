"""Weights from and to the Hugging Face Hub: downloaded, verified, and refused where anything is wrong."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmiczoo.hub.checksums import Digest, WrongContentError, verify, verify_against_name

#: What a repository of weights has to hold; nothing else is ever fetched.
FILES = ("config.json", "model.safetensors")

HUB_PREFIX = "hf-hub:"


class HubError(OSError):
    """Weights could not be had from the Hub, or not be published there."""


@dataclass(frozen=True)
class Access:
    """How the Hub is asked; the environment (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN) fills what is None.

    Attributes:
        token: of an account that may read the repository.
        cache_dir: where downloads are kept; huggingface_hub's own cache by default.
        local_files_only: never ask the network.
    """

    token: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False


def hub_organization() -> str:
    """Returns whose repositories hold the registered weights: DIFFMICZOO_HUB_ORG, "diffmiczoo" by default."""
    return os.environ.get("DIFFMICZOO_HUB_ORG", "diffmiczoo")


def parse_hub_name(name: str) -> tuple[str, str | None]:
    """Returns repository and revision of "hf-hub:org/repo[@revision]".

    Raises:
        ValueError: it is not of this form.
    """
    repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    parts = repository.split("/")
    if len(parts) != 2 or not all(parts) or any(part.startswith((".", "-")) for part in parts):
        raise ValueError(f"{name!r}: expected {HUB_PREFIX}ORGANISATION/REPOSITORY, optionally with @REVISION")
    return repository, revision or None


def fetch(repository: str, revision: str | None, digests: dict[str, Digest] | None, access: Access) -> Path:
    """Returns a directory with the verified files of a repository, from the cache or the Hub.

    A file whose content is wrong is moved aside and fetched once more. A file that was verified once is not read for
    this again while it stays the same.

    Args:
        repository: "organisation/name".
        revision: commit, branch or tag; the main branch by default.
        digests: file → what it has to hold; without them the content is compared with the hash that the Hub names it
            by.
        access: how to ask.

    Raises:
        HubError: the repository, revision or a file is not there, may not be read or cannot be reached, the disk is
            full, or a file's content is wrong twice.
    """
    first = _verified(repository, FILES[0], revision, digests, access)
    # Both files have to come from one commit, also when a branch moves in between.
    commit = first.parent.name
    for filename in FILES[1:]:
        _verified(repository, filename, commit, digests, access)
    return first.parent


def fetch_file(repository: str, filename: str, revision: str | None, access: Access) -> Path:
    """Returns one file of any repository from the cache or the Hub; raises `HubError` as `fetch` does."""
    return _download(repository, filename, revision, access)


def _verified(
    repository: str, filename: str, revision: str | None, digests: dict[str, Digest] | None, access: Access
) -> Path:
    path = _download(repository, filename, revision, access)
    try:
        _verify(path, filename, digests)
    except WrongContentError as error:
        aside = _move_aside(path)
        warnings.warn(
            f"{repository}: {error}. It was moved to {aside} and is fetched once more", UserWarning, stacklevel=2
        )
        path = _download(repository, filename, revision, access)
        _verify_or_refuse(repository, path, filename, digests)
    return path


def _verify(path: Path, filename: str, digests: dict[str, Digest] | None) -> None:
    if digests is None:
        verify_against_name(path)
    else:
        verify(path.resolve(), digests[filename])


def _verify_or_refuse(repository: str, path: Path, filename: str, digests: dict[str, Digest] | None) -> None:
    try:
        _verify(path, filename, digests)
    except WrongContentError as error:
        _move_aside(path)
        raise HubError(
            f"{repository}: {error}, also after it was fetched again. The repository, or something between it and this "
            "machine, does not serve the file that was published; it was not used"
        ) from error


def _move_aside(path: Path) -> Path:
    """Renames a wrong file, so that the cache does not answer with it again."""
    blob = path.resolve()
    aside = blob.with_name(blob.name + ".wrong")
    try:
        os.replace(blob, aside)
    except OSError as error:
        raise HubError(f"{path} is wrong and cannot be moved aside ({error}); remove it by hand") from error
    return aside


def _download(repository: str, filename: str, revision: str | None, access: Access) -> Path:
    with _clear_errors(repository, filename, revision, access):
        for pause in (1.0, 3.0):
            try:
                return _asked(repository, filename, revision, access)
            except Exception as error:
                # The client itself gives up at the first 5xx answer or reset of a transfer.
                if not _is_transient(error):
                    raise
                time.sleep(pause)
        return _asked(repository, filename, revision, access)


def _asked(repository: str, filename: str, revision: str | None, access: Access) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(
        hf_hub_download(
            repository,
            filename,
            revision=revision,
            token=access.token,
            cache_dir=None if access.cache_dir is None else Path(access.cache_dir),
            local_files_only=access.local_files_only,
            library_name="diffmiczoo",
        )
    )


def _transport_error() -> type[Exception]:
    """Returns the base of all that the client's HTTP library raises; which library that is differs by version."""
    from huggingface_hub.errors import HfHubHTTPError

    foreign = [base for base in HfHubHTTPError.__mro__[1:] if base.__module__ != "builtins"]
    return foreign[-1]


def _is_transient(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return getattr(error.response, "status_code", 0) >= 500
    return isinstance(error, _transport_error())


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextmanager
def _clear_errors(repository: str, what: str, revision: str | None, access: Access) -> Iterator[None]:
    """Turns every way in which the Hub can fail into one `HubError` that tells what to do."""
    from huggingface_hub import constants, errors

    where = f"{repository}{f'@{revision}' if revision else ''} at {constants.ENDPOINT}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(f"{where} is gated: accept its terms on its page, then pass token= or set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(f"{where} does not exist, or is private: pass token= or set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{where}: there is no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        offline = access.local_files_only or constants.HF_HUB_OFFLINE
        reason = (
            "the network was not asked"
            if offline
            else f"the Hub does not answer as one ({_first_line(error.__cause__ or error)})"
        )
        raise HubError(
            f"{what} of {where} is not in the cache {access.cache_dir or constants.HF_HUB_CACHE}, and {reason}. Copy a "
            "directory of the weights here and load it with local-dir:PATH, or connect once"
        ) from error
    except errors.EntryNotFoundError as error:
        raise HubError(
            f"{where} holds no {what}"
            + (f"; weights of diffmiczoo are {' and '.join(FILES)}, pickled ones are refused" if what in FILES else "")
        ) from error
    except errors.HFValidationError as error:
        raise HubError(f"{where}: {error}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        remedy = "check the token" if status in (401, 403) else "try again later"
        raise HubError(f"{where} answered {status} for {what} ({_first_line(error)}); {remedy}") from error
    except _transport_error() as error:
        raise HubError(f"{where} cannot be reached for {what}: {_first_line(error)}") from error
    except OSError as error:
        raise HubError(f"{what} of {where} could not be kept in the cache: {error}") from error
    except RuntimeError as error:
        raise HubError(f"{where}: {what} failed: {error.__cause__ or error}") from error


# ---------------------------------------------------------------------- back to the Hub


def push_directory(
    directory: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Weights by diffmiczoo",
) -> str:
    """Publishes a directory of weights with its card in one commit.

    Args:
        directory: holds what `save_pretrained` writes, `card.json` and `metrics.json`
            (`diffmiczoo.hub.card.read_facts`), and optionally `recipe.json` and PNG pictures.
        repository: "organisation/name"; made if need be.
        private: make it private.
        token: of an account that may write it; HF_TOKEN by default.
        commit_message: of the commit.

    Returns:
        The commit's address.

    Raises:
        IncompleteCardError: licence, data licence, training data, split, metrics, limits or intended use are missing.
        ValueError: the weights do not load, or were never trained.
        HubError: the Hub refuses it or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    from diffmiczoo.hub.card import read_facts, render_card
    from diffmiczoo.hub.serialization import load_model

    directory = Path(directory)
    model = load_model(directory)
    if not model.trained:
        raise ValueError(f"{directory}: the model was not trained; there is nothing to publish")
    facts = read_facts(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = model.weights_name or parse_hub_name(repository)[0].split("/")[1]
    card = render_card(name, model.config, parameters, facts, load_as=HUB_PREFIX + repository)
    published = [*FILES, "card.json", "metrics.json", *facts.pictures]
    operations = [CommitOperationAdd(file, str(directory / file)) for file in published]
    operations.append(CommitOperationAdd("README.md", card.encode()))
    api = HfApi(token=token, library_name="diffmiczoo")
    with _clear_errors(repository, "the upload", None, Access(token)):
        api.create_repo(repository, private=private, exist_ok=True)
        info: Any = api.create_commit(repository, operations, commit_message=commit_message)
    return str(info.commit_url)
