"""Directories of weights: complete, strict, described by the weights themselves, and never half written."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from factories import small_model
from processes import ForkedProcess, load_within, outputs, save_in_turns
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub.checksums import sha256_of
from diffmiczoo.hub.serialization import build_without_memory, load_model, read_description
from diffmiczoo.model import DiffMICv2


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_model(trained=True).save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def rewrite(directory: Path, change) -> None:
    """Changes the tensors of a weights file and leaves its description as it is."""
    path = directory / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_loading_gives_the_tensors_of_the_file_and_touches_no_random_state(saved: Path, dtype: torch.dtype) -> None:
    state = torch.get_rng_state()
    model = load_model(saved, DiffMICv2, dtype=dtype)
    assert torch.equal(torch.get_rng_state(), state)
    stored = load_file(saved / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype)), name
        assert tensor.dtype == (dtype if tensor.is_floating_point() else torch.int64)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert all(parameter.requires_grad for parameter in model.parameters()) and not model.training


def test_a_loaded_model_answers_and_trains_like_the_saved_one(tmp_path: Path) -> None:
    model, images = small_model(trained=True), torch.randn(3, 3, 64, 64)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, DiffMICv2)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    before = sha256_of(tmp_path / "model.safetensors")
    optimizer = torch.optim.SGD(loaded.parameters(), lr=1.0)
    loaded.train().training_loss(images, torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    # The weights are mapped from the file; training must not write into it.
    assert sha256_of(tmp_path / "model.safetensors") == before
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path, DiffMICv2)(images), model(images))


def test_a_backbone_that_computes_buffers_is_built_with_memory(tmp_path: Path) -> None:
    config = small_model(trained=True).config.replace(
        raw_encoder="swin_tiny_patch4_window7_224", image_size=64, roi_size=32
    )
    model = DiffMICv2(config).eval()
    model.save_pretrained(tmp_path)
    assert not any(buffer.is_meta for buffer in build_without_memory(DiffMICv2, config).buffers())
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 64)
        assert torch.equal(load_model(tmp_path, DiffMICv2)(images), model(images))


def test_types_that_do_not_fit_are_listed(saved: Path) -> None:
    def change(tensors) -> None:
        tensors["feature_prior.Q"] = tensors["feature_prior.Q"].to(torch.int32)
        tensors["feature_prior.raw_norm.num_batches_tracked"] = torch.zeros(())

    rewrite(saved, change)
    with pytest.raises(ValueError, match="in 2 tensors") as caught:
        load_model(saved, DiffMICv2)
    assert "feature_prior.Q has type I32, expected BF16 or F16 or F32 or F64" in str(caught.value)
    assert "num_batches_tracked has type F32, expected I64" in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "weights.pt", "best.pth"])
def test_pickles_are_refused_by_name(saved: Path, name: str) -> None:
    (saved / "model.safetensors").rename(saved / name)
    with pytest.raises(ValueError, match=rf"holds {name} but no model\.safetensors: pickled weights can run code"):
        load_model(saved, DiffMICv2)


def test_the_weights_own_description_is_believed(saved: Path) -> None:
    path = saved / "config.json"
    description = json.loads(path.read_text())
    description["config"]["clip_sample"] = False
    path.write_text(json.dumps(description))
    with pytest.warns(
        UserWarning, match=r"differs from the description inside model\.safetensors in \['clip_sample'\]"
    ):
        model = load_model(saved, DiffMICv2)
    assert model.config.clip_sample


def test_weights_of_another_program_are_described_by_config_json_alone(saved: Path) -> None:
    save_file(load_file(saved / "model.safetensors"), saved / "model.safetensors")
    assert load_model(saved, DiffMICv2).trained
    description = json.loads((saved / "config.json").read_text())
    description["config"]["clip_sample"] = False
    (saved / "config.json").write_text(json.dumps(description))
    assert not load_model(saved, DiffMICv2).config.clip_sample


HOSTILE = [
    ({"latent_dim": 10**9}, "latent_dim=1000000000 is outside"),
    ({"num_classes": 10**9}, "num_classes=1000000000 is outside"),
    ({"num_classes": -1}, "num_classes=-1 is outside"),
    ({"num_rois": 10**6}, "num_rois=1000000 is outside"),
    ({"image_size": 10**6}, "image_size=1000000 is outside"),
    ({"num_samples": 1000, "num_classes": 100_000, "num_points": 64}, "409,600,000,000 random numbers"),
    ({"raw_encoder": "../../etc/passwd"}, "is not known to timm"),
    ({"raw_encoder": "hf-hub:evil/repo"}, "is not known to timm"),
    ({"raw_encoder": "local-dir:/tmp"}, "is not known to timm"),
    ({"dcg_encoder": "resnet18; rm -rf"}, "is not known to timm"),
    ({"latent_dim": 65_536}, "does not fit the model"),
    ({"roi_encoder": "resnet152"}, "does not fit the model"),
    ({"image_size": "224"}, "is not of type int"),
    ({"mean": [0.5]}, "has 1 values; expected 3"),
    ({"mean": [0.5, 0.5, float("nan")]}, "is not of type float"),
    ({"class_names": ["a", "b"]}, "class_names has 2 names"),
    ({"evil": 1}, r"unknown fields \['evil'\]"),
    ({"latent_dim": None}, "is not of type int"),
]


def describe_as(directory: Path, fields: dict, inside: bool) -> None:
    """Changes fields of the description, in config.json and either inside the weights too or not there at all."""
    path, config = directory / "model.safetensors", directory / "config.json"
    description = json.loads(config.read_text())
    description["config"] |= fields
    config.write_text(json.dumps(description))
    save_file(load_file(path), path, {"diffmiczoo": json.dumps(description)} if inside else None)


@pytest.mark.parametrize(("fields", "message"), HOSTILE)
@pytest.mark.parametrize("inside", [True, False])
def test_hostile_descriptions_are_refused(saved: Path, fields: dict, message: str, inside: bool) -> None:
    describe_as(saved, fields, inside)
    with pytest.raises(ValueError, match=message):
        load_model(saved, DiffMICv2)


def test_hostile_descriptions_are_refused_before_memory_is_taken(saved: Path, tmp_path: Path) -> None:
    hungry = [(fields, message) for fields, message in HOSTILE if "fit the model" in message or "random" in message]
    messages = [message for _, message in hungry for _ in range(2)]
    directories = []
    for fields, _ in hungry:
        for inside in (True, False):
            directories.append(shutil.copytree(saved, tmp_path / f"hostile{len(directories)}"))
            describe_as(directories[-1], fields, inside)
    (errors,) = outputs([ForkedProcess(load_within, directories, 300_000_000)])
    assert len(errors) == len(messages) == 6
    assert all(message in error for message, error in zip(messages, errors, strict=True))


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{" * 100_000, "\xff", '{"library": "diffmiczoo"}', " " * 2_000_000, "[" * 900_000]
)
def test_what_is_not_a_description(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"config\.json"):
        load_model(saved, DiffMICv2)


def test_a_save_that_is_killed_leaves_one_whole_model(tmp_path: Path) -> None:
    """Two models take turns in one directory while the saving process is killed at random moments."""
    target = tmp_path / "weights"
    first, second = small_model(trained=True, clip_sample=True), small_model(trained=True, clip_sample=False)
    with torch.no_grad():
        first.feature_prior.Q.fill_(1)
        second.feature_prior.Q.fill_(2)
    first.save_pretrained(target)
    first.save_pretrained(tmp_path / "first")
    second.save_pretrained(tmp_path / "second")
    moments = random.Random(0)
    for _ in range(4):
        process = ForkedProcess(save_in_turns, target, tmp_path / "first", tmp_path / "second")
        assert process.receive() == "ready"
        time.sleep(moments.uniform(0.01, 0.4))
        process.kill()
        process.wait()
        found = load_model_quietly(target)
        assert found.feature_prior.Q.unique().tolist() == [1.0 if found.config.clip_sample else 2.0]


def load_model_quietly(directory: Path) -> DiffMICv2:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(directory, DiffMICv2)


def test_config_json_is_what_the_weights_say(saved: Path) -> None:
    with safe_open(saved / "model.safetensors", "pt") as file:
        inside = json.loads(file.metadata()["diffmiczoo"])
    assert inside == json.loads((saved / "config.json").read_text()) == read_description(saved).to_dict()
    assert inside["version"] == diffmiczoo.__version__ and inside["library"] == "diffmiczoo"


@pytest.mark.parametrize("how", ["create_model", "from_pretrained"])
def test_a_load_opens_the_weights_and_parses_their_description_once(
    saved: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    from diffmiczoo.hub import serialization

    counts: Counter[str] = Counter()

    def counted(name: str, function):
        def call(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(serialization, "safe_open", counted("opened", serialization.safe_open))
    monkeypatch.setattr(serialization, "_parsed", counted("parsed", serialization._parsed))
    monkeypatch.setattr(DiffMICConfig, "from_dict", counted("validated", DiffMICConfig.from_dict))
    if how == "create_model":
        diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True, task="multiclass", sampling_steps=2)
    else:
        DiffMICv2.from_pretrained(saved, sampling_steps=2)
    # Parsed: config.json, and the copy inside the weights that it is compared with.
    assert counts == {"opened": 1, "parsed": 2, "validated": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "multilabel"}, "task='multilabel' contradicts the weights"),
        ({"num_classes": 4}, "num_classes=4 contradicts the weights"),
        ({"latent_dim": 16}, "has shape"),
    ],
)
def test_overrides_do_not_give_weights_another_meaning(saved: Path, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffMICv2.from_pretrained(saved, **fields)
    named = DiffMICv2.from_pretrained(saved, class_names=["a", "b", "c"])
    assert named.config.labels == ("a", "b", "c") and named.loaded_from == saved
    named.save_pretrained(saved)
    with pytest.raises(ValueError, match=r"class_names=.* contradicts the weights"):
        DiffMICv2.from_pretrained(saved, class_names=["c", "b", "a"])


def test_the_folder_of_a_run_is_told_from_its_weights(tmp_path) -> None:
    (tmp_path / "run" / "best").mkdir(parents=True)
    for name in ("checkpoint.pt", "best/config.json", "best/model.safetensors"):
        (tmp_path / "run" / name).write_bytes(b"{}")
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"is a training run; its weights are in .*best"):
        load_model(tmp_path / "run", DiffMICv2)


def test_loaded_tensors_lie_where_torch_would_place_them(saved: Path) -> None:
    """From other places some processors compute other last digits."""
    state = load_model(saved, DiffMICv2).state_dict()
    assert {tensor.data_ptr() % 64 for tensor in state.values()} == {0}
