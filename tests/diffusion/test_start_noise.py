"""The start noise is part of the weights: a generator that draws otherwise changes no answer, or loading fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from factories import small_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffmiczoo.diffusion import sampling, start_noise
from diffmiczoo.diffusion.start_noise import StartNoise
from diffmiczoo.hub.serialization import load_model
from diffmiczoo.model import DiffMICv2

KEY = "diffmiczoo.start_noise"
IMAGES = [torch.full((3, 64, 64), value) for value in (0.2, 0.7)]


@pytest.fixture
def other_generator(monkeypatch):
    """Returns what lets torch draw other numbers from the same seeds, as another version of it may."""

    def patch() -> None:
        def other(seed: int) -> torch.Generator:
            return torch.Generator("cpu").manual_seed(seed + 1000)

        monkeypatch.setattr(sampling, "seeded_generator", other)
        monkeypatch.setattr(start_noise, "seeded_generator", other)
        monkeypatch.setattr("diffmiczoo.model.seeded_generator", other)

    return patch


def rewritten(directory: Path, change) -> None:
    path = directory / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    change(metadata)
    save_file(load_file(path), path, metadata)


@pytest.mark.parametrize(
    "fields", [{"num_samples": 3, "sampler": "ancestral"}, {"init": "interpolated"}, {"shared_noise": True}]
)
def test_another_generator_changes_no_answer_of_stored_weights(tmp_path, other_generator, fields):
    model = small_model(trained=True, **fields)
    expected = model.predict(IMAGES).scores
    model.save_pretrained(tmp_path)
    other_generator()
    loaded = load_model(tmp_path, DiffMICv2)
    assert torch.equal(loaded.predict(IMAGES).scores, expected)
    assert torch.equal(loaded.default_noise, model.default_noise)
    assert loaded.own_noise() is loaded.start_noise  # what is saved again are the same numbers


def test_weights_without_it_follow_the_generator(tmp_path, other_generator):
    model = small_model(trained=True)
    model.save_pretrained(tmp_path)
    rewritten(tmp_path, lambda metadata: metadata.pop(KEY))
    assert torch.equal(load_model(tmp_path, DiffMICv2).default_noise, model.default_noise)
    other_generator()
    assert not torch.equal(load_model(tmp_path, DiffMICv2).predict(IMAGES).scores, model.predict(IMAGES).scores)


def test_noise_that_is_too_much_leaves_its_digest_and_loading_fails_where_another_is_drawn(
    tmp_path, other_generator, monkeypatch
):
    monkeypatch.setattr(start_noise, "MOST_STORED", 8)
    model = small_model(trained=True)
    model.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path, DiffMICv2).default_noise, model.default_noise)
    other_generator()
    with pytest.raises(ValueError, match=rf"draws another start noise .* load them with torch {torch.__version__[:4]}"):
        load_model(tmp_path, DiffMICv2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(numbers="AAAA" + values["numbers"][4:]), "expected .*; the file was changed"),
        (lambda values: values.update(numbers="%"), "start noise of the weights cannot be read"),
        (lambda values: values.update(shape=[1, 2]), "start noise of the weights cannot be read"),
        (lambda values: values.pop("kind"), "expected an object with the fields"),
    ],
)
def test_broken_noise_is_refused(tmp_path, change, message):
    small_model(trained=True).save_pretrained(tmp_path)

    def broken(metadata):
        values = json.loads(metadata[KEY])
        change(values)
        metadata[KEY] = json.dumps(values)

    rewritten(tmp_path, broken)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, DiffMICv2)


def test_other_runs_than_the_stored_ones_are_drawn(tmp_path):
    small_model(trained=True).save_pretrained(tmp_path)
    loaded = load_model(tmp_path, DiffMICv2, {"num_samples": 2})
    assert torch.equal(loaded.default_noise, small_model(num_samples=2).default_noise)


def test_the_text_holds_the_numbers_to_the_last_bit():
    model = small_model(sampler="ancestral")
    noise = StartNoise.from_text(StartNoise.of(model.config, model.sampler).to_text()).noise
    assert torch.equal(noise.initial[:, 0], model.default_noise)
    assert torch.equal(noise.step_noise, model.default_step_noise)
