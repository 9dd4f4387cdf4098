"""Weights from the Hugging Face Hub: downloaded, verified, and refused where anything is wrong."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from diffmiczoo.errors import InvalidValueError, MissingFileError
from diffmiczoo.hub.checksums import ChecksumError, FileHash, verify, verify_against_name
from diffmiczoo.hub.errors import HubError, Request, is_transient, translate_errors
from diffmiczoo.hub.names import LOCAL_PREFIX, ModelName

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

#: What a repository of weights has to hold; nothing else is ever fetched.
FILES = (CONFIG_FILE, WEIGHTS_FILE)

#: Seconds before the second and the third attempt; the client itself gives up at the first 5xx or reset of a transfer.
_PAUSES = (1.0, 3.0)


@dataclass(frozen=True)
class DownloadOptions:
    """How the Hub is asked; the environment (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN) fills what is None.

    Attributes:
        token: of an account that may read the repository.
        cache_dir: where downloads are stored; huggingface_hub's own cache by default.
        local_files_only: never ask the network.
    """

    token: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False

    def request(self, repository: str, filename: str, revision: str | None) -> Request:
        """Returns what is asked for, for messages."""
        cache_dir = None if self.cache_dir is None else Path(self.cache_dir)
        need = (
            f"; weights of diffmiczoo are {' and '.join(FILES)}, pickled ones are refused" if filename in FILES else ""
        )
        return Request(repository, filename, revision, cache_dir, self.local_files_only, need)


def weights_directory_of(name: ModelName, options: DownloadOptions) -> Path:
    """Returns a directory that holds weights: a local one as it is, a repository's files from the cache or the Hub.

    Raises:
        FileNotFoundError: a local directory does not exist.
        ValueError: the name is a registered one.
        HubError: as `fetch` raises it.
    """
    if name.kind == "hf-hub":
        return fetch(name.repository, name.revision, None, options)
    if name.kind != "local-dir":
        raise InvalidValueError(f"{name.text!r} is neither a directory nor a repository")
    if not name.path.is_dir():
        raise MissingFileError(f"{name.path} is not a directory; expected {LOCAL_PREFIX}PATH of saved weights")
    return name.path


def fetch(repository: str, revision: str | None, hashes: dict[str, FileHash] | None, options: DownloadOptions) -> Path:
    """Returns a directory with the verified files of a repository, from the cache or the Hub.

    A file whose content is wrong is moved aside and fetched once more. A file that was verified once is not read for
    this again while it stays the same.

    Args:
        repository: "organisation/name".
        revision: commit, branch or tag; the main branch by default.
        hashes: file → what it has to hold; without them the content is compared with the hash that the Hub names it
            by.
        options: how to ask.

    Raises:
        HubError: the repository, revision or a file is not there, may not be read or cannot be reached, the disk is
            full, or a file's content is wrong twice.
    """
    first = _verified(repository, FILES[0], revision, hashes, options)
    # Both files have to come from one commit, also when a branch moves in between.
    commit = first.parent.name
    for filename in FILES[1:]:
        _verified(repository, filename, commit, hashes, options)
    return first.parent


def fetch_file(repository: str, filename: str, revision: str | None, options: DownloadOptions) -> Path:
    """Returns one file of any repository from the cache or the Hub; raises `HubError` as `fetch` does."""
    with translate_errors(options.request(repository, filename, revision)):
        for pause in _PAUSES:
            try:
                return _hf_download(repository, filename, revision, options)
            except Exception as error:
                if not is_transient(error):
                    raise
                time.sleep(pause)
        return _hf_download(repository, filename, revision, options)


def _verified(
    repository: str,
    filename: str,
    revision: str | None,
    hashes: dict[str, FileHash] | None,
    options: DownloadOptions,
) -> Path:
    path = fetch_file(repository, filename, revision, options)
    expected = None if hashes is None else hashes[filename]
    try:
        _verify(path, expected)
        return path
    except ChecksumError as error:
        aside = _move_aside(path)
        warnings.warn(
            f"{repository}: {error}. It was moved to {aside} and is fetched once more", UserWarning, stacklevel=2
        )
    path = fetch_file(repository, filename, revision, options)
    try:
        _verify(path, expected)
        return path
    except ChecksumError as error:
        _move_aside(path)
        raise HubError(
            f"{repository}: {error}, also after it was fetched again. The repository, or something between it and this "
            "machine, does not serve the file that was published; it was not used"
        ) from error


def _verify(path: Path, expected: FileHash | None) -> None:
    if expected is None:
        verify_against_name(path)
    else:
        verify(path.resolve(), expected)


def _move_aside(path: Path) -> Path:
    """Renames a wrong file, so that the cache does not give it again."""
    blob = path.resolve()
    aside = blob.with_name(blob.name + ".wrong")
    try:
        os.replace(blob, aside)
    except OSError as error:
        raise HubError(f"{path} is wrong and cannot be moved aside ({error}); remove it by hand") from error
    return aside


def _hf_download(repository: str, filename: str, revision: str | None, options: DownloadOptions) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(
        hf_hub_download(
            repository,
            filename,
            revision=revision,
            token=options.token,
            cache_dir=None if options.cache_dir is None else Path(options.cache_dir),
            local_files_only=options.local_files_only,
            library_name="diffmiczoo",
        )
    )
