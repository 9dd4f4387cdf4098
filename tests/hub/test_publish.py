"""Weights on their way to the Hub, over real HTTP on loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loopback.server import Account

import diffmiczoo
from diffmiczoo.hub.card import IncompleteCardError
from diffmiczoo.hub.client import HubError
from diffmiczoo.model import DiffMICv2

ROOT = str(Path(diffmiczoo.__file__).parents[1])


def test_push_and_pull_in_two_processes_give_the_same_predictions(hub, ready, hub_process, image_folder) -> None:
    hub.accounts["hf_owner"] = Account("org")
    picture = next(image_folder.rglob("*.png"))
    push = (
        "import diffmiczoo, sys\n"
        f"model = diffmiczoo.DiffMICv2.from_pretrained({str(ready)!r})\n"
        f"print(model.push_to_hub('org/pushed', {str(ready)!r}), file=sys.stderr)\n"
        f"print(model.predict({str(picture)!r}).scores.numpy().tobytes().hex())\n"
    )
    pull = (
        "import diffmiczoo\n"
        "model = diffmiczoo.create_model('hf-hub:org/pushed', pretrained=True)\n"
        f"print(model.predict({str(picture)!r}).scores.numpy().tobytes().hex())\n"
    )
    assert hub_process(push, HF_TOKEN="hf_owner", PYTHONPATH=ROOT) == hub_process(pull, PYTHONPATH=ROOT)
    files = hub.repos["org/pushed"].files("main") if hasattr(hub.repos["org/pushed"], "files") else None
    card = hub_process(
        "from huggingface_hub import hf_hub_download\nprint(open(hf_hub_download('org/pushed', 'README.md')).read())"
    )
    assert 'library_name: "diffmiczoo"' in card and 'create_model("hf-hub:org/pushed", pretrained=True)' in card
    assert "Nobody should use it." in card and "Not for clinical use" in card and "apache-2.0" in card
    assert files is None or "card.json" in files


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
    done = CliRunner().invoke(main, ["push", str(ready), "org/pushed", "--token", "hf_owner"])
    assert done.exit_code == 0 and 'create_model("hf-hub:org/pushed", pretrained=True)' in done.output, done.output
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
