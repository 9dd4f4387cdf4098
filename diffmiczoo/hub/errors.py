"""`HubError`, and how everything that can go wrong between here and the Hub becomes one, with what to do about it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffmiczoo.errors import DiffMICError

#: Libraries that huggingface_hub 2, 1 and 0 speak HTTP with → the base of what they raise where a transfer fails.
_HTTP_LIBRARIES = {"httpx2": "HTTPError", "httpx": "HTTPError", "requests": "RequestException"}


class HubError(DiffMICError, OSError):
    """Weights could not be had from the Hub, or not be published there."""


@dataclass(frozen=True)
class Request:
    """What the Hub is asked for, for messages.

    Attributes:
        repository: "organisation/name".
        what: the file, or another word for it.
        revision: commit, branch or tag; None for the main branch.
        cache_dir: where downloads are stored; None for huggingface_hub's own cache.
        local_files_only: whether only the cache is looked at.
        if_missing: what to say besides where there is no such file.
    """

    repository: str
    what: str
    revision: str | None = None
    cache_dir: Path | None = None
    local_files_only: bool = False
    if_missing: str = ""


@contextmanager
def translate_errors(request: Request) -> Iterator[None]:
    """Turns every way in which the Hub can fail into one `HubError` that tells what to do."""
    try:
        yield
    except Exception as error:
        message = _message(error, request)
        if message is None:
            raise
        raise HubError(message) from error


def is_transient(error: Exception) -> bool:
    """Returns whether the same request may succeed a moment later."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    # Before huggingface_hub 1.0 the error for a file that is not in the cache is one of its HTTP library.
    if isinstance(error, LocalEntryNotFoundError) or not isinstance(error, _transport_errors()):
        return False
    status = _status(error)
    return status is None or status == 429 or status >= 500


def _status(error: Exception) -> int | None:
    """Returns the HTTP status that an error of huggingface_hub or its HTTP library is about; None without an answer."""
    # Not `if response`: an answer of requests is false where it is an error.
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def _transport_errors() -> tuple[type[Exception], ...]:
    installed = [(name, base) for name, base in _HTTP_LIBRARIES.items() if importlib.util.find_spec(name)]
    return tuple(getattr(importlib.import_module(name), base) for name, base in installed)


def _message(error: Exception, request: Request) -> str | None:
    """Returns what happened and what to do; None where it is nothing that a Hub can do wrong."""
    from huggingface_hub import constants, errors

    what = request.what
    at = f"@{request.revision}" if request.revision else ""
    where = f"{request.repository}{at} at {constants.ENDPOINT}"
    # Subclasses before their bases: most are HfHubHTTPError, which is an OSError in some versions.
    if isinstance(error, errors.GatedRepoError):
        return f"{where} is gated: accept its terms on its page, then pass token= or set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{where} does not exist, or is private: pass token= or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where}: there is no such revision"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _not_cached(error, request, where)
    if isinstance(error, errors.EntryNotFoundError):
        return f"{where} holds no {what}{request.if_missing}"
    if isinstance(error, errors.HFValidationError):
        return f"{where}: {error}"
    if isinstance(error, _transport_errors()):
        status = _status(error)
        if status is None:
            return f"{where} cannot be reached for {what}: {_first_line(error)}"
        remedy = "check the token" if status in (401, 403) else "try again later"
        return f"{where} answered {status} for {what} ({_first_line(error)}); {remedy}"
    if isinstance(error, OSError):
        return f"{what} of {where} could not be stored in the cache: {error}"
    if isinstance(error, RecursionError):
        # Before 1.0 huggingface_hub follows a redirect by calling itself.
        return f"{where} cannot be reached for {what}: it redirects without end"
    if isinstance(error, RuntimeError):
        return f"{where}: {what} failed: {error.__cause__ or error}"
    return None


def _not_cached(error: Exception, request: Request, where: str) -> str:
    from huggingface_hub import constants

    if request.local_files_only or constants.HF_HUB_OFFLINE:
        reason = "the network was not asked"
    else:
        reason = f"the Hub does not answer as one ({_first_line(error.__cause__ or error)})"
    return (
        f"{request.what} of {where} is not in the cache {request.cache_dir or constants.HF_HUB_CACHE}, and {reason}. "
        "Copy a directory of the weights here and load it with local-dir:PATH, or connect once"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
