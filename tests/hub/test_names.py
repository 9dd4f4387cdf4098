"""One parser for the names of models, whatever asks."""

from __future__ import annotations

from pathlib import Path

import pytest

import diffmiczoo
from diffmiczoo.errors import DiffMICError
from diffmiczoo.hub.names import ModelName, parse_directory_or_repository, parse_model_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("diffmicv2_nano.busi", ModelName("registered", "diffmicv2_nano.busi")),
        ("hf-hub:a/b", ModelName("hf-hub", "hf-hub:a/b", repository="a/b")),
        ("hf-hub:a/b@v1", ModelName("hf-hub", "hf-hub:a/b@v1", repository="a/b", revision="v1")),
        ("hf-hub:a/b@", ModelName("hf-hub", "hf-hub:a/b@", repository="a/b")),
        ("local-dir:/tmp/x:y", ModelName("local-dir", "local-dir:/tmp/x:y", path=Path("/tmp/x:y"))),
        ("local-dir:~/x", ModelName("local-dir", "local-dir:~/x", path=Path.home() / "x")),
    ],
)
def test_names_are_taken_apart(text: str, expected: ModelName) -> None:
    assert parse_model_name(text) == expected


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("hf_hub:a/b", "did you mean hf-hub:a/b?"),
        ("hub:a/b", "did you mean hf-hub:a/b?"),
        ("localdir:runs/best", "did you mean local-dir:runs/best?"),
        ("https://x.org/y", "or a registered name"),
    ],
)
def test_other_sources_are_refused_by_whatever_takes_a_name(wrong: str, hint: str) -> None:
    for function in (parse_model_name, diffmiczoo.create_model, diffmiczoo.model_info):
        with pytest.raises(ValueError, match=r"models are hf-hub:ORGANISATION/REPOSITORY, local-dir:PATH") as caught:
            function(wrong)
        assert hint in str(caught.value)


def test_a_revision_is_named_once() -> None:
    plain, pinned = parse_model_name("hf-hub:a/b"), parse_model_name("hf-hub:a/b@v1")
    assert plain.at(None) is plain and plain.at("v1").revision == "v1" and pinned.at("v1") is pinned
    with pytest.raises(ValueError, match="names a revision, and revision='v2' another one"):
        pinned.at("v2")
    with pytest.raises(ValueError, match="is no repository; leave revision='v1' out"):
        parse_model_name("local-dir:x").at("v1")


def test_from_pretrained_takes_directories_and_repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert parse_directory_or_repository("a/b").path == Path("a/b")  # a directory that exists goes first
    assert parse_directory_or_repository(tmp_path / "a").kind == "local-dir"
    assert parse_directory_or_repository("c/d@v1") == ModelName("hf-hub", "c/d@v1", repository="c/d", revision="v1")
    assert parse_directory_or_repository("hf-hub:c/d").repository == "c/d"
    assert parse_directory_or_repository("local-dir:nowhere").path == Path("nowhere")
    with pytest.raises(DiffMICError, match=r"registered names are built by diffmiczoo.create_model\('diffmicv2_nano'"):
        diffmiczoo.DiffMICv2.from_pretrained("diffmicv2_nano")
    with pytest.raises(FileNotFoundError, match="is not a directory"):
        diffmiczoo.DiffMICv2.from_pretrained("local-dir:nowhere")
