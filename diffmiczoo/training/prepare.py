"""`prepare`: from a name and labelled images to a model with their classes, a plan and a recipe, ready for `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.fit import adapt_classes
from diffmiczoo.training.plan import Plan, check_recipe, plan_run, training_manifest, validation_manifest
from diffmiczoo.training.presets import finetune_recipe, preset_recipe
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import Rank
from diffmiczoo.zoo.architectures import ablation_fields
from diffmiczoo.zoo.factory import create_model, get_config

#: Config fields that decide which stages a model has, and how large they are.
_STAGES = ("predictor", "latent_dim", "feature_loss_weight", "dcg_trunk", "dcg_out_index")


@dataclass(frozen=True)
class Prepared:
    """What `fit(prepared.model, prepared.plan, recipe=prepared.recipe, output=…)` takes."""

    model: DiffMICv2
    plan: Plan
    recipe: Recipe


def prepare(
    name: str,
    train: Any,
    val: Any = None,
    recipe: Recipe | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    task: str | None = None,
    class_names: Any = None,
    classes: Any = None,
    pretrained: bool = False,
    pretrained_backbones: bool = False,
    ablation: str | None = None,
    config: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Prepared:
    """Creates a registered model with the classes and the task of the data, and settles how it is trained.

    The new parameters are drawn from the recipe's seed; the global random state is left as found.

    Args:
        name: as `create_model` takes it.
        train: as `fit` takes it.
        val: as `fit` takes it.
        recipe: by default the preset for the model and the number of images; with `pretrained` that for fine-tuning.
        changes: recipe field → value, in place of the recipe's own.
        task: "multiclass" or "multilabel"; by default what the labels tell.
        class_names: as `fit` takes them.
        classes: as `fit` takes them.
        pretrained: start from the model's trained weights; layers that depend on the classes start anew for those that
            it does not know by name.
        pretrained_backbones: start the encoders from ImageNet weights.
        ablation: a row of the paper's table IV, as `create_model` takes it.
        config: config field → value; classes and task come from the data. `ordinal` makes the classes grades in order.
        device: of the model.

    Raises:
        ValueError: a name, a field or the data are wrong; the message tells which.
        FileNotFoundError: the data or the weights are not there.
    """
    fields = dict(config or {})
    for field in ("task", "class_names", "num_classes"):
        if field in fields:
            raise InvalidValueError(f"config field {field} comes from the data; give `task` or `class_names` instead")
    # What takes no reading first: a mistyped field should not have to wait for a large table.
    settings = Recipe.from_dict({**(recipe.to_dict() if recipe else {}), **(changes or {})}, source="recipe")
    own = get_config(name, pretrained)
    manifest = training_manifest(train, _asked(own, fields.get("ordinal")), task, class_names, classes)
    ordinal = bool(fields.get("ordinal", own.ordinal)) and manifest.ordered and manifest.task == "multiclass"
    names = manifest.class_names
    validation = validation_manifest(val, manifest, class_names, classes)
    fitted = {"task": manifest.task, "num_classes": len(names), "class_names": names, "ordinal": ordinal}
    plan_config = own.uncalibrated().replace(**fitted)
    plan = plan_run(plan_config, manifest, validation, settings.seed)
    if recipe is None:
        overrides = {**(ablation_fields(ablation) if ablation else {}), **fields}
        settings = _preset(own, overrides, pretrained, changes or {}, len(plan.train))
    check_recipe(settings, plan_config, plan.train, Rank(), torch.device(device))
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        if not pretrained:
            fields |= {"class_names": names, "task": manifest.task, "ordinal": ordinal}
        model = create_model(
            name,
            pretrained,
            device=device,
            pretrained_backbones=pretrained_backbones,
            ablation=ablation,
            **fields,
        )
        adapt_classes(model, names, manifest.task, ordinal)
    return Prepared(model, plan, settings)


def _preset(
    own: DiffMICConfig,
    overrides: dict[str, Any],
    pretrained: bool,
    changes: Mapping[str, Any],
    images: int,
) -> Recipe:
    """Returns the recipe for a model as it is asked for, with the fields that were given."""
    preset = finetune_recipe if pretrained else preset_recipe
    stages = {name: overrides[name] for name in _STAGES if name in overrides}
    recipe = preset(own.uncalibrated().replace(**stages), images)
    if changes.get("freeze") == "backbones":
        recipe = recipe.replace(encoder_start="given")
    return recipe.replace(**changes)


def _asked(own: DiffMICConfig, ordinal: bool | None) -> DiffMICConfig:
    """Returns a config that is ordinal as asked; one that becomes it has no order of grades to give."""
    if not ordinal or own.ordinal:
        return own if ordinal is None else own.replace(ordinal=ordinal)
    return own.replace(task="multiclass", thresholds=(), label_adjustment=(), class_names=(), ordinal=True)
