"""Fixtures that put the real `huggingface_hub` in front of the Hub on loopback, in this process and in others."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from loopback.server import HubServer
from loopback.store import Account, Repo

REPO = "org/model"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
FILES = {WEIGHTS: bytes(range(256)) * 400, CONFIG: b'{"num_classes": 7}\n' * 20, "docs/card.md": b"# Card\n"}
SHA256 = hashlib.sha256(FILES[WEIGHTS]).hexdigest()
#: Tokens of whom may write to REPO, may read it when it is private or gated, and may do neither.
OWNER, READER, STRANGER = "hf_owner", "hf_reader", "hf_stranger"

#: For `hub_process`: prints the path of the weights.
DOWNLOAD = f"from huggingface_hub import hf_hub_download\nprint(hf_hub_download({REPO!r}, {WEIGHTS!r}))"

#: Everything of the caller's environment that would reach the client under test.
CLIENT_VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """An empty Hub."""
    with HubServer() as server:
        yield server


@pytest.fixture
def hub_repo(hub: HubServer) -> Repo:
    """REPO with one commit of FILES."""
    hub.accounts |= {OWNER: Account("org"), READER: Account("reader", "read"), STRANGER: Account("stranger")}
    created = hub.create_repo(REPO, FILES)
    created.readers.add("reader")
    return created


def client_environment(hub: HubServer, home: Path) -> dict[str, str]:
    """Returns the variables that make `huggingface_hub` use the server, keep to `home` and send nothing else."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        # Downloads use Xet only where the server's headers offer it; uploads use it wherever hf_xet is installed.
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }


@dataclass
class HubClient:
    """`huggingface_hub` as it stands in this process.

    Attributes:
        cache: where it keeps what it downloads.
        sleeps: the seconds that it wanted to wait before retries; it never does.
    """

    cache: Path
    sleeps: list[float]

    @property
    def repo_cache(self) -> Path:
        """The folder of REPO, with blobs, refs and snapshots."""
        return self.cache / ("models--" + REPO.replace("/", "--"))

    @property
    def blobs(self) -> list[Path]:
        """Files of REPO under their hashes, and what failed transfers left behind."""
        return sorted(self.repo_cache.glob("blobs/*"))

    def download(self, filename: str = WEIGHTS, **options: Any) -> bytes:
        """Returns the content of the file at the path that `hf_hub_download` gives."""
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(REPO, filename, **options)).read_bytes()


@pytest.fixture
def hub_client(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubClient]:
    """Points the `huggingface_hub` of this process at the server, with an empty cache and no token."""
    use_client_environment(monkeypatch, client_environment(hub, tmp_path / "hf-home"))
    reload_client_constants(monkeypatch)
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    sleeps: list[float] = []
    clock = SimpleNamespace(**{**vars(time), "sleep": sleeps.append})
    monkeypatch.setattr(file_download, "time", clock)
    monkeypatch.setattr(_http, "time", clock)
    yield HubClient(Path(constants.HF_HUB_CACHE), sleeps)
    _close_connections()


def use_client_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Replaces everything that the environment tells `huggingface_hub`; an imported one looks for its files anew."""
    for name in list(os.environ):
        if name.startswith(CLIENT_VARIABLES):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    constants, home = sys.modules.get("huggingface_hub.constants"), environment["HF_HOME"]
    if constants is not None:
        monkeypatch.setattr(constants, "HF_HOME", home)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", os.path.join(home, "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", os.path.join(home, "token"))


def reload_client_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `huggingface_hub`, which reads its environment once, as if it were imported in the present one."""
    # Imported before the constants change, or they would keep this server's address for later tests.
    import huggingface_hub._snapshot_download
    import huggingface_hub.hub_mixin  # noqa: F401
    from huggingface_hub import constants, hf_api
    from huggingface_hub.utils import _http

    now, before = vars(_fresh_copy(constants)), dict(vars(constants))
    changed = [name for name in now if name.isupper() and now[name] != before[name]]
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "huggingface_hub"]
    for module in modules:
        for name in changed:
            if name in vars(module) and vars(module)[name] == before[name]:
                monkeypatch.setattr(module, name, now[name])
    monkeypatch.setattr(hf_api.api, "endpoint", now["ENDPOINT"])
    # Later versions send the token to these addresses only.
    if hasattr(_http, "_HUB_ORIGINS"):
        monkeypatch.setattr(_http, "_HUB_ORIGINS", frozenset({_http._url_origin(now["ENDPOINT"])}))
    _close_connections()


def _close_connections() -> None:
    from huggingface_hub.utils import _http

    # Before huggingface_hub 1.0, whose HTTP library was requests, the function had another name.
    close = _http.close_session if hasattr(_http, "close_session") else _http.reset_sessions
    close()


def _fresh_copy(module: ModuleType) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module.__name__, str(module.__file__))
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


@pytest.fixture
def start_hub_process(hub: HubServer, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Returns a function (code, **variables) that starts Python with the server as its Hub."""

    def start(code: str, **variables: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLIENT_VARIABLES)}
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=inherited | client_environment(hub, tmp_path / "hf-home") | variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def hub_process(start_hub_process: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Returns a function (code, **variables) that runs Python with the server as its Hub and returns its output."""

    def run(code: str, **variables: str) -> str:
        process = start_hub_process(code, **variables)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return output.strip()

    return run
