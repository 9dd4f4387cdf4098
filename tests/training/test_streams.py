"""The DCG's streams one after the other, with encoders that start from trained ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import BRIEF, OnStep, tiny_model

import diffmiczoo
from diffmiczoo.training.plan import check_recipe
from diffmiczoo.training.presets import finetune_recipe, preset_recipe
from diffmiczoo.training.stages import create_stages, parameter_groups
from diffmiczoo.training.streams import start_from_trained, stream_loss

TRAINED = BRIEF.replace(encoder_start="trained", encoder_lr=1e-3, diffusion_epochs=1)


def trainable_names(model: diffmiczoo.DiffMICv2, stage: int) -> set[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, create_stages(TRAINED, model.config)[stage], TRAINED)
    return {names[parameter] for group in groups for parameter in group["params"]}


def test_each_stream_is_a_stage_and_all_of_the_dcg_learns_once() -> None:
    model = tiny_model()
    stages = create_stages(TRAINED, model.config)
    assert [(stage.name, stage.number, stage.is_final) for stage in stages] == [
        ("global", 0, False), ("local", 1, False), ("diffusion", 2, True)
    ]  # fmt: skip
    first, second = trainable_names(model, 0), trainable_names(model, 1)
    assert not first & second
    assert first | second == {name for name, _ in model.named_parameters() if name.startswith("dcg.")}
    groups = parameter_groups(model, stages[1], TRAINED)
    assert {group["lr"] for group in groups} == {TRAINED.dcg_lr, TRAINED.encoder_lr}
    alone = create_stages(TRAINED, model.config.replace(predictor="dcg"))
    assert [(stage.name, stage.is_final) for stage in alone] == [("global", False), ("local", True)]


def test_the_loss_of_a_stream_is_its_prior_s_cross_entropy() -> None:
    torch.manual_seed(0)
    model, images, labels = tiny_model().train(), torch.randn(4, 3, 64, 64), torch.eye(2)[[0, 1, 1, 0]]
    statistics = {name: buffer.clone() for name, buffer in model.dcg.global_encoder.named_buffers()}
    loss = stream_loss(model, "local", images, labels)
    loss.backward()
    assert all(parameter.grad is None for parameter in model.dcg.global_encoder.parameters())
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.dcg.global_encoder.named_buffers())
    assert model.dcg.training and model.dcg.local_classifier.weight.grad.abs().sum() > 0
    model.eval()
    with torch.no_grad():
        priors = model.priors(images)
        for stream, prior in (("global", priors.global_prior), ("local", priors.local_prior)):
            expected = torch.nn.functional.cross_entropy(prior, labels)
            torch.testing.assert_close(stream_loss(model, stream, images, labels), expected)


def test_encoders_start_from_those_of_the_same_architecture() -> None:
    model = tiny_model(roi_encoder="test_efficientnet", roi_out_index=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start_from_trained(model, "global")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    start_from_trained(model, "local")
    start_from_trained(model, "diffusion")
    trained, found = dict(model.dcg.global_encoder.state_dict()), dict(model.state_dict())
    for name, tensor in trained.items():
        assert torch.equal(found[f"dcg.local_encoder.{name}"], tensor)
        assert torch.equal(found[f"feature_prior.raw_encoder.{name}"], tensor)
    changed = {name for name, tensor in found.items() if not torch.equal(tensor, before[name])}
    assert changed and {name.split(".model")[0] for name in changed} == {
        "dcg.local_encoder",
        "feature_prior.raw_encoder",
    }


def test_an_encoder_with_more_stages_keeps_its_own_there() -> None:
    model = tiny_model(dcg_out_index=1)
    before = {name: tensor.clone() for name, tensor in model.dcg.local_encoder.state_dict().items()}
    start_from_trained(model, "local")
    trained = model.dcg.global_encoder.state_dict()
    assert trained.keys() < before.keys()
    for name, tensor in model.dcg.local_encoder.state_dict().items():
        assert torch.equal(tensor, trained.get(name, before[name]))


def test_a_run_stopped_in_the_local_stage_ends_like_an_unstopped_one(common_manifest, tmp_path: Path) -> None:
    def run(output: Path, *callbacks: OnStep) -> diffmiczoo.training.fit.TrainingResult:
        return diffmiczoo.fit(
            tiny_model(), common_manifest, recipe=TRAINED, output=output, progress=False, callbacks=callbacks,
            checkpoint_minutes=0,
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    assert [row["stage"] for row in whole.history] == ["global", "local", "diffusion"]
    assert all(row["best"] for row in whole.history) and whole.model.trained

    def stop(stage: str, epoch: int, batch: int) -> None:
        if (stage, batch) == ("local", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", OnStep(stop))
    parts = run(tmp_path / "parts")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name


def test_one_encoder_has_none_to_start_from(common_manifest) -> None:
    plan = diffmiczoo.training.plan.plan_run(tiny_model().config, common_manifest, None, seed=0)
    device, rank = torch.device("cpu"), diffmiczoo.training.distributed.Rank(0, 1)
    for config, recipe, message in (
        (tiny_model(predictor="global").config, TRAINED, "encoder_start='trained' is for encoders that learn after"),
        (tiny_model().config, TRAINED.replace(freeze="backbones"), "leave out one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            check_recipe(recipe, config, plan.train, rank, device)
    assert preset_recipe(tiny_model().config).encoder_start == "trained"
    assert preset_recipe(tiny_model(predictor="global").config).encoder_start == "given"
    assert finetune_recipe(tiny_model().config).encoder_start == "given"


def test_encoders_start_from_a_trunk_as_from_a_feature_map() -> None:
    model = tiny_model(dcg_trunk=True)
    trained = model.dcg.global_encoder.model
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    start_from_trained(model, "local")
    started = model.dcg.local_encoder.model.model.state_dict()
    assert started and all(torch.equal(trained.state_dict()[key], tensor) for key, tensor in started.items())
