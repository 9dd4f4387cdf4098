"""Weights from the Hub, over real HTTP on loopback: the right model or one clear error."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loopback.faults import FOR_EVER, Fault, flipped, shortened
from loopback.fixtures import client_environment
from loopback.store import Account
from processes import ForkedProcess, load_from_hub, outputs, weights_sum

import diffmiczoo
from diffmiczoo.hub import checksums
from diffmiczoo.hub.checksums import FileHash, sha256_of
from diffmiczoo.hub.errors import HubError
from diffmiczoo.hub.names import parse_model_name
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo import registry
from diffmiczoo.zoo import weights as table

ENTRY, REPOSITORY = "diffmicv2_nano.pmg2000", "mirror/diffmicv2_nano.pmg2000"  # known, not shipped


WEIGHTS = "model.safetensors"


ROOT = str(Path(diffmiczoo.__file__).parents[1])


@pytest.fixture
def published(hub, hub_client, saved: Path, monkeypatch: pytest.MonkeyPatch):
    """An entry of the table whose weights are on the Hub of an organisation that the environment names."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("DIFFMICZOO_HUB_ORG", "mirror")
    contents = {path.name: path.read_bytes() for path in saved.iterdir()}
    repo = hub.create_repo(REPOSITORY, contents)
    files = {name: FileHash(sha256_of(saved / name), len(content)) for name, content in contents.items()}
    entry = replace(table.WEIGHTS[ENTRY], files=files, revision=repo.branches["main"])
    monkeypatch.setitem(table.WEIGHTS, ENTRY, entry)
    return repo


def load(**options) -> DiffMICv2:
    return diffmiczoo.create_model(ENTRY, pretrained=True, **options)


def assert_right(model: DiffMICv2, saved: Path) -> None:
    expected = diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert model.trained and not model.training


def blobs(hub_client) -> list[Path]:
    return sorted(hub_client.cache.glob("models--mirror--*/blobs/*"))


def test_published_weights_are_fetched_once(hub, hub_client, published, saved: Path) -> None:
    assert ENTRY in diffmiczoo.list_models(pretrained=True)
    assert diffmiczoo.model_info(ENTRY).weights == "on the Hub"
    assert_right(load(), saved)
    asked = len(hub.log)
    assert_right(load(), saved)
    assert len(hub.log) == asked, "a pinned commit in the cache needs no request"
    assert_right(load(local_files_only=True), saved)


