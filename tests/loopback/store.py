"""What the Hub on loopback holds: accounts, repositories with commits, and the errors that it answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

LFS_SUFFIXES = (".safetensors", ".bin")
LFS_SIZE = 1_000_000


@dataclass(frozen=True)
class Account:
    """Whom a token stands for; role "write" may change the repositories under its own name."""

    name: str
    role: str = "write"


@dataclass
class Response:
    """What is sent back, before a fault spoils it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class HubError(Exception):
    """An answer of 4xx with the headers from which `huggingface_hub` chooses its exception."""

    def __init__(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        named = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self.response = Response(status, {**named, "X-Error-Message": message, **(headers or {})}, body)


@dataclass(frozen=True)
class StoredFile:
    """One version of a file, in git or in LFS."""

    content: bytes
    lfs: bool

    @property
    def pointer(self) -> bytes:
        """What git holds: the content, or the LFS pointer to it."""
        if not self.lfs:
            return self.content
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {len(self.content)}\n".encode()

    @property
    def git_oid(self) -> str:
        """The git blob's SHA-1."""
        return hashlib.sha1(b"blob %d\0" % len(self.pointer) + self.pointer).hexdigest()

    @property
    def oid(self) -> str:
        """What the Hub gives as ETag: SHA-256 of an LFS file, the git blob's SHA-1 otherwise."""
        return hashlib.sha256(self.content).hexdigest() if self.lfs else self.git_oid

    def tree_entry(self, path: str) -> dict[str, Any]:
        """Its line in a listing of the tree."""
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.git_oid}
        lfs = {"oid": self.oid, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry | ({"lfs": lfs} if self.lfs else {})

    def sibling(self, path: str) -> dict[str, Any]:
        """Its line in a model's info."""
        entry = {"rfilename": path, "size": len(self.content), "blobId": self.git_oid}
        lfs = {"sha256": self.oid, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry | ({"lfs": lfs} if self.lfs else {})


def is_lfs(path: str, size: int) -> bool:
    """Tells whether the Hub keeps such a file in LFS."""
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE


class Repo:
    """A model repository: commits, branches, tags and who may read it."""

    def __init__(self, name: str, *, private: bool = False, gated: bool = False) -> None:
        self.name, self.private, self.gated = name, private, gated
        self.owner = name.split("/")[0]
        self.readers = {self.owner}
        self.commits: dict[str, dict[str, StoredFile]] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})

    def commit(self, files: Mapping[str, bytes | None], branch: str = "main") -> str:
        """Writes files, deletes those that are None, and returns the commit's 40 hex digits."""
        tree = dict(self.commits.get(self.branches.get(branch, ""), {}))
        for path, content in files.items():
            tree.pop(path, None)
            if content is not None:
                tree[path] = StoredFile(content, is_lfs(path, len(content)))
        listing = json.dumps([self.name, len(self.commits), *((path, tree[path].oid) for path in sorted(tree))])
        commit = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[commit] = tree
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str:
        """Returns the commit of a branch, a tag or a commit id."""
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        if commit not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def file(self, revision: str, path: str) -> tuple[str, StoredFile]:
        """Returns the commit and the file."""
        commit = self.resolve(revision)
        if path not in self.commits[commit]:
            raise HubError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        return commit, self.commits[commit][path]

    def listing(self, revision: str, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """Returns the lines of a folder's tree, "" for all: folders, then files."""
        tree = self.commits[self.resolve(revision)]
        folders = {str(parent) for path in tree for parent in PurePosixPath(path).parents[:-1]}
        entries = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
        entries += [file.tree_entry(path) for path, file in tree.items()]
        prefix = f"{folder}/" if folder else ""
        inside = [entry for entry in entries if entry["path"].startswith(prefix)]
        if not inside:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        return [entry for entry in inside if recursive or "/" not in entry["path"].removeprefix(prefix)]
