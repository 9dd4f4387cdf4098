"""Smaller pictures in the first two thirds of the DCG's epochs."""

from __future__ import annotations

import pytest
import torch
from factories import QUICK, tiny_model

from diffmiczoo.data.readers import read_manifest
from diffmiczoo.training.distributed import Processes, Rank
from diffmiczoo.training.optimization import Optimization
from diffmiczoo.training.plan import check_recipe
from diffmiczoo.training.progressive import check_start_size, seen_small, start_size
from diffmiczoo.training.stages import create_stages, trainable

SMALL = QUICK.replace(start_size=48)


@pytest.mark.parametrize(("epochs", "small"), [(1, 0), (2, 1), (3, 2), (12, 8), (30, 20)])
def test_the_last_third_has_the_full_size(epochs: int, small: int) -> None:
    stages = create_stages(SMALL.replace(dcg_epochs=epochs, diffusion_epochs=epochs), tiny_model().config)
    sizes = [[start_size(SMALL, stage, epoch) for epoch in range(epochs)] for stage in stages]
    assert sizes == [[48] * small + [None] * (epochs - small), [None] * epochs]
    assert start_size(QUICK, stages[0], 0) is None


def test_the_global_stream_sees_less_and_rois_have_the_same_pixels() -> None:
    model = tiny_model(num_rois=4).eval()
    images, seen, config = torch.randn(2, 3, 64, 64), [], model.config
    hook = model.dcg.global_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    noise = model.default_noise
    with torch.no_grad():
        full = model.priors(images)
        with seen_small(model, 48):
            small = model.priors(images)
    hook.remove()
    assert seen == [64, 48] and model.config is config and model.default_noise is noise
    for priors in (full, small):
        assert priors.rois.shape == (2, 4, 3, 32, 32)
        for image in range(2):
            for place, roi in zip(priors.roi_top_left[image].tolist(), priors.rois[image], strict=True):
                cut = images[image, :, place[0] : place[0] + 32, place[1] : place[1] + 32]
                assert torch.equal(roi, cut)


def test_steps_are_at_the_size_of_their_epoch() -> None:
    model, recipe, seen = tiny_model(), SMALL.replace(dcg_epochs=3), []
    stage = create_stages(recipe, model.config)[0]
    model.dcg.global_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    with trainable(model, stage, recipe):
        optimization = Optimization(model, stage, recipe, torch.tensor([0, 1]), 1, Processes(torch.device("cpu")))
        for epoch in range(3):
            optimization.training_step(torch.randn(2, 3, 64, 64), torch.tensor([0, 1]), epoch, 0)
    assert seen == [48, 48, 64] and model.config.image_size == 64 and model.config.roi_source_size is None


def test_what_cannot_be_is_refused(common_manifest) -> None:
    check_start_size(tiny_model(), SMALL)
    check_start_size(tiny_model(dcg_encoder="efficientsam_ti"), QUICK)
    with pytest.raises(ValueError, match="start_size=64 is to be smaller than the model's image_size=64"):
        check_start_size(tiny_model(), QUICK.replace(start_size=64))
    with pytest.raises(ValueError, match="start_size=48: the encoder 'efficientsam_ti' does not take"):
        check_start_size(tiny_model(dcg_encoder="efficientsam_ti"), SMALL)
    with pytest.raises(ValueError, match="patience=2 may end before them"):
        manifest, device = read_manifest(common_manifest), torch.device("cpu")
        check_recipe(SMALL.replace(patience=2), tiny_model().config, manifest, Rank(0, 1), device)
