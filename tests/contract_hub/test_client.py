"""What `huggingface_hub` does when the Hub, the way to it or its own cache is broken.

Exceptions, numbers of requests and waits are those of huggingface_hub 2.4: `hub.client` builds on them, so a test
that fails with a later version says what to look at there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError
from loopback.faults import FOR_EVER, Fault, flipped, shortened
from loopback.fixtures import CONFIG, DOWNLOAD, FILES, REPO, SHA256, WEIGHTS, reload_client_constants

pytestmark = pytest.mark.contract_hub

# ---------------------------------------------------------------------- the request for the file's metadata fails

LOOP = {"status": 302, "headers": {"Location": f"/{REPO}/resolve/main/{WEIGHTS}"}}

#: What is wrong with HEAD → exception without a cached file, number of requests, waits, exception with one.
METADATA_FAULTS = {
    "404": ({"status": 404}, "LocalEntryNotFoundError", 1, [], None),
    "401": ({"status": 401}, "HfHubHTTPError", 1, [], None),
    "403": ({"status": 403}, "LocalEntryNotFoundError", 1, [], None),
    "429": ({"status": 429, "headers": {"Retry-After": "3"}}, "LocalEntryNotFoundError", 7, [4] * 5, None),
    "503": ({"status": 503}, "LocalEntryNotFoundError", 7, [1, 2, 4, 8, 8], None),
    "no etag": ({"without": ("ETag", "X-Linked-Etag")}, "LocalEntryNotFoundError", 1, [], None),
    "no commit": ({"without": ("X-Repo-Commit",)}, "LocalEntryNotFoundError", 1, [], None),
    "redirect loop": (LOOP, "TooManyRedirects", 20, [], "TooManyRedirects"),
    "closed": ({"cut_after": 0}, "RemoteProtocolError", 1, [], "RemoteProtocolError"),
    "reset": ({"cut_after": 0, "reset": True}, "ReadError", 1, [], "ReadError"),
}


@pytest.mark.parametrize("case", METADATA_FAULTS.values(), ids=METADATA_FAULTS)
def test_failing_metadata_without_a_cached_file(hub, hub_repo, hub_client, case) -> None:
    fault, expected, requests, sleeps, _ = case
    hub.faults = [Fault("HEAD", WEIGHTS, times=FOR_EVER, **fault)]
    with pytest.raises(Exception) as caught:
        hub_client.download()
    assert type(caught.value).__name__ == expected
    assert (len(hub.requests("HEAD")), hub_client.sleeps) == (requests, sleeps)
    assert hub_client.blobs == []


@pytest.mark.parametrize("case", METADATA_FAULTS.values(), ids=METADATA_FAULTS)
def test_failing_metadata_with_a_cached_file(hub, hub_repo, hub_client, case) -> None:
    fault, *_, expected = case
    hub_client.download()
    hub.faults = [Fault("HEAD", WEIGHTS, times=FOR_EVER, **fault)]
    if expected is None:
        assert hub_client.download() == FILES[WEIGHTS]
        assert hub_client.sleeps == []
    else:
        with pytest.raises(Exception) as caught:
            hub_client.download()
        assert type(caught.value).__name__ == expected


def test_metadata_that_fails_once_is_asked_for_again(hub, hub_repo, hub_client) -> None:
    hub.faults = [Fault("HEAD", WEIGHTS, status=503)]
    assert hub_client.download() == FILES[WEIGHTS]
    assert hub.answers() == [("HEAD", 503), ("HEAD", 302), ("GET", 200)]


def test_slow_metadata(hub, hub_repo, hub_client) -> None:
    hub.faults = [Fault("HEAD", WEIGHTS, times=2, delay=0.5)]
    # The second attempt waits a minute, whatever the caller's timeout is.
    assert hub_client.download(etag_timeout=0.1) == FILES[WEIGHTS]
    hub.faults = [Fault("HEAD", WEIGHTS, delay=30)]
    started = time.monotonic()
    assert hub_client.download(etag_timeout=0.1) == FILES[WEIGHTS]
    assert time.monotonic() - started < 5


# ---------------------------------------------------------------------- the transfer of the content fails

RATE_LIMIT = {"status": 429, "headers": {"Retry-After": "3600"}}

#: What is wrong with GET → exception or None, number of requests, waits.
CONTENT_FAULTS = {
    "404": ({"status": 404}, "HfHubHTTPError", 1, []),
    "401": ({"status": 401}, "HfHubHTTPError", 1, []),
    "403": ({"status": 403}, "HfHubHTTPError", 1, []),
    "503 once": ({"status": 503}, "HfHubHTTPError", 1, []),
    "429 once": (RATE_LIMIT, None, 2, [3601]),
    "429 for ever": ({**RATE_LIMIT, "times": FOR_EVER}, "HfHubHTTPError", 6, [3601] * 5),
    "closed once": ({"cut_after": 1000}, None, 2, [1]),
    "closed for ever": ({"cut_after": 1000, "times": FOR_EVER}, "RemoteProtocolError", 6, [1] * 5),
    "reset once": ({"cut_after": 1000, "reset": True}, "ReadError", 1, []),
    "shorter": ({"change": shortened}, "OSError", 1, []),
    "longer": ({"change": lambda content: content + b"x"}, "OSError", 1, []),
    "redirect loop": ({**LOOP, "times": FOR_EVER}, "TooManyRedirects", 21, []),
}


@pytest.mark.parametrize("case", CONTENT_FAULTS.values(), ids=CONTENT_FAULTS)
def test_failing_transfer(hub, hub_repo, hub_client, case) -> None:
    fault, expected, requests, sleeps = case
    hub.faults = [Fault("GET", WEIGHTS, **fault)]
    if expected is None:
        assert hub_client.download() == FILES[WEIGHTS]
    else:
        with pytest.raises(Exception) as caught:
            hub_client.download()
        assert type(caught.value).__name__ == expected
        assert hub_client.blobs == [], "something of the failed transfer stayed behind"
    assert (len(hub.requests("GET")), hub_client.sleeps) == (requests, sleeps)
    hub.faults = []
    assert hub_client.download() == FILES[WEIGHTS]


def test_slow_transfer(hub, hub_repo, hub_client, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.faults = [Fault("GET", WEIGHTS, delay=0.5)]
    assert hub_client.download() == FILES[WEIGHTS]
    assert hub_client.sleeps == [1]


@pytest.mark.parametrize("ignore_range", [False, True])
def test_resuming(hub, hub_repo, hub_client, monkeypatch, ignore_range) -> None:
    # The client writes, and so resumes after, whole chunks only; they are 10 MiB by default.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.faults = [Fault("GET", WEIGHTS, cut_after=50_500), Fault("GET", WEIGHTS, ignore_range=ignore_range)]
    assert hub_client.download() == FILES[WEIGHTS]
    whole, rest = hub.requests("GET")
    assert "Range" not in whole.headers and rest.headers["Range"] == "bytes=50000-"
    assert rest.status == (200 if ignore_range else 206)


# ---------------------------------------------------------------------- what the client does not notice


def test_wrong_bytes_of_the_right_size_are_kept(hub, hub_repo, hub_client) -> None:
    hub.faults = [Fault("GET", WEIGHTS, change=flipped)]
    assert hub_client.download() == flipped(FILES[WEIGHTS])
    assert [blob.name for blob in hub_client.blobs] == [SHA256]
    assert hub_client.download() == flipped(FILES[WEIGHTS])
    assert len(hub.requests("GET")) == 1


def test_short_file_of_unknown_size_is_kept(hub, hub_repo, hub_client) -> None:
    hub.faults = [Fault("HEAD", WEIGHTS, without=("X-Linked-Size",)), Fault("GET", WEIGHTS, change=shortened)]
    assert hub_client.download() == shortened(FILES[WEIGHTS])


@pytest.mark.parametrize("change", [flipped, shortened, lambda content: b""], ids=["bytes", "shorter", "empty"])
@pytest.mark.parametrize("local_files_only", [False, True])
def test_spoilt_blob_is_a_cache_hit(hub, hub_repo, hub_client, change, local_files_only) -> None:
    hub_client.download()
    hub_client.blobs[0].write_bytes(change(FILES[WEIGHTS]))
    assert hub_client.download(local_files_only=local_files_only) == change(FILES[WEIGHTS])
    assert len(hub.requests("GET")) == 1
    (mismatch,) = HfApi().verify_repo_checksums(REPO).mismatches
    assert (mismatch["path"], mismatch["expected"]) == (WEIGHTS, SHA256)


def test_deleted_blob_is_fetched_again(hub, hub_repo, hub_client) -> None:
    hub_client.download()
    hub_client.blobs[0].unlink()
    assert hub_client.download() == FILES[WEIGHTS]


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        ({"method": "GET", "change": shortened}, True),
        ({"method": "GET", "status": 503}, True),
        ({"method": "HEAD", "status": 503}, True),
        ({"method": "GET", "change": flipped}, False),
    ],
    ids=["shorter", "503", "503 of HEAD", "wrong bytes"],
)
def test_failing_force_download(hub, hub_repo, hub_client, fault, kept) -> None:
    hub_client.download()
    hub.faults = [Fault(path=WEIGHTS, **fault)]
    if kept:
        with pytest.raises((OSError, ValueError)):
            hub_client.download(force_download=True)
    else:
        hub_client.download(force_download=True)
    assert (hub_client.download(local_files_only=True) == FILES[WEIGHTS]) is kept


def test_cache_without_symlinks(hub, hub_repo, hub_client, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    reload_client_constants(monkeypatch)
    path = Path(hf_hub_download(REPO, WEIGHTS))
    assert path.read_bytes() == FILES[WEIGHTS] and not path.is_symlink() and hub_client.blobs == []
    path.write_bytes(b"spoilt")
    assert hub_client.download() == b"spoilt"
    path.unlink()
    assert hub_client.download() == FILES[WEIGHTS]


def test_branch_may_move_between_two_files(hub, hub_repo, hub_client) -> None:
    first = hf_hub_download(REPO, CONFIG)
    hub_repo.commit({WEIGHTS: b"retrained"})
    assert Path(first).parent != Path(hf_hub_download(REPO, WEIGHTS)).parent


def test_branch_that_moved_for_one_file_is_lost_offline_for_the_others(hub, hub_repo, hub_client) -> None:
    before = hub_repo.resolve("main")
    snapshot_download(REPO)
    hub_repo.commit({CONFIG: b"{}"})
    hub_client.download(CONFIG)
    with pytest.raises(LocalEntryNotFoundError):
        hub_client.download(local_files_only=True)
    assert hub_client.download(revision=before, local_files_only=True) == FILES[WEIGHTS]


# ---------------------------------------------------------------------- no Hub at all


@pytest.mark.parametrize("cached", [True, False])
def test_hub_that_is_down(hub, hub_repo, hub_client, cached) -> None:
    if cached:
        hub_client.download()
    hub.stop()
    if cached:
        assert hub_client.download() == FILES[WEIGHTS]
        assert hub_client.sleeps == []
        return
    with pytest.raises(LocalEntryNotFoundError):
        hub_client.download()
    assert hub_client.sleeps == [1, 2, 4, 8, 8]


def test_offline(hub, hub_repo, hub_client, monkeypatch) -> None:
    snapshot_download(REPO, allow_patterns=WEIGHTS)
    hub.log.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reload_client_constants(monkeypatch)
    assert hub_client.download() == FILES[WEIGHTS]
    for attempt in (
        lambda: hub_client.download(CONFIG),
        lambda: hub_client.download(revision="v1"),
        lambda: hub_client.download(CONFIG, local_files_only=True),
    ):
        with pytest.raises(LocalEntryNotFoundError):
            attempt()
    with pytest.raises(ValueError, match="offline mode"):
        hub_client.download(force_download=True)
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download(REPO)
    assert hub.log == []


# ---------------------------------------------------------------------- other processes

#: Starts Python once more without CAP_DAC_OVERRIDE (1, dropped by prctl 24), so that file modes bind root, too.
BOUND_BY_FILE_MODES = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)\n"
    "os.execv(sys.executable, [sys.executable, '-c', os.environ['CODE']])"
)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="root is bound by file modes through prctl")
def test_read_only_cache(hub, hub_repo, hub_process, tmp_path) -> None:
    path = hub_process(DOWNLOAD)
    hub_repo.commit({CONFIG: b"{}"})
    hub_repo.tags["v1"] = Path(path).parent.name
    folders = [folder for folder in (tmp_path / "hf-home").rglob("*") if folder.is_dir()]
    code = (
        "from huggingface_hub import hf_hub_download\n"
        f"print(hf_hub_download({REPO!r}, {WEIGHTS!r}, revision='v1'))\n"
        "try:\n"
        f"    hf_hub_download({REPO!r}, {CONFIG!r})\n"
        "except PermissionError:\n"
        "    print('refused')"
    )
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert hub_process(BOUND_BY_FILE_MODES, CODE=code).splitlines() == [path, "refused"]
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_killed_transfer_leaves_its_file_behind(hub, hub_repo, start_hub_process, hub_process, tmp_path) -> None:
    hub.faults = [Fault("GET", WEIGHTS, delay=30)]
    process = start_hub_process(DOWNLOAD)
    wait_until(lambda: hub.requests("GET"))
    process.kill()
    process.communicate()
    (left,) = tmp_path.rglob("*.incomplete")
    assert Path(hub_process(DOWNLOAD)).read_bytes() == FILES[WEIGHTS]
    assert left.exists()


def test_eight_processes_fetch_a_file_once(hub, hub_repo, start_hub_process, tmp_path) -> None:
    # All wait at the line before the download, so that the first is still fetching when the others ask.
    wait = (
        "import huggingface_hub.file_download, os, pathlib, time\n"
        "pathlib.Path(f'ready-{os.getpid()}').touch()\n"
        "while not os.path.exists('go'):\n"
        "    time.sleep(0.01)\n"
    )
    hub.faults = [Fault("GET", WEIGHTS, delay=0.5)]
    processes = [start_hub_process(wait + DOWNLOAD) for _ in range(8)]
    wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 8)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    (path,) = {output.strip() for output, _ in outputs}
    assert Path(path).read_bytes() == FILES[WEIGHTS]
    assert len(hub.requests("HEAD")) == 8 and len(hub.requests("GET")) == 1
    assert [blob.name for blob in Path(path).resolve().parent.iterdir()] == [SHA256]
