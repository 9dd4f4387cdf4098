"""Weights on their way to the Hub, over real HTTP on loopback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from loopback.fixtures import client_environment
from loopback.store import Account
from processes import ForkedProcess, outputs, predict_from_hub

import diffmiczoo
from diffmiczoo.hub.card_facts import IncompleteCardError
from diffmiczoo.hub.checksums import sha256_of
from diffmiczoo.hub.errors import HubError
from diffmiczoo.model import DiffMICv2


def test_push_and_pull_in_two_processes_give_the_same_predictions(hub, ready, image_folder, tmp_path) -> None:
    hub.accounts["hf_owner"] = Account("org")
    picture = next(image_folder.rglob("*.png"))
    here, there = (client_environment(hub, tmp_path / name) for name in ("here", "there"))
    here["HF_TOKEN"] = "hf_owner"
    (pushed,) = outputs([ForkedProcess(predict_from_hub, here, "org/pushed", picture, ready)])
    (pulled,) = outputs([ForkedProcess(predict_from_hub, there, "org/pushed", picture, None)])
    assert pushed == pulled and len(pushed[0]) == 4 * 4  # four classes in single precision
    repo = hub.repos["org/pushed"]
    card = repo.file("main", "README.md")[1].content.decode()
    assert "library_name: diffmiczoo" in card and 'create_model("hf-hub:org/pushed", pretrained=True)' in card
    assert "Nobody should use it." in card and "Not for clinical use" in card and "apache-2.0" in card
    assert repo.file("main", "card.json")[1].content
    assert "Full text: https://www.apache.org" in repo.file("main", "LICENSE")[1].content.decode()
    assert "items reported" in repo.file("main", "CHECKLIST.md")[1].content.decode()


@pytest.mark.parametrize("field", ["license", "data_license", "training_data", "split", "intended_use", "limits"])
def test_a_card_without_what_others_need_is_refused(ready: Path, hub, hub_client, field: str) -> None:
    card = json.loads((ready / "card.json").read_text())
    card[field] = "" if field != "limits" else []
    (ready / "card.json").write_text(json.dumps(card))
    with pytest.raises(IncompleteCardError, match=f"card.json: '{field}' is missing or empty"):
        DiffMICv2.from_pretrained(ready).push_to_hub("org/pushed", ready)
    assert hub.log == []


def test_the_command_line_publishes_or_says_what_is_missing(ready: Path, hub, hub_client) -> None:
    from click.testing import CliRunner

    from diffmiczoo.cli import main

    hub.accounts["hf_owner"] = Account("org")
    (ready / "LICENSE").write_text("Ours.")
    done = CliRunner().invoke(main, ["push", str(ready), "org/pushed", "--token", "hf_owner"])
    assert done.exit_code == 0 and 'create_model("hf-hub:org/pushed", pretrained=True)' in done.output, done.output
    assert hub.repos["org/pushed"].file("main", "LICENSE")[1].content == b"Ours."
    (ready / "card.json").unlink()
    done = CliRunner().invoke(main, ["push", str(ready), "org/pushed", "--token", "hf_owner"])
    assert done.exit_code == 2 and "'license' is missing" in done.output


def test_pushing_without_the_right_to(ready: Path, hub, hub_client) -> None:
    model = DiffMICv2.from_pretrained(ready)
    with pytest.raises(HubError, match=r"answered 401|is private"):
        model.push_to_hub("org/pushed", ready, token="hf_nobody")
    model.trained = False
    with pytest.raises(ValueError, match="was not trained; there is nothing to publish"):
        model.push_to_hub("org/pushed", ready)


def test_the_card_beside_the_weights_is_taken_as_it_is(hub, ready: Path, hub_client, monkeypatch) -> None:
    """`push_to_hub(repo)` as the fixed contract has it, over HTTP, private and with a message."""
    hub.accounts["hf_owner"] = Account("org")
    DiffMICv2.from_pretrained(ready).save_pretrained(ready, dtype=torch.float16)
    model = diffmiczoo.create_model(f"local-dir:{ready}", pretrained=True)
    address = model.push_to_hub("org/pushed", private=True, token="hf_owner", commit_message="First weights")
    assert "org/pushed/commit/" in address and hub.repos["org/pushed"].private
    with pytest.raises(HubError, match="is private"):
        DiffMICv2.from_pretrained("org/pushed")
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    pulled = DiffMICv2.from_pretrained("org/pushed")
    assert all(torch.equal(tensor, pulled.state_dict()[name]) for name, tensor in model.state_dict().items())
    # What was loaded is what is published, float16 as it was.
    assert sha256_of(pulled.loaded_from / "model.safetensors") == sha256_of(ready / "model.safetensors")


def test_weights_that_ship_can_be_pushed_with_their_own_card(hub, hub_client) -> None:
    from huggingface_hub import hf_hub_download

    hub.accounts["hf_owner"] = Account("org")
    diffmiczoo.create_model("diffmicv2_busi", pretrained=True).push_to_hub("org/busi", token="hf_owner")
    card = Path(hf_hub_download("org/busi", "README.md")).read_text()
    assert 'create_model("hf-hub:org/busi", pretrained=True)' in card and "Al-Dhabyani" in card


def test_without_facts_what_is_missing_is_listed_and_how_to_give_it(hub, hub_client, saved: Path, tmp_path) -> None:
    loaded = DiffMICv2.from_pretrained(saved)
    built = DiffMICv2(loaded.config)
    built.trained = True
    shutil.copytree(saved, tmp_path / "gone")
    gone = DiffMICv2.from_pretrained(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    for model, words in (
        (loaded, "says too little for a card"),
        (built, "was not loaded from a directory"),
        (gone, "is gone"),
    ):
        with pytest.raises(IncompleteCardError, match=words) as caught:
            model.push_to_hub("org/pushed")
        assert isinstance(caught.value, diffmiczoo.DiffMICError)
        for part in ("'license' is missing", "metrics.json: the metrics", "push_to_hub(repo_id, facts=DIRECTORY)"):
            assert part in str(caught.value)
    assert hub.log == []


def test_a_card_is_not_published_with_other_weights(hub, hub_client, ready: Path) -> None:
    def trained_on(model: DiffMICv2) -> None:
        with torch.no_grad():
            model.feature_prior.Q.add_(1)

    def sampled_otherwise(model: DiffMICv2) -> None:
        model.config = model.config.replace(sampling_steps=2)

    for change in (trained_on, sampled_otherwise):
        model = DiffMICv2.from_pretrained(ready)
        change(model)
        with pytest.raises(ValueError, match=r"was changed since it was loaded .*facts=DIRECTORY"):
            model.push_to_hub("org/pushed")
    assert hub.log == []
