"""What weights are released from: the model and the plain classifier see the same pictures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from diffmiczoo.cli.common import assignments
from diffmiczoo.training.budget import budget_of
from diffmiczoo.training.presets import preset_recipe
from diffmiczoo.zoo.complexity import count_parameters
from diffmiczoo.zoo.factory import get_config

PATH = Path(__file__).resolve().parents[2] / "tools" / "train_release.py"
spec = importlib.util.spec_from_file_location("train_release", PATH)
tool = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = tool  # dataclasses look there
spec.loader.exec_module(tool)

LARGEST = {"diffmicv2_nano": 5_000_000, "diffmicv2_small": 8_000_000}


def parsed(arguments: list[str], option: str) -> dict:
    return assignments(each.split("=", 1)[1] for each in arguments if each.startswith(f"--{option}="))


@pytest.mark.parametrize("entry", sorted(tool.RELEASES))
def test_model_and_its_opponents_have_the_same_budget(entry: str, tmp_path: Path) -> None:
    budgets, configs = [], []
    for kind in ("model", "global", "plain"):
        arguments = tool.command(entry, tool.RELEASES[entry], tmp_path, tmp_path / "runs", 1, kind)
        name = arguments[arguments.index("--model") + 1]
        config = (
            get_config(name)
            .uncalibrated()
            .replace(num_classes=5, class_names=(), thresholds=(), **parsed(arguments, "config"))
        )
        recipe = preset_recipe(config, 2000).replace(**parsed(arguments, "set"))
        budgets.append(budget_of(recipe, config, 2000))
        configs.append(config)
        assert recipe.seed == 1 and f".s{recipe.seed}" in arguments[arguments.index("--output") + 1]
    model, stream, plain = configs
    assert stream.predictor == "global" and stream.dcg_out_index == model.dcg_out_index
    assert plain.ordinal == get_config(entry).ordinal
    assert arguments[arguments.index("--class-names") + 1] == ",".join(get_config(entry).class_names) != ""
    assert len({(budget.pictures, budget.steps) for budget in budgets}) == 1
    assert (model.image_size, model.crop_mode) == (plain.image_size, plain.crop_mode)
    assert count_parameters(model)["total"] <= LARGEST[entry.split(".")[0]]


@pytest.mark.parametrize("entry", sorted(tool.RELEASES))
def test_the_short_opponent_is_the_plain_one_for_as_long_as_one_stream(entry: str, tmp_path: Path) -> None:
    release = tool.RELEASES[entry]
    plain, short = (tool.command(entry, release, tmp_path, tmp_path / "runs", 1, kind) for kind in ("plain", "short"))
    differing = [(mine, theirs) for mine, theirs in zip(short, plain, strict=True) if mine != theirs]
    assert [mine for mine, _ in differing][1:] == [f"--set=dcg_epochs={release.epochs[0]}"]
    assert differing[0][0].endswith(f"{entry}.short.s1")
