"""A Hugging Face Hub on loopback, in memory: the endpoints that `huggingface_hub` uses, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from loopback.faults import NO_FAULT, Fault, Request, apply_range
from loopback.store import Account, HubError, Repo, Response, StoredFile, is_lfs
from loopback.transport import Handler, Listener

Endpoint = Callable[..., Response]
ROUTES: list[tuple[str, re.Pattern[str], Endpoint]] = []
REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"


def route(method: str, pattern: str) -> Callable[[Endpoint], Endpoint]:
    """Registers a method of `HubServer` for a method and a path, percent-encoded as it arrives."""

    def register(endpoint: Endpoint) -> Endpoint:
        ROUTES.append((method, re.compile(pattern), endpoint))
        return endpoint

    return register


def as_json(value: Any, status: int = 200) -> Response:
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


class HubServer:
    """The Hub at `endpoint`, and at another origin the storage that large files are redirected to.

    Attributes:
        accounts: token → account.
        repos: name → repository.
        objects: SHA-256 → content of the LFS files.
        faults: what goes wrong; the first that matches a request and has `times` left is used.
        log: requests in the order of their arrival.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        handler = type("Handler", (Handler,), {"hub": self})
        self._listeners = [Listener(("127.0.0.1", 0), handler) for _ in range(2)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{each.server_port}" for each in self._listeners)

    def __enter__(self) -> HubServer:
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuses connections from now on."""
        self._stopped.set()
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def create_repo(self, name: str, files: Mapping[str, bytes], *, private: bool = False, gated: bool = False) -> Repo:
        """Adds a repository with one commit of these files."""
        self.repos[name] = Repo(name, private=private, gated=gated)
        self.repos[name].commit(files)
        return self.repos[name]

    def requests(self, method: str, path: str = "") -> list[Request]:
        """Returns what the log holds of one method and of paths that contain `path`."""
        return [request for request in self.log if request.method == method and path in request.path]

    def answers(self) -> list[tuple[str, int]]:
        """Returns method and status of what the log holds."""
        return [(request.method, request.status) for request in self.log]

    # ------------------------------------------------------------------ from a request to its answer

    def answer(self, request: Request) -> tuple[Response, Fault]:
        """Logs a request, serves it and spoils the answer if a fault matches."""
        with self._lock:
            self.log.append(request)
            fault = self._fault_for(request)
        self._stopped.wait(fault.delay)
        with self._lock:
            response = Response(fault.status, dict(fault.headers)) if fault.status else self._served(request)
            response.body = fault.change(response.body)
            for name in fault.without:
                response.headers.pop(name, None)
            if not fault.ignore_range:
                apply_range(response, request.headers.get("Range"))
            request.status = response.status
        return response, fault

    def _fault_for(self, request: Request) -> Fault:
        for fault in self.faults:
            if fault.times > 0 and fault.method == request.method and fault.path in request.path:
                fault.times -= 1
                return fault
        return NO_FAULT

    def _served(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            for wanted, pattern, endpoint in ROUTES:
                match = pattern.fullmatch(request.path)
                if match and wanted == method:
                    groups = {name: unquote(value or "") for name, value in match.groupdict().items()}
                    return endpoint(self, request, **groups)
            raise HubError(404, None, f"{request.method} {request.path} is not served here")
        except HubError as error:
            return error.response

    def _account(self, request: Request) -> Account | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.accounts:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return self.accounts.get(token)

    def _readable(self, request: Request, name: str) -> Repo:
        account, repo = self._account(request), self.repos.get(name)
        if repo is None or (repo.private and (account is None or account.name not in repo.readers)):
            raise HubError(404 if account else 401, "RepoNotFound", "Repository not found")
        return repo

    def _writable(self, request: Request, name: str) -> Repo:
        repo = self._readable(request, name)
        self._check_write(request, repo.owner)
        return repo

    def _check_write(self, request: Request, owner: str) -> None:
        account = self._account(request)
        if account is None:
            raise HubError(401, None, "Invalid username or password.")
        if account != Account(owner, "write"):
            raise HubError(403, None, f"You don't have the rights to write under the namespace {owner!r}")

    def _check_gate(self, request: Request, repo: Repo) -> None:
        account = self._account(request)
        if repo.gated and (account is None or account.name not in repo.readers):
            raise HubError(403 if account else 401, "GatedRepo", f"Access to model {repo.name} is restricted")

    # ------------------------------------------------------------------ accounts and repositories

    @route("GET", "/api/whoami-v2")
    def _whoami(self, request: Request) -> Response:
        account = self._account(request)
        if account is None:
            raise HubError(401, None, "Invalid username or password.")
        token = {"accessToken": {"displayName": "test", "role": account.role}}
        return as_json({"type": "user", "name": account.name, "orgs": [], "auth": token})

    @route("POST", "/api/repos/create")
    def _create(self, request: Request) -> Response:
        wanted = json.loads(request.body)
        self._check_write(request, wanted["organization"])
        name = f"{wanted['organization']}/{wanted['name']}"
        answer = {"url": f"{self.endpoint}/{name}", "name": name}
        if name in self.repos:
            return as_json(answer | {"error": "You already created this model repo"}, 409)
        # "private" is what clients below 1.0 say.
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.repos[name] = Repo(name, private=private)
        return as_json(answer)

    @route("DELETE", "/api/repos/delete")
    def _delete(self, request: Request) -> Response:
        wanted = json.loads(request.body)
        del self.repos[self._writable(request, f"{wanted['organization']}/{wanted['name']}").name]
        return as_json({})

    @route("POST", "/api/validate-yaml")
    def _validate_card(self, request: Request) -> Response:
        return as_json({"errors": [], "warnings": []})

    @route("GET", f"/api/models/{REPO}(/revision/{REVISION})?")
    def _model_info(self, request: Request, repo: str, revision: str) -> Response:
        found = self._readable(request, repo)
        commit = found.resolve(revision or "main")
        siblings = [file.sibling(path) for path, file in found.commits[commit].items()]
        if "blobs" not in request.query:
            siblings = [{"rfilename": sibling["rfilename"]} for sibling in siblings]
        info = {"id": repo, "sha": commit, "siblings": siblings, "tags": []}
        return as_json(info | {"private": found.private, "gated": "auto" if found.gated else False})

    @route("GET", f"/api/models/{REPO}/refs")
    def _refs(self, request: Request, repo: str) -> Response:
        found = self._readable(request, repo)
        kinds = {"branches": ("heads", found.branches), "tags": ("tags", found.tags)}
        refs = {
            kind: [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": at} for name, at in named.items()]
            for kind, (folder, named) in kinds.items()
        }
        return as_json(refs | {"converts": []})

    @route("POST", f"/api/models/{REPO}/branch/(?P<branch>[^/]+)")
    def _create_branch(self, request: Request, repo: str, branch: str) -> Response:
        found = self._writable(request, repo)
        if branch in found.branches:
            raise HubError(409, None, f"Reference already exists: {branch}")
        found.branches[branch] = found.resolve(json.loads(request.body).get("startingPoint", "main"))
        return as_json({}, 201)

    @route("POST", f"/api/models/{REPO}/tag/{REVISION}")
    def _create_tag(self, request: Request, repo: str, revision: str) -> Response:
        found, tag = self._writable(request, repo), json.loads(request.body)["tag"]
        if tag in found.tags:
            raise HubError(409, None, f"Tag reference exists already: {tag}")
        found.tags[tag] = found.resolve(revision)
        return as_json({}, 201)

    @route("GET", f"/api/models/{REPO}/tree/{REVISION}(/(?P<path>.+))?")
    def _tree(self, request: Request, repo: str, revision: str, path: str) -> Response:
        recursive = request.query.get("recursive") == ["true"]
        return as_json(self._readable(request, repo).listing(revision, path, recursive))

    @route("POST", f"/api/models/{REPO}/paths-info/{REVISION}")
    def _paths_info(self, request: Request, repo: str, revision: str) -> Response:
        found = self._readable(request, repo)
        tree = found.commits[found.resolve(revision)]
        paths = parse_qs(request.body.decode())["paths"]
        return as_json([tree[path].tree_entry(path) for path in paths if path in tree])

    # ------------------------------------------------------------------ downloads

    @route("GET", f"/{REPO}/resolve/{REVISION}/(?P<path>.+)")
    def _resolve(self, request: Request, repo: str, revision: str, path: str) -> Response:
        found = self._readable(request, repo)
        self._check_gate(request, found)
        commit, file = found.file(revision, path)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"'}
        if not file.lfs:
            return Response(307, headers | {"Location": quote(f"/api/resolve-cache/models/{repo}/{commit}/{path}")})
        # A file that a test committed itself was never uploaded.
        self.objects[file.oid] = file.content
        linked = {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(len(file.content))}
        return Response(302, headers | linked | {"Location": f"{self.storage}/objects/{file.oid}/{quote(path)}"})

    @route("GET", f"/api/resolve-cache/models/{REPO}/{REVISION}/(?P<path>.+)")
    def _resolved(self, request: Request, repo: str, revision: str, path: str) -> Response:
        found = self._readable(request, repo)
        self._check_gate(request, found)
        commit, file = found.file(revision, path)
        return Response(200, {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"'}, file.content)

    @route("GET", "/objects/(?P<oid>[0-9a-f]{64})/.+")
    def _object(self, request: Request, oid: str) -> Response:
        if oid not in self.objects:
            raise HubError(404, None, f"there is no object {oid}")
        return Response(200, {"Content-Type": "application/octet-stream"}, self.objects[oid])

    # ------------------------------------------------------------------ uploads

    @route("POST", f"/api/models/{REPO}/preupload/{REVISION}")
    def _preupload(self, request: Request, repo: str, revision: str) -> Response:
        found = self._writable(request, repo)
        tree = found.commits[found.resolve(revision)]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_lfs(file["path"], file["size"]) else "regular",
                "shouldIgnore": False,
                "oid": tree[file["path"]].oid if file["path"] in tree else None,
            }
            for file in json.loads(request.body)["files"]
        ]
        return as_json({"files": modes})

    @route("POST", f"/{REPO}[.]git/info/lfs/objects/batch")
    def _lfs_batch(self, request: Request, repo: str) -> Response:
        self._writable(request, repo)
        objects = [
            {"oid": wanted["oid"], "size": wanted["size"]}
            | ({} if wanted["oid"] in self.objects else {"actions": {"upload": {"href": self._upload_url(wanted)}}})
            for wanted in json.loads(request.body)["objects"]
        ]
        return as_json({"transfer": "basic", "objects": objects})

    def _upload_url(self, wanted: dict[str, Any]) -> str:
        return f"{self.storage}/objects/{wanted['oid']}"

    @route("PUT", "/objects/(?P<oid>[0-9a-f]{64})")
    def _upload(self, request: Request, oid: str) -> Response:
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise HubError(400, None, "the content does not have the SHA-256 that was announced")
        self.objects[oid] = request.body
        return Response()

    @route("POST", f"/api/models/{REPO}/commit/{REVISION}")
    def _commit(self, request: Request, repo: str, revision: str) -> Response:
        found = self._writable(request, repo)
        if revision not in found.branches or "create_pr" in request.query:
            raise HubError(400, None, "commits go to a branch that exists; pull requests are not served here")
        head = found.branches[revision]
        header, *operations = (json.loads(line) for line in request.body.splitlines())
        if header["value"].get("parentCommit", head) != head:
            raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
        changes: dict[str, bytes | None] = {}
        for operation in operations:
            changes |= self._changes(operation["key"], operation["value"], found.commits[head])
        commit = found.commit(changes, revision)
        return as_json({"success": True, "commitOid": commit, "commitUrl": f"{self.endpoint}/{repo}/commit/{commit}"})

    def _changes(self, key: str, value: dict[str, Any], tree: Mapping[str, StoredFile]) -> dict[str, bytes | None]:
        if key == "file":
            return {value["path"]: base64.b64decode(value["content"])}
        if key == "lfsFile":
            if value["oid"] not in self.objects:
                raise HubError(400, None, f"LFS object {value['oid']} was never uploaded")
            return {value["path"]: self.objects[value["oid"]]}
        folder = value["path"].rstrip("/") + "/"
        gone = [path for path in tree if path == value["path"] or (key == "deletedFolder" and path.startswith(folder))]
        if not gone:
            raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {value['path']}")
        return dict.fromkeys(gone)