def test_a_second_load_does_not_read_the_file_for_its_hash(published, saved, monkeypatch) -> None:
    load()
    monkeypatch.setattr(checksums, "sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    assert_right(load(), saved)


def test_by_repository_name_and_revision(hub, published, saved: Path) -> None:
    first = published.branches["main"]
    published.commit({WEIGHTS: b"broken"})
    for name in (f"hf-hub:{REPOSITORY}@{first}", f"hf-hub:{REPOSITORY}"):
        if name.endswith(first):
            assert_right(diffmiczoo.create_model(name, pretrained=True), saved)
        else:
            with pytest.raises(ValueError, match="not a safetensors file, or cut short"):
                diffmiczoo.create_model(name, pretrained=True)
    assert_right(DiffMICv2.from_pretrained(REPOSITORY, revision=first), saved)
    assert_right(load(), saved)
    with pytest.raises(ValueError, match="names a revision, and revision='main' another one"):
        diffmiczoo.create_model(f"hf-hub:{REPOSITORY}@{first}", pretrained=True, revision="main")


def test_both_files_come_from_one_commit_when_a_branch_moves(hub, published, saved: Path, monkeypatch) -> None:
    import huggingface_hub

    download = huggingface_hub.hf_hub_download

    def moving(repository: str, filename: str, **options):
        path = download(repository, filename, **options)
        published.commit({WEIGHTS: b"other weights", "config.json": b"{}"})
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", moving)
    assert_right(diffmiczoo.create_model(f"hf-hub:{REPOSITORY}", pretrained=True), saved)


@pytest.mark.parametrize("name", ["hf-hub:repo", "hf-hub:a/b/c", "hf-hub:/b", "hf-hub:../b", "hf-hub:a/..", "hf-hub:"])
def test_names_that_are_not_repositories(name: str) -> None:
    with pytest.raises(ValueError, match="expected hf-hub:ORGANISATION/REPOSITORY"):
        parse_model_name(name)


def test_unpublished_weights_say_so(hub, hub_client) -> None:
    with pytest.raises(ValueError, match="has no published weights") as caught:
        diffmiczoo.create_model("diffmicv2_resnet18.ham10000", pretrained=True)
    assert "diffmicv2_nano.ham10000" in str(caught.value) and "diffmiczoo fit --model" in str(caught.value)
    assert hub.log == []


def test_shipped_weights_ask_no_network(hub, hub_client) -> None:
    assert diffmiczoo.create_model("diffmicv2_ham10000", pretrained=True).trained
    assert hub.log == []
    with pytest.raises(ValueError, match="ships with the package and has no other revision"):
        diffmiczoo.create_model("diffmicv2_ham10000", pretrained=True, revision="main")


def test_another_cache_directory(published, saved: Path, hub_client, tmp_path: Path) -> None:
    assert_right(load(cache_dir=tmp_path / "mine"), saved)
    assert (tmp_path / "mine").is_dir() and not blobs(hub_client)
    assert_right(load(cache_dir=str(tmp_path / "mine"), local_files_only=True), saved)


def test_private_repositories_need_a_token(hub, published, saved: Path, monkeypatch) -> None:
    hub.accounts["hf_me"] = Account("me", "read")
    published.private = True
    published.readers.add("me")
    with pytest.raises(HubError, match="does not exist, or is private: pass token= or set HF_TOKEN"):
        load()
    assert_right(load(token="hf_me"), saved)


def test_gated_repositories_say_how_to_get_in(hub, published) -> None:
    published.gated = True
    with pytest.raises(HubError, match="is gated: accept its terms"):
        load()


@pytest.mark.parametrize("change", [flipped, shortened, lambda content: b""])
def test_a_spoilt_cache_is_noticed_moved_aside_and_repaired(published, saved, hub, hub_client, change) -> None:
    load()
    blob = next(path for path in blobs(hub_client) if path.name == published_sha(published))
    blob.write_bytes(change(blob.read_bytes()))
    os.utime(blob, ns=(0, blob.stat().st_mtime_ns + 1))
    with pytest.warns(UserWarning, match=r"expected .*It was moved to .*\.wrong and is fetched once more"):
        assert_right(load(), saved)
    assert blob.with_name(blob.name + ".wrong").is_file()
    asked = len(hub.log)
    assert_right(load(), saved)
    assert len(hub.log) == asked


def published_sha(repo) -> str:
    return table.WEIGHTS[ENTRY].files[WEIGHTS].sha256


def test_a_spoilt_cache_without_a_network_is_an_error(published, hub, hub_client) -> None:
    load()
    for blob in blobs(hub_client):
        blob.write_bytes(flipped(blob.read_bytes()))
        os.utime(blob, ns=(0, blob.stat().st_mtime_ns + 1))
    with pytest.warns(UserWarning, match="fetched once more"), pytest.raises(HubError, match="is not in the cache"):
        load(local_files_only=True)


@pytest.mark.parametrize("filename", [WEIGHTS, "config.json"])
def test_wrong_bytes_of_the_right_size_from_the_network(published, saved, hub, hub_client, filename: str) -> None:
    path = filename if filename == "config.json" else published_sha(published)
    hub.faults = [Fault("GET", path, change=flipped)]
    with pytest.warns(UserWarning, match="fetched once more"):
        assert_right(load(), saved)
    shutil.rmtree(hub_client.cache)
    hub.faults = [Fault("GET", path, times=FOR_EVER, change=flipped)]
    with pytest.warns(UserWarning, match="once more"), pytest.raises(HubError, match="also after it was fetched again"):
        load()
    hub.faults = []
    assert_right(load(), saved)


def test_without_a_table_the_hubs_own_hashes_are_compared(published, saved, hub, hub_client) -> None:
    name = f"hf-hub:{REPOSITORY}"
    hub.faults = [Fault("GET", published_sha(published), change=flipped), Fault("GET", "config.json", change=flipped)]
    with pytest.warns(UserWarning, match="fetched once more"):
        assert_right(diffmiczoo.create_model(name, pretrained=True), saved)


def test_a_repository_that_changed_under_its_commit_is_refused(published, saved, hub, monkeypatch) -> None:
    entry = table.WEIGHTS[ENTRY]
    other = {**entry.files, WEIGHTS: FileHash("0" * 64, entry.files[WEIGHTS].size)}
    monkeypatch.setitem(table.WEIGHTS, ENTRY, replace(entry, files=other))
    with pytest.warns(UserWarning, match="once more"), pytest.raises(HubError, match="it was not used"):
        load()


RECOVERS = {
    "503 for the metadata": Fault("HEAD", WEIGHTS, status=503),
    "503 for the file": Fault("GET", WEIGHTS, status=503),
    "429 for the file": Fault("GET", WEIGHTS, status=429, headers={"Retry-After": "1"}),
    "reset": Fault("GET", WEIGHTS, cut_after=0, reset=True),
    "closed": Fault("GET", WEIGHTS, cut_after=0),
    "cut in the file": Fault("GET", WEIGHTS, cut_after=1000),
    "no range": Fault("GET", WEIGHTS, times=2, cut_after=1000, ignore_range=True),
    "metadata reset": Fault("HEAD", WEIGHTS, cut_after=0, reset=True),
    "metadata closed": Fault("HEAD", WEIGHTS, cut_after=0),
}


@pytest.mark.parametrize("case", RECOVERS)
def test_what_fails_once_is_overcome(case: str, published, saved, hub) -> None:
    hub.faults = [replace(RECOVERS[case])]
    assert_right(load(), saved)


LASTING = {
    "404 repository": (
        Fault("HEAD", "", status=404, headers={"X-Error-Code": "RepoNotFound"}),
        "does not exist, or is",
    ),
    "404 revision": (Fault("HEAD", "", status=404, headers={"X-Error-Code": "RevisionNotFound"}), "no such revision"),
    "404 file": (Fault("HEAD", WEIGHTS, status=404, headers={"X-Error-Code": "EntryNotFound"}), "holds no model.safe"),
    "401": (Fault("HEAD", "", status=401), "answered 401 .*check the token"),
    "503": (Fault("GET", WEIGHTS, status=503), "answered 503 .*try again later"),
    "429": (Fault("GET", WEIGHTS, status=429), "answered 429 .*try again later"),
    "503 for the metadata": (Fault("HEAD", WEIGHTS, status=503), "is not in the cache .*does not answer as one"),
    "captive portal": (Fault("HEAD", "", without=("X-Repo-Commit",)), "is not in the cache .*does not answer as one"),
    "endless redirect": (
        Fault("HEAD", "", status=302, headers={"Location": "/here"}),
        "cannot be reached|answered|cache",
    ),
    "reset": (Fault("GET", WEIGHTS, cut_after=0, reset=True), "cannot be reached for model"),
    "closed": (Fault("GET", WEIGHTS, cut_after=0), "cannot be reached for model"),
    "wrong size": (Fault("GET", WEIGHTS, change=shortened), "could not be stored in the cache|cannot be reached"),
}


@pytest.mark.parametrize("case", LASTING)
def test_what_fails_for_good_is_one_clear_error_and_the_cache_stays_usable(case, published, saved, hub) -> None:
    fault, message = LASTING[case]
    hub.faults = [replace(fault, times=FOR_EVER)]
    with pytest.raises(HubError, match=message) as caught:
        load()
    assert REPOSITORY in str(caught.value)
    hub.faults = []
    assert_right(load(), saved)


def test_a_full_disk(published, saved, monkeypatch) -> None:
    import errno

    from huggingface_hub import file_download

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", full)
        with pytest.raises(HubError, match=r"could not be stored in the cache: .*No space left on device"):
            load()
    assert_right(load(), saved)


def test_a_cache_that_is_not_a_directory(published, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(HubError, match=r"could not be stored in the cache|cannot be"):
        load(cache_dir=tmp_path / "occupied" / "cache")


def test_offline_without_a_cache(published, hub) -> None:
    with pytest.raises(HubError, match=r"is not in the cache .*the network was not asked.*local-dir:PATH"):
        load(local_files_only=True)
    assert hub.log == []


def test_offline_from_a_copied_folder(published, saved: Path, hub, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "stick")
    assert_right(diffmiczoo.create_model(f"local-dir:{tmp_path / 'stick'}", pretrained=True), saved)
    assert hub.log == []


def test_four_processes_at_once(hub, published, saved: Path, tmp_path: Path) -> None:
    environment = client_environment(hub, tmp_path / "hf-home")
    sums = outputs([ForkedProcess(load_from_hub, environment, REPOSITORY) for _ in range(4)])
    assert sums == [[weights_sum(DiffMICv2.from_pretrained(saved))]] * 4


def test_the_registry_names_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table.WEIGHTS[ENTRY].repository == f"diffmiczoo/{ENTRY}"
    monkeypatch.setenv("DIFFMICZOO_HUB_ORG", "hospital")
    assert table.WEIGHTS[ENTRY].repository == f"hospital/{ENTRY}" and registry.resolve(ENTRY)[1] is table.WEIGHTS[ENTRY]
