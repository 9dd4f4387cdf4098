from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffmiczoo.config import DiffMICConfig, bounds, choices
from diffmiczoo.training.recipe import Recipe


def test_defaults_are_the_papers_setting() -> None:
    config = DiffMICConfig()
    assert (config.num_rois, config.roi_size, config.num_points, config.latent_dim) == (6, 32, 6, 6144)
    assert (config.num_train_timesteps, config.beta_start, config.beta_end) == (1000, 1e-4, 0.02)
    assert (config.prior_activation, config.init, config.loss, config.roi_channels) == (
        "none",
        "gaussian",
        "mse",
        "rgb",
    )
    assert config.clip_sample and not config.skip and config.kernel_size == 1 and config.sampling_steps == 10


def test_json_round_trip(tmp_path) -> None:
    config = DiffMICConfig(num_classes=2, class_names=("a", "b"), temperature=0.3, roi_size=112, num_rois=4)
    config.save(tmp_path / "config.json")
    assert DiffMICConfig.load(tmp_path / "config.json") == config


FIELDS = [(settings, field.name) for settings in (DiffMICConfig, Recipe) for field in dataclasses.fields(settings)]


@pytest.mark.parametrize(("settings", "name"), [each for each in FIELDS if choices(*each)])
def test_a_value_that_is_not_a_choice_is_named(settings: type, name: str) -> None:
    for wrong in (2 if name == "kernel_size" else "nonsense", True, ["mse"]):
        with pytest.raises(ValueError, match=re.escape(f"{name}={wrong!r} is not one of")):
            settings(**{name: wrong})


@pytest.mark.parametrize(("settings", "name"), [each for each in FIELDS if bounds(*each)])
@pytest.mark.parametrize("end", ["low", "high"])
def test_a_value_out_of_range_is_named(settings: type, name: str, end: str) -> None:
    limit = getattr(bounds(settings, name), end)
    wrong = limit * 2 + 1 if end == "high" else limit - 1
    with pytest.raises(ValueError, match=f"{name}=.* is outside"):
        settings(**{name: wrong})


def test_every_number_has_bounds_and_no_choice_lost_its_list() -> None:
    unbounded = [name for settings, name in FIELDS if type(getattr(settings(), name)) in (int, float)
                 and not bounds(settings, name) and not choices(settings, name)]  # fmt: skip
    assert unbounded == []
    assert sum(bool(choices(*each)) for each in FIELDS) >= 20 and sum(bool(bounds(*each)) for each in FIELDS) >= 42


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_classes": 3, "class_names": ("a", "b")}, "class_names has 2 names"),
        ({"num_classes": 2, "class_names": ("a", "a")}, "repeats 'a'"),
        ({"roi_size": 300}, "larger than image_size"),
        ({"sampling_steps": 1001}, "more than num_train_timesteps"),
        ({"beta_start": 0.5}, "larger than beta_end"),
        ({"std": (0.0, 1.0, 1.0)}, "must be positive"),
        ({"temperature": 0.0}, "temperature"),
        ({"prior_weight": -0.1}, r"prior_weight\[0\]=-0.05 is outside 0.0..100.0"),
        ({"prior_weight": (0.1, 101)}, r"prior_weight\[1\]=101.0 is outside 0.0..100.0"),
        ({"prior_weight": (0.1, 0.2, 0.3)}, r"prior_weight=\(0.1, 0.2, 0.3\) has 3 values; expected 2"),
        ({"prior_weight": 0.2, "predictor": "global"}, "predictor='global' has only one"),
    ],
)
def test_contradictions_are_named(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffMICConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"num_classes": "7"},
        {"num_classes": True},
        {"num_classes": 7.0},
        {"skip": 1},
        {"raw_encoder": ""},
        {"mean": 0.5},
        {"class_names": "akiec"},
        {"beta_end": float("nan")},
        {"beta_end": 10**400},
        {"temperature": "hot"},
    ],
)
def test_wrong_types_are_errors(values: dict) -> None:
    with pytest.raises(TypeError, match=next(iter(values))):
        DiffMICConfig(**values)


def test_files_with_missing_or_unknown_fields_are_refused(tmp_path) -> None:
    values = DiffMICConfig().to_dict()
    del values["skip"]
    values["skpi"] = False
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"missing fields \['skip'\], unknown fields \['skpi'\]"):
        DiffMICConfig.load(path)
    path.write_text("{not json")
    with pytest.raises(ValueError, match="not a JSON file"):
        DiffMICConfig.load(path)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="expected a JSON object"):
        DiffMICConfig.load(path)


def test_replace_suggests_the_field_that_was_meant() -> None:
    with pytest.raises(ValueError, match="did you mean latent_dim"):
        DiffMICConfig().replace(latent_dimension=3)
    with pytest.raises(ValueError, match="'batchsize' is not a field of Recipe; did you mean batch_size"):
        Recipe().replace(batchsize=3)
    with pytest.raises(ValueError, match=r"--set: unknown fields \['epochs'\]; did you mean dcg_epochs"):
        Recipe.from_dict({"epochs": 3}, source="--set")


def test_one_prior_weight_is_half_for_each_prior() -> None:
    for old in (0.3, {"prior_weight": 0.3}):
        values = {**DiffMICConfig().to_dict(), "prior_weight": 0.3}
        config = DiffMICConfig.from_dict(values) if isinstance(old, dict) else DiffMICConfig(prior_weight=old)
        assert config.prior_weight == config.pool_weights == (0.15, 0.15)
    assert DiffMICConfig.from_dict(config.to_dict()) == config
    assert DiffMICConfig(prior_weight=1).prior_weight == (0.5, 0.5)
    assert DiffMICConfig(prior_weight=(1, 0), predictor="dcg").prior_weight == (1.0, 0.0)


def test_fields_that_came_later_may_be_missing() -> None:
    values = DiffMICConfig().to_dict()
    later = "ordinal thresholds prior_weight roi_saliency roi_source_size feature_loss_weight feature_weight"
    later += " label_adjustment tta dcg_trunk class_offsets"
    for name in later.split():
        del values[name]
    assert DiffMICConfig.from_dict(values) == DiffMICConfig()
    for name in values:
        with pytest.raises(ValueError, match=f"DiffMICConfig: missing fields .'{name}'."):
            DiffMICConfig.from_dict({key: value for key, value in values.items() if key != name})
    assert Recipe.from_dict({}) == Recipe()


def test_labels_are_the_names_or_numbers() -> None:
    assert DiffMICConfig(num_classes=2).labels == ("class_0", "class_1")
    assert DiffMICConfig(num_classes=2, class_names=("no", "yes")).labels == ("no", "yes")


VALUES = st.integers() | st.floats() | st.text(max_size=5) | st.booleans() | st.none() | st.lists(st.integers())
NAMES = st.sampled_from([field.name for field in dataclasses.fields(DiffMICConfig)])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NAMES, VALUES)
def test_arbitrary_values_give_a_config_or_a_clear_error(field: str, value: object) -> None:
    try:
        config = DiffMICConfig.from_dict({**DiffMICConfig().to_dict(), field: value}, source="here")
    except ValueError as error:
        assert str(error).startswith("here: ")
    else:
        assert DiffMICConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
