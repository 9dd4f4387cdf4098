"""What names of models mean: the one place that takes "hf-hub:…" and "local-dir:…" apart."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from diffmiczoo.errors import InvalidValueError

HUB_PREFIX, LOCAL_PREFIX = "hf-hub:", "local-dir:"


@dataclass(frozen=True)
class ModelName:
    """A name, taken apart.

    Attributes:
        kind: "registered" (the zoo knows what it is, or nobody does), "hf-hub" or "local-dir".
        text: as it was given.
        repository: of kind "hf-hub", "organisation/name".
        revision: of kind "hf-hub", a commit, branch or tag; None stands for the main branch.
        path: of kind "local-dir", the directory.
    """

    kind: Literal["registered", "hf-hub", "local-dir"]
    text: str
    repository: str = ""
    revision: str | None = None
    path: Path = Path()

    def at(self, revision: str | None) -> ModelName:
        """Returns the same repository at a revision that is given besides the name; None leaves it as it is.

        Raises:
            ValueError: the name has a revision, and another one, or it is no repository.
        """
        if revision is None or revision == self.revision:
            return self
        if self.kind != "hf-hub":
            raise InvalidValueError(f"{self.text!r} is no repository; leave revision={revision!r} out")
        if self.revision is not None:
            raise InvalidValueError(f"{self.text!r} names a revision, and revision={revision!r} another one")
        return replace(self, revision=revision)


def parse_model_name(name: str) -> ModelName:
    """Takes a name apart: "hf-hub:ORGANISATION/REPOSITORY[@REVISION]", "local-dir:PATH", else a registered name.

    Raises:
        ValueError: it starts like one of the first two and is none, or with another source.
    """
    source, colon, rest = name.partition(":")
    if not colon:
        return ModelName("registered", name)
    if name.startswith(HUB_PREFIX):
        repository, _, revision = rest.partition("@")
        parts = repository.split("/")
        if len(parts) != 2 or not all(parts) or any(part.startswith((".", "-")) for part in parts):
            raise InvalidValueError(
                f"{name!r}: expected {HUB_PREFIX}ORGANISATION/REPOSITORY, optionally with @REVISION"
            )
        return ModelName("hf-hub", name, repository=repository, revision=revision or None)
    if name.startswith(LOCAL_PREFIX):
        return ModelName("local-dir", name, path=Path(rest).expanduser())
    near = difflib.get_close_matches(f"{source}:", (HUB_PREFIX, LOCAL_PREFIX), n=1)
    hint = f"; did you mean {near[0]}{rest}?" if near else ""
    raise InvalidValueError(
        f"{name!r}: models are {HUB_PREFIX}ORGANISATION/REPOSITORY, {LOCAL_PREFIX}PATH or a registered name{hint}"
    )


def parse_directory_or_repository(source: str | os.PathLike[str]) -> ModelName:
    """Takes apart what `from_pretrained` is given: a directory or a repository, with or without its prefix.

    Raises:
        ValueError: it is neither; a registered name is `create_model`'s business.
    """
    text = os.fspath(source)
    if os.path.isdir(text):
        return ModelName("local-dir", text, path=Path(text))
    if ":" not in text and text.count("/") == 1:
        return replace(parse_model_name(HUB_PREFIX + text), text=text)
    name = parse_model_name(text)
    if name.kind == "registered":
        raise InvalidValueError(
            f"{text!r} is neither a directory nor a repository (ORGANISATION/NAME); registered names are built by "
            f"diffmiczoo.create_model({text!r}, pretrained=True)"
        )
    return name


def hub_name(repository: str) -> str:
    """Returns what `create_model` takes to load a repository."""
    return HUB_PREFIX + repository


def local_name(directory: str | os.PathLike[str]) -> str:
    """Returns what `create_model` takes to load a directory."""
    return LOCAL_PREFIX + os.fspath(directory)
