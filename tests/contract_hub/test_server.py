"""The Hub on loopback, proved with the real `huggingface_hub`: what it serves, to whom, and what it takes."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from loopback.faults import FOR_EVER, Fault
from loopback.fixtures import (
    CONFIG,
    DOWNLOAD,
    FILES,
    OWNER,
    READER,
    REPO,
    SHA256,
    STRANGER,
    WEIGHTS,
    client_environment,
    reload_client_constants,
)

pytestmark = pytest.mark.contract_hub

# ---------------------------------------------------------------------- downloads


def test_large_file_comes_from_storage_under_its_sha256(hub, hub_repo, hub_client) -> None:
    assert hub_client.download(token=READER) == FILES[WEIGHTS]
    assert hub.answers() == [("HEAD", 302), ("GET", 200)]
    asked, fetched = hub.log
    assert asked.path == f"/{REPO}/resolve/main/{WEIGHTS}" and asked.headers["Authorization"] == f"Bearer {READER}"
    assert fetched.path == f"/objects/{SHA256}/{WEIGHTS}" and "Authorization" not in fetched.headers
    assert [blob.name for blob in hub_client.blobs] == [SHA256]
    assert (hub_client.repo_cache / "refs" / "main").read_text() == hub_repo.resolve("main")


def test_small_file_comes_from_the_hub_under_its_git_hash(hub, hub_repo, hub_client) -> None:
    assert hub_client.download(CONFIG) == FILES[CONFIG]
    assert hub.answers() == [("HEAD", 307), ("HEAD", 200), ("GET", 200)]
    assert [blob.name for blob in hub_client.blobs] == [hub_repo.file("main", CONFIG)[1].git_oid]


def test_cache_hit_asks_only_for_the_commit_of_the_branch(hub, hub_repo, hub_client) -> None:
    hub_client.download()
    hub.log.clear()
    assert hub_client.download() == FILES[WEIGHTS]
    assert hub.answers() == [("HEAD", 302)]
    hub.log.clear()
    assert hub_client.download(revision=hub_repo.resolve("main")) == FILES[WEIGHTS]
    assert hub.log == []


def test_revisions_are_kept_apart(hub, hub_repo, hub_client) -> None:
    first, new = hub_repo.resolve("main"), b"new weights"
    hub_repo.tags["v1"] = first
    second = hub_repo.commit({WEIGHTS: new})
    hub_repo.commit({WEIGHTS: b"an experiment"}, branch="try/this")
    assert hub_client.download() == new
    assert hub_client.download(revision=first) == hub_client.download(revision="v1") == FILES[WEIGHTS]
    assert hub_client.download(revision="try/this") == b"an experiment"
    refs = hub_client.repo_cache / "refs"
    assert (refs / "main").read_text() == second and (refs / "v1").read_text() == first
    third = hub_repo.commit({WEIGHTS: b"newer weights"})
    assert hub_client.download() == b"newer weights"
    assert (refs / "main").read_text() == third


def test_force_download_fetches_again(hub, hub_repo, hub_client) -> None:
    hub_client.download()
    hub_client.blobs[0].write_bytes(b"spoilt")
    assert hub_client.download(force_download=True) == FILES[WEIGHTS]
    assert len(hub.requests("GET", WEIGHTS)) == 2


def test_snapshot(hub, hub_repo, hub_client) -> None:
    folder = Path(snapshot_download(REPO, allow_patterns=["*.safetensors", "*.json"]))
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    whole = Path(snapshot_download(REPO))
    assert {name: (whole / name).read_bytes() for name in FILES} == FILES
    assert len(hub.requests("GET", WEIGHTS)) == 1
    hub.log.clear()
    assert snapshot_download(REPO, revision=hub_repo.resolve("main")) == str(whole)
    assert hub.log == []


def test_what_the_hub_tells_about_a_repository(hub, hub_repo, hub_client) -> None:
    info = huggingface_hub.model_info(REPO, files_metadata=True)
    assert info.sha == hub_repo.resolve("main") and info.private is False
    assert {file.rfilename: file.lfs.sha256 for file in info.siblings if file.lfs} == {WEIGHTS: SHA256}
    assert sorted(huggingface_hub.list_repo_files(REPO)) == sorted([".gitattributes", *FILES])
    assert [entry.path for entry in HfApi().list_repo_tree(REPO)] == ["docs", ".gitattributes", WEIGHTS, CONFIG]
    assert [entry.path for entry in HfApi().list_repo_tree(REPO, "docs")] == ["docs/card.md"]
    (weights,) = huggingface_hub.get_paths_info(REPO, [WEIGHTS, "nothing"])
    assert (weights.size, weights.lfs.sha256) == (len(FILES[WEIGHTS]), SHA256)
    assert huggingface_hub.file_exists(REPO, CONFIG) and not huggingface_hub.file_exists(REPO, "nothing")


def test_what_is_not_there(hub, hub_repo, hub_client) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        hub_client.download("nothing.json")
    assert (hub_client.repo_cache / ".no_exist" / hub_repo.resolve("main") / "nothing.json").is_file()
    with pytest.raises(RevisionNotFoundError):
        hub_client.download(revision="nowhere")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("org/nothing", WEIGHTS)
    with pytest.raises(RepositoryNotFoundError):
        huggingface_hub.model_info("org/nothing")


def test_private_repository(hub, hub_repo, hub_client) -> None:
    hub_repo.private = True
    for token, status in ((False, 401), (STRANGER, 404)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            hub_client.download(token=token)
        assert caught.value.response.status_code == status
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
        hub_client.download(token="hf_wrong")
    assert type(caught.value) is HfHubHTTPError
    assert hub_client.download(token=READER) == FILES[WEIGHTS]


def test_gated_repository(hub, hub_repo, hub_client) -> None:
    hub_repo.gated = True
    for token, status in ((False, 401), (STRANGER, 403)):
        with pytest.raises(GatedRepoError) as caught:
            hub_client.download(token=token)
        assert caught.value.response.status_code == status
    assert huggingface_hub.model_info(REPO).gated == "auto"
    assert hub_client.download(token=READER) == FILES[WEIGHTS]


# ---------------------------------------------------------------------- uploads


def test_what_is_pushed_comes_back(hub, hub_repo, hub_client, tmp_path) -> None:
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


def test_commits(hub, hub_repo, hub_client) -> None:
    api, first = HfApi(token=OWNER), hub_repo.resolve("main")
    operations = [
        CommitOperationAdd("large.bin", b"\0" * 50),
        CommitOperationAdd("small.txt", b"text"),
        CommitOperationDelete("docs/", is_folder=True),
    ]
    second = api.create_commit(REPO, operations, commit_message="More", parent_commit=first).oid
    assert hub_repo.commits[second]["large.bin"].lfs and not hub_repo.commits[second]["small.txt"].lfs
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
    assert hub_client.download(revision=first) == FILES[WEIGHTS]


def test_known_content_is_not_sent_twice(hub, hub_repo, hub_client) -> None:
    api = HfApi(token=OWNER)
    for name in ("a.safetensors", "b.safetensors"):
        api.upload_file(path_or_fileobj=b"the same weights", path_in_repo=name, repo_id=REPO)
    assert len(hub.requests("PUT")) == 1
    assert hub_client.download("b.safetensors") == b"the same weights"


def test_branches_and_tags(hub, hub_repo, hub_client) -> None:
    api, first = HfApi(token=OWNER), hub_repo.resolve("main")
    api.create_branch(REPO, branch="next/one")
    api.create_tag(REPO, tag="v1")
    api.upload_file(path_or_fileobj=b"next", path_in_repo=WEIGHTS, repo_id=REPO, revision="next/one")
    assert hub_client.download() == hub_client.download(revision="v1") == FILES[WEIGHTS]
    assert hub_client.download(revision="next/one") == b"next"
    refs = api.list_repo_refs(REPO)
    assert {branch.name for branch in refs.branches} == {"main", "next/one"}
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first)]
    api.delete_repo(REPO)
    assert not api.repo_exists(REPO)


@pytest.mark.parametrize(("token", "status"), [(READER, 403), (STRANGER, 403), (False, 401)])
def test_only_the_owner_writes(hub, hub_repo, hub_client, token, status) -> None:
    before = hub_repo.resolve("main")
    for attempt in (
        lambda: HfApi(token=token).upload_file(path_or_fileobj=b"x", path_in_repo=WEIGHTS, repo_id=REPO),
        lambda: HfApi(token=token).create_repo("org/other"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            attempt()
        assert caught.value.response.status_code == status
    assert hub_repo.resolve("main") == before and "org/other" not in hub.repos


def test_failing_upload(hub, hub_repo, hub_client) -> None:
    hub.faults = [Fault("PUT", "/objects/", status=503)]
    HfApi(token=OWNER).upload_file(path_or_fileobj=b"once more", path_in_repo="a.safetensors", repo_id=REPO)
    assert hub_client.download("a.safetensors") == b"once more" and hub_client.sleeps == [1]
    before = hub_repo.resolve("main")
    hub.faults = [Fault("PUT", "/objects/", status=503, times=FOR_EVER)]
    with pytest.raises(RuntimeError, match=r"Error while uploading 'b\.safetensors'") as caught:
        HfApi(token=OWNER).upload_file(path_or_fileobj=b"never", path_in_repo="b.safetensors", repo_id=REPO)
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert hub_repo.resolve("main") == before


# ---------------------------------------------------------------------- the fixtures


def test_process_with_the_environment_of_the_fixture(hub, hub_repo, hub_process, tmp_path) -> None:
    hub_repo.private = True
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


def test_xet_is_used_only_for_uploads_and_only_unless_switched_off(hub, hub_repo, hub_process) -> None:
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
