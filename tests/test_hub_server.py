"""The Hub on loopback against the real `huggingface_hub`, and what that client does when the Hub misbehaves.

Exceptions, numbers of requests and waits are those of huggingface_hub 2.4: `diffmiczoo.hub` builds on them, so a test
that fails with a later version says what to look at there.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from hub_fixtures import HubClient, client_environment, reload_client_constants
from hub_server import FOR_EVER, Account, Fault, HubServer, flipped, shortened
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REPO = "org/model"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
FILES = {WEIGHTS: bytes(range(256)) * 400, CONFIG: b'{"num_classes": 7}\n' * 20, "docs/card.md": b"# Card\n"}
SHA256 = hashlib.sha256(FILES[WEIGHTS]).hexdigest()
OWNER, READER, STRANGER = "hf_owner", "hf_reader", "hf_stranger"


@pytest.fixture
def repo(hub: HubServer):
    """`org/model` with one commit, and the accounts that may write, read or do neither."""
    hub.accounts |= {OWNER: Account("org"), READER: Account("reader", "read"), STRANGER: Account("stranger")}
    created = hub.create_repo(REPO, FILES)
    created.readers.add("reader")
    return created


def download(filename: str = WEIGHTS, **options: object) -> bytes:
    return Path(hf_hub_download(REPO, filename, **options)).read_bytes()


def answers(hub: HubServer) -> list[tuple[str, int]]:
    return [(request.method, request.status) for request in hub.log]


def blobs(client: HubClient) -> list[Path]:
    return sorted(client.repo_cache(REPO).glob("blobs/*"))


def spoil_blobs(client: HubClient) -> None:
    for blob in blobs(client):
        blob.write_bytes(flipped(blob.read_bytes()))


# ---------------------------------------------------------------------- downloads


def test_large_file_comes_from_storage_under_its_sha256(hub, repo, hub_client) -> None:
    assert download(token=READER) == FILES[WEIGHTS]
    assert answers(hub) == [("HEAD", 302), ("GET", 200)]
    asked, fetched = hub.log
    assert asked.path == f"/{REPO}/resolve/main/{WEIGHTS}" and asked.headers["Authorization"] == f"Bearer {READER}"
    assert fetched.path == f"/objects/{SHA256}/{WEIGHTS}" and "Authorization" not in fetched.headers
    assert [blob.name for blob in blobs(hub_client)] == [SHA256]
    assert (hub_client.repo_cache(REPO) / "refs" / "main").read_text() == repo.resolve("main")


def test_small_file_comes_from_the_hub_under_its_git_hash(hub, repo, hub_client) -> None:
    assert download(CONFIG) == FILES[CONFIG]
    assert answers(hub) == [("HEAD", 307), ("HEAD", 200), ("GET", 200)]
    assert [blob.name for blob in blobs(hub_client)] == [repo.file("main", CONFIG)[1].git_oid]


def test_cache_hit_asks_only_for_the_commit_of_the_branch(hub, repo, hub_client) -> None:
    download()
    hub.log.clear()
    assert download() == FILES[WEIGHTS]
    assert answers(hub) == [("HEAD", 302)]
    hub.log.clear()
    assert download(revision=repo.resolve("main")) == FILES[WEIGHTS]
    assert hub.log == []


def test_revisions_are_kept_apart(hub, repo, hub_client) -> None:
    first, new = repo.resolve("main"), b"new weights"
    repo.tags["v1"] = first
    second = repo.commit({WEIGHTS: new})
    repo.commit({WEIGHTS: b"an experiment"}, branch="try/this")
    assert download() == new
    assert download(revision=first) == download(revision="v1") == FILES[WEIGHTS]
    assert download(revision="try/this") == b"an experiment"
    refs = hub_client.repo_cache(REPO) / "refs"
    assert (refs / "main").read_text() == second and (refs / "v1").read_text() == first
    third = repo.commit({WEIGHTS: b"newer weights"})
    assert download() == b"newer weights"
    assert (refs / "main").read_text() == third


def test_force_download_fetches_again(hub, repo, hub_client) -> None:
    download()
    spoil_blobs(hub_client)
    assert download(force_download=True) == FILES[WEIGHTS]
    assert len(hub.requests("GET", WEIGHTS)) == 2


def test_snapshot(hub, repo, hub_client) -> None:
    folder = Path(snapshot_download(REPO, allow_patterns=["*.safetensors", "*.json"]))
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    whole = Path(snapshot_download(REPO))
    assert {name: (whole / name).read_bytes() for name in FILES} == FILES
    assert len(hub.requests("GET", WEIGHTS)) == 1
    hub.log.clear()
    assert snapshot_download(REPO, revision=repo.resolve("main")) == str(whole)
    assert hub.log == []


def test_what_the_hub_tells_about_a_repository(hub, repo, hub_client) -> None:
    info = huggingface_hub.model_info(REPO, files_metadata=True)
    assert info.sha == repo.resolve("main") and info.private is False
    assert {file.rfilename: file.lfs.sha256 for file in info.siblings if file.lfs} == {WEIGHTS: SHA256}
    assert sorted(huggingface_hub.list_repo_files(REPO)) == sorted([".gitattributes", *FILES])
    assert [entry.path for entry in HfApi().list_repo_tree(REPO)] == ["docs", ".gitattributes", WEIGHTS, CONFIG]
    assert [entry.path for entry in HfApi().list_repo_tree(REPO, "docs")] == ["docs/card.md"]
    (weights,) = huggingface_hub.get_paths_info(REPO, [WEIGHTS, "nothing"])
    assert (weights.size, weights.lfs.sha256) == (len(FILES[WEIGHTS]), SHA256)
    assert huggingface_hub.file_exists(REPO, CONFIG) and not huggingface_hub.file_exists(REPO, "nothing")


def test_what_is_not_there(hub, repo, hub_client) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        download("nothing.json")
    assert (hub_client.repo_cache(REPO) / ".no_exist" / repo.resolve("main") / "nothing.json").is_file()
    with pytest.raises(RevisionNotFoundError):
        download(revision="nowhere")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("org/nothing", WEIGHTS)
    with pytest.raises(RepositoryNotFoundError):
        huggingface_hub.model_info("org/nothing")


def test_private_repository(hub, repo, hub_client) -> None:
    repo.private = True
    for token, status in ((False, 401), (STRANGER, 404)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            download(token=token)
        assert caught.value.response.status_code == status
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
        download(token="hf_wrong")
    assert type(caught.value) is HfHubHTTPError
    assert download(token=READER) == FILES[WEIGHTS]


def test_gated_repository(hub, repo, hub_client) -> None:
    repo.gated = True
    for token, status in ((False, 401), (STRANGER, 403)):
        with pytest.raises(GatedRepoError) as caught:
            download(token=token)
        assert caught.value.response.status_code == status
    assert huggingface_hub.model_info(REPO).gated == "auto"
    assert download(token=READER) == FILES[WEIGHTS]


# ---------------------------------------------------------------------- uploads


def test_what_is_pushed_comes_back(hub, repo, hub_client, tmp_path) -> None:
    api = HfApi(token=OWNER)
    assert api.whoami()["name"] == "org"
    assert api.create_repo("org/new", private=True) == f"{hub.endpoint}/org/new"
    api.create_repo("org/new", exist_ok=True)
    source = tmp_path / "source"
    (source / "docs").mkdir(parents=True)
    for name, content in FILES.items():
        (source / name).write_bytes(content)
    (source / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    commit = api.upload_folder(repo_id="org/new", folder_path=source)
    assert commit.oid == api.model_info("org/new").sha and len(commit.oid) == 40
    pulled = Path(snapshot_download("org/new", token=OWNER))
    assert {name: (pulled / name).read_bytes() for name in FILES} == FILES
    (uploaded,) = hub.requests("PUT")
    assert uploaded.path == f"/objects/{SHA256}" and "Authorization" not in uploaded.headers


def test_commits(hub, repo, hub_client) -> None:
    api, first = HfApi(token=OWNER), repo.resolve("main")
    operations = [
        CommitOperationAdd("large.bin", b"\0" * 50),
        CommitOperationAdd("small.txt", b"text"),
        CommitOperationDelete("docs/", is_folder=True),
    ]
    second = api.create_commit(REPO, operations, commit_message="More", parent_commit=first).oid
    assert repo.commits[second]["large.bin"].lfs and not repo.commits[second]["small.txt"].lfs
    assert sorted(huggingface_hub.list_repo_files(REPO)) == [
        ".gitattributes",
        CONFIG,
        "large.bin",
        WEIGHTS,
        "small.txt",
    ]
    again = api.upload_file(path_or_fileobj=b"text", path_in_repo="small.txt", repo_id=REPO)
    assert again.oid == second, "the same content made a commit"
    api.delete_file("small.txt", REPO)
    assert "small.txt" not in huggingface_hub.list_repo_files(REPO)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.upload_file(path_or_fileobj=b"late", path_in_repo="late", repo_id=REPO, parent_commit=first)
    assert download(revision=first) == FILES[WEIGHTS]


def test_known_content_is_not_sent_twice(hub, repo, hub_client) -> None:
    api = HfApi(token=OWNER)
    for name in ("a.safetensors", "b.safetensors"):
        api.upload_file(path_or_fileobj=b"the same weights", path_in_repo=name, repo_id=REPO)
    assert len(hub.requests("PUT")) == 1
    assert download("b.safetensors") == b"the same weights"


def test_branches_and_tags(hub, repo, hub_client) -> None:
    api, first = HfApi(token=OWNER), repo.resolve("main")
    api.create_branch(REPO, branch="next/one")
    api.create_tag(REPO, tag="v1")
    api.upload_file(path_or_fileobj=b"next", path_in_repo=WEIGHTS, repo_id=REPO, revision="next/one")
    assert download() == download(revision="v1") == FILES[WEIGHTS]
    assert download(revision="next/one") == b"next"
    refs = api.list_repo_refs(REPO)
    assert {branch.name for branch in refs.branches} == {"main", "next/one"}
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first)]
    api.delete_repo(REPO)
    assert not api.repo_exists(REPO)


@pytest.mark.parametrize(("token", "status"), [(READER, 403), (STRANGER, 403), (False, 401)])
def test_only_the_owner_writes(hub, repo, hub_client, token, status) -> None:
    before = repo.resolve("main")
    for attempt in (
        lambda: HfApi(token=token).upload_file(path_or_fileobj=b"x", path_in_repo=WEIGHTS, repo_id=REPO),
        lambda: HfApi(token=token).create_repo("org/other"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            attempt()
        assert caught.value.response.status_code == status
    assert repo.resolve("main") == before and "org/other" not in hub.repos


def test_failing_upload(hub, repo, hub_client) -> None:
    hub.faults = [Fault("PUT", "/objects/", status=503)]
    HfApi(token=OWNER).upload_file(path_or_fileobj=b"once more", path_in_repo="a.safetensors", repo_id=REPO)
    assert download("a.safetensors") == b"once more" and hub_client.sleeps == [1]
    before = repo.resolve("main")
    hub.faults = [Fault("PUT", "/objects/", status=503, times=FOR_EVER)]
    with pytest.raises(RuntimeError, match=r"Error while uploading 'b\.safetensors'") as caught:
        HfApi(token=OWNER).upload_file(path_or_fileobj=b"never", path_in_repo="b.safetensors", repo_id=REPO)
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert repo.resolve("main") == before


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
def test_failing_metadata_without_a_cached_file(hub, repo, hub_client, case) -> None:
    fault, expected, requests, sleeps, _ = case
    hub.faults = [Fault("HEAD", WEIGHTS, times=FOR_EVER, **fault)]
    with pytest.raises(Exception) as caught:
        download()
    assert type(caught.value).__name__ == expected
    assert (len(hub.requests("HEAD")), hub_client.sleeps) == (requests, sleeps)
    assert blobs(hub_client) == []


@pytest.mark.parametrize("case", METADATA_FAULTS.values(), ids=METADATA_FAULTS)
def test_failing_metadata_with_a_cached_file(hub, repo, hub_client, case) -> None:
    fault, *_, expected = case
    download()
    hub.faults = [Fault("HEAD", WEIGHTS, times=FOR_EVER, **fault)]
    if expected is None:
        assert download() == FILES[WEIGHTS]
        assert hub_client.sleeps == []
    else:
        with pytest.raises(Exception) as caught:
            download()
        assert type(caught.value).__name__ == expected


def test_metadata_that_fails_once_is_asked_for_again(hub, repo, hub_client) -> None:
    hub.faults = [Fault("HEAD", WEIGHTS, status=503)]
    assert download() == FILES[WEIGHTS]
    assert answers(hub) == [("HEAD", 503), ("HEAD", 302), ("GET", 200)]


def test_slow_metadata(hub, repo, hub_client) -> None:
    hub.faults = [Fault("HEAD", WEIGHTS, times=2, delay=0.5)]
    # The second attempt waits a minute, whatever the caller's timeout is.
    assert download(etag_timeout=0.1) == FILES[WEIGHTS]
    hub.faults = [Fault("HEAD", WEIGHTS, delay=30)]
    started = time.monotonic()
    assert download(etag_timeout=0.1) == FILES[WEIGHTS]
    assert time.monotonic() - started < 5


# ---------------------------------------------------------------------- the transfer of the content fails

RETRY_SOON = {"status": 429, "headers": {"Retry-After": "3"}}

#: What is wrong with GET → exception or None, number of requests, waits.
CONTENT_FAULTS = {
    "404": ({"status": 404}, "HfHubHTTPError", 1, []),
    "401": ({"status": 401}, "HfHubHTTPError", 1, []),
    "403": ({"status": 403}, "HfHubHTTPError", 1, []),
    "503 once": ({"status": 503}, "HfHubHTTPError", 1, []),
    "429 once": (RETRY_SOON, None, 2, [4]),
    "429 for ever": ({**RETRY_SOON, "times": FOR_EVER}, "HfHubHTTPError", 6, [4] * 5),
    "closed once": ({"cut_after": 1000}, None, 2, [1]),
    "closed for ever": ({"cut_after": 1000, "times": FOR_EVER}, "RemoteProtocolError", 6, [1] * 5),
    "reset once": ({"cut_after": 1000, "reset": True}, "ReadError", 1, []),
    "shorter": ({"change": shortened}, "OSError", 1, []),
    "longer": ({"change": lambda content: content + b"x"}, "OSError", 1, []),
    "redirect loop": ({**LOOP, "times": FOR_EVER}, "TooManyRedirects", 21, []),
}


@pytest.mark.parametrize("case", CONTENT_FAULTS.values(), ids=CONTENT_FAULTS)
def test_failing_transfer(hub, repo, hub_client, case) -> None:
    fault, expected, requests, sleeps = case
    hub.faults = [Fault("GET", WEIGHTS, **fault)]
    if expected is None:
        assert download() == FILES[WEIGHTS]
    else:
        with pytest.raises(Exception) as caught:
            download()
        assert type(caught.value).__name__ == expected
        assert blobs(hub_client) == [], "something of the failed transfer stayed behind"
    assert (len(hub.requests("GET")), hub_client.sleeps) == (requests, sleeps)
    hub.faults = []
    assert download() == FILES[WEIGHTS]


def test_slow_transfer(hub, repo, hub_client, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.faults = [Fault("GET", WEIGHTS, delay=0.5)]
    assert download() == FILES[WEIGHTS]
    assert hub_client.sleeps == [1]


@pytest.mark.parametrize("ignore_range", [False, True])
def test_resuming(hub, repo, hub_client, monkeypatch, ignore_range) -> None:
    # The client writes, and so resumes after, whole chunks only; they are 10 MiB by default.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.faults = [Fault("GET", WEIGHTS, cut_after=50_500), Fault("GET", WEIGHTS, ignore_range=ignore_range)]
    assert download() == FILES[WEIGHTS]
    whole, rest = hub.requests("GET")
    assert "Range" not in whole.headers and rest.headers["Range"] == "bytes=50000-"
    assert rest.status == (200 if ignore_range else 206)


# ---------------------------------------------------------------------- what the client does not notice


def test_wrong_bytes_of_the_right_size_are_kept(hub, repo, hub_client) -> None:
    hub.faults = [Fault("GET", WEIGHTS, change=flipped)]
    assert download() == flipped(FILES[WEIGHTS])
    assert [blob.name for blob in blobs(hub_client)] == [SHA256]
    assert download() == flipped(FILES[WEIGHTS])
    assert len(hub.requests("GET")) == 1


def test_short_file_of_unknown_size_is_kept(hub, repo, hub_client) -> None:
    hub.faults = [Fault("HEAD", WEIGHTS, without=("X-Linked-Size",)), Fault("GET", WEIGHTS, change=shortened)]
    assert download() == shortened(FILES[WEIGHTS])


@pytest.mark.parametrize("change", [flipped, shortened, lambda content: b""], ids=["bytes", "shorter", "empty"])
@pytest.mark.parametrize("local_files_only", [False, True])
def test_spoilt_blob_is_a_cache_hit(hub, repo, hub_client, change, local_files_only) -> None:
    download()
    blobs(hub_client)[0].write_bytes(change(FILES[WEIGHTS]))
    assert download(local_files_only=local_files_only) == change(FILES[WEIGHTS])
    assert len(hub.requests("GET")) == 1
    (mismatch,) = HfApi().verify_repo_checksums(REPO).mismatches
    assert (mismatch["path"], mismatch["expected"]) == (WEIGHTS, SHA256)


def test_deleted_blob_is_fetched_again(hub, repo, hub_client) -> None:
    download()
    blobs(hub_client)[0].unlink()
    assert download() == FILES[WEIGHTS]


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
def test_failing_force_download(hub, repo, hub_client, fault, kept) -> None:
    download()
    hub.faults = [Fault(path=WEIGHTS, **fault)]
    if kept:
        with pytest.raises((OSError, ValueError)):
            download(force_download=True)
    else:
        download(force_download=True)
    assert (download(local_files_only=True) == FILES[WEIGHTS]) is kept


# ---------------------------------------------------------------------- no Hub at all


@pytest.mark.parametrize("cached", [True, False])
def test_hub_that_does_not_answer(hub_client, hub, repo, cached) -> None:
    if cached:
        download()
    hub.__exit__()
    if cached:
        assert download() == FILES[WEIGHTS]
        assert hub_client.sleeps == []
        return
    with pytest.raises(LocalEntryNotFoundError):
        download()
    assert hub_client.sleeps == [1, 2, 4, 8, 8]


def test_offline(hub, repo, hub_client, monkeypatch) -> None:
    snapshot_download(REPO, allow_patterns=WEIGHTS)
    hub.log.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reload_client_constants(monkeypatch)
    assert download() == FILES[WEIGHTS]
    for attempt in (
        lambda: download(CONFIG),
        lambda: download(revision="v1"),
        lambda: download(CONFIG, local_files_only=True),
    ):
        with pytest.raises(LocalEntryNotFoundError):
            attempt()
    with pytest.raises(ValueError, match="offline mode"):
        download(force_download=True)
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download(REPO)
    assert hub.log == []


# ---------------------------------------------------------------------- other processes

DOWNLOAD = f"from huggingface_hub import hf_hub_download\nprint(hf_hub_download({REPO!r}, {WEIGHTS!r}))"

#: Starts Python once more without CAP_DAC_OVERRIDE (1, dropped by prctl 24), so that file modes bind root, too.
BOUND_BY_FILE_MODES = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)\n"
    "os.execv(sys.executable, [sys.executable, '-c', os.environ['CODE']])"
)


def test_process_with_the_environment_of_the_fixture(hub, repo, hub_process, tmp_path) -> None:
    repo.private = True
    path = Path(hub_process(DOWNLOAD, HF_TOKEN=READER))
    assert path.read_bytes() == FILES[WEIGHTS] and path.is_relative_to(tmp_path)
    assert {request.path.split("/")[1] for request in hub.log} == {"org", "objects"}, "the client asked for more"
    hub.log.clear()
    assert hub_process(DOWNLOAD, HF_HUB_OFFLINE="1") == str(path)
    assert hub.log == []


def test_client_is_put_back(hub, tmp_path, monkeypatch) -> None:
    before = dict(vars(huggingface_hub.constants))
    with monkeypatch.context() as patch:
        for name, value in client_environment(hub, tmp_path).items():
            patch.setenv(name, value)
        reload_client_constants(patch)
        assert str(tmp_path / "hub") == huggingface_hub.constants.HF_HUB_CACHE
        assert HfApi().endpoint == huggingface_hub.hf_api.api.endpoint == hub.endpoint
    assert dict(vars(huggingface_hub.constants)) == before
    assert huggingface_hub.hf_api.api.endpoint == before["ENDPOINT"]


def test_xet_is_used_only_for_uploads_and_only_unless_switched_off(hub, repo, hub_process) -> None:
    pytest.importorskip("hf_xet")
    path = hub_process(DOWNLOAD, HF_HUB_DISABLE_XET="0")
    assert Path(path).read_bytes() == FILES[WEIGHTS]
    upload = (
        "from huggingface_hub import HfApi\n"
        "try:\n"
        f"    HfApi().upload_file(path_or_fileobj=b'x', path_in_repo={WEIGHTS!r}, repo_id={REPO!r})\n"
        "except Exception as error:\n"
        "    print('failed')"
    )
    assert hub_process(upload, HF_HUB_DISABLE_XET="0", HF_TOKEN=OWNER) == "failed"
    assert hub.requests("GET", "/xet-write-token/") and not hub.requests("PUT")


@pytest.mark.skipif(sys.platform != "linux", reason="root is bound by file modes through prctl")
def test_read_only_cache(hub, repo, hub_process, tmp_path) -> None:
    path = hub_process(DOWNLOAD)
    cache = tmp_path / "hf-home"
    for folder in (cache, *(path for path in cache.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    repo.commit({CONFIG: b"{}"})
    repo.tags["v1"] = Path(path).parent.name
    assert hub_process(BOUND_BY_FILE_MODES, CODE=DOWNLOAD.replace("))", ", revision='v1'))")) == path
    attempt = f"try:\n    hf_hub_download({REPO!r}, {CONFIG!r})\nexcept PermissionError:\n    print('refused')"
    assert hub_process(BOUND_BY_FILE_MODES, CODE=f"{DOWNLOAD.splitlines()[0]}\n{attempt}") == "refused"
    for folder in (cache, *(path for path in cache.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def test_eight_processes_fetch_a_file_once(hub, repo, start_hub_process, tmp_path) -> None:
    # All wait at the line before the download, so that the first is still fetching when the others ask.
    wait = (
        "import huggingface_hub.file_download, os, pathlib, time\n"
        "pathlib.Path(f'ready-{os.getpid()}').touch()\n"
        "while not os.path.exists('go'):\n"
        "    time.sleep(0.01)\n"
    )
    hub.faults = [Fault("GET", WEIGHTS, delay=0.5)]
    processes = [start_hub_process(wait + DOWNLOAD) for _ in range(8)]
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("ready-*"))) < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    (path,) = {output.strip() for output, _ in outputs}
    assert Path(path).read_bytes() == FILES[WEIGHTS]
    assert len(hub.requests("HEAD")) == 8 and len(hub.requests("GET")) == 1
    assert [blob.name for blob in Path(path).resolve().parent.iterdir()] == [SHA256]
