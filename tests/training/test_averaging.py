"""The mean of several runs' weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import tiny_model

from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.averaging import average_weights
from diffmiczoo.trust.stored import Trust

NAMES = ("dark", "light")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two models whose weights differ by little."""
    directory, model = tmp_path_factory.mktemp("runs"), tiny_model(class_names=NAMES)
    model.config = model.config.replace(temperature=2.0)
    model.trained = True
    states = []
    for name, sign in (("a", 1), ("b", -1)):
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(sign * 0.01 * torch.rand_like(parameter))
        states.append({key: tensor.clone() for key, tensor in model.state_dict().items()})
        model.trust = Trust({})
        model.save_pretrained(directory / name)
    return [directory / "a", directory / "b"], states


def test_weights_are_the_mean_and_statistics_are_new(runs, common_manifest) -> None:
    paths, (first, second) = runs
    model = average_weights(paths, common_manifest, batch_size=8, progress=False)
    found = model.state_dict()
    statistics = [key for key in found if key.endswith(("running_mean", "running_var"))]
    for key, tensor in found.items():
        if tensor.is_floating_point() and key not in statistics:
            torch.testing.assert_close(tensor, (first[key] + second[key]) / 2, msg=key)
    assert statistics and all(not torch.equal(found[key], first[key]) for key in statistics)
    assert model.trust is None
    assert model.config.temperature is None and model.trained and not any(m.training for m in model.modules())
    assert all(m.momentum is not None for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_statistics_are_those_of_the_training_images(runs, common_manifest) -> None:
    paths, _ = runs
    manifest = read_manifest(common_manifest).split("train")
    model = average_weights(paths, common_manifest, batch_size=len(manifest), progress=False)
    conv, norm = model.dcg.global_encoder.model.model.conv1[0], model.dcg.global_encoder.model.model.conv1[1]
    images = torch.stack([ImageDataset(manifest, model.config, progress=False)[i][0] for i in range(len(manifest))])
    with torch.no_grad():
        values = conv(images)
    torch.testing.assert_close(norm.running_mean, values.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, values.var((0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_one_run_or_other_classes_are_refused(runs, common_manifest, tmp_path) -> None:
    paths, _ = runs
    with pytest.raises(ValueError, match="found 1 source; a mean needs a list with the weights of at least two runs"):
        average_weights(paths[:1], common_manifest)
    tiny_model(class_names=("light", "dark")).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"other has the classes \('light', 'dark'\)"):
        average_weights([paths[0], tmp_path / "other"], common_manifest)
    with pytest.raises(ValueError, match="found 1 source"):
        average_weights(str(paths[0]), common_manifest)
    with pytest.raises(ValueError, match="batch_size=1 must be at least 2"):
        average_weights(paths, common_manifest, batch_size=1)
    tiny_model(class_names=NAMES).save_pretrained(tmp_path / "untrained")
    with pytest.raises(ValueError, match="untrained: its last stage was never trained"):
        average_weights([paths[0], tmp_path / "untrained"], common_manifest)
    whole = read_manifest(common_manifest)
    one = whole.with_records(whole.split("train").records[:1])
    with pytest.raises(ValueError, match="found 1 image; BatchNorm's statistics need at least two"):
        average_weights(paths, one)


@pytest.mark.parametrize(
    ("field", "found"),
    [("mean", r"mean=\[0\.1, 0\.1, 0\.1\] and"), ("feature_loss_weight", "feature_loss_weight=0.5 and 0")],
)
def test_runs_of_other_models_are_refused(runs, common_manifest, tmp_path, field, found) -> None:
    value = {"mean": (0.1, 0.1, 0.1), "feature_loss_weight": 0.5}[field]
    tiny_model(class_names=NAMES, **{field: value}).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=f"other and .*a are other models: {found}"):
        average_weights([runs[0][0], tmp_path / "other"], common_manifest)


def test_the_mean_knows_the_pictures_of_all_runs(runs, common_manifest, tmp_path) -> None:
    model = DiffMICv2.from_pretrained(runs[0][0])
    for name, number in (("one", 1), ("two", 2)):
        model.training_pictures = PictureSet(np.array([number], np.uint32))
        model.save_pretrained(tmp_path / name)
    mean = average_weights([tmp_path / "one", tmp_path / "two"], common_manifest, batch_size=16, progress=False)
    assert mean.training_pictures.hashes.tolist() == [1, 2]
