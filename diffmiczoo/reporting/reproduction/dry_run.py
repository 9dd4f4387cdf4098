"""What a table would take: its runs, and a coarse estimate of their time."""

from __future__ import annotations

from pathlib import Path

from diffmiczoo.reporting.reproduction.execution import AS_PUBLISHED, BASES
from diffmiczoo.reporting.reproduction.ledger import Ledger
from diffmiczoo.reporting.reproduction.reproduce import Plan
from diffmiczoo.reporting.reproduction.variants import Run
from diffmiczoo.training.presets import preset_recipe
from diffmiczoo.training.stages import create_stages
from diffmiczoo.zoo.architectures import ablation_fields
from diffmiczoo.zoo.complexity import count_macs
from diffmiczoo.zoo.factory import get_config

#: Multiply-accumulates a second that training reaches: on two cores, on a GPU. Order of magnitude.
_SPEED = {"cpu": 2e10, "gpu": 5e12}

#: Forward and backward pass, in forward passes.
_PASSES = 3

#: Share of the pictures that is trained on.
_TRAIN = 0.6

#: Seconds of a run besides: reading, validation, test, files.
_REST = 15.0


def listing(plan: Plan, output: Path, device: str) -> str:
    """Returns a line for each run that says whether it is finished, and an estimate of what is left.

    Args:
        plan: of a table.
        output: where finished runs are looked for.
        device: that is to train.
    """
    done = Ledger(output).runs if output.is_dir() else {}
    lines = [f"{plan.target.name}: {plan.target.title}", f"{plan.budget.sentence}"]
    counts: dict[str, int] = {}
    for source in plan.sources:
        found = len(source.read())
        counts[source.dataset] = min(found, plan.budget.pictures or found)
        lines.append(f"data: {source.title}, {source.data}, {counts[source.dataset]:,} of {found:,} pictures")
    seconds, known = 0.0, {}
    for run in plan.runs:
        kind = (run.dataset, run.id.rpartition("-")[2])
        if kind not in known:
            known[kind] = _seconds(run, counts[run.dataset], device)
        finished = run.id in done
        seconds += 0 if finished else known[kind]
        lines.append(
            f"{'finished' if finished else 'to do   '}  {run.id}  {run.model}, about {known[kind] / 60:,.1f} min"
        )
    left = sum(run.id not in done for run in plan.runs)
    lines.append(f"{left:,} of {len(plan.runs):,} runs to do, about {seconds / 3600:,.1f} hours on an idle {device}")
    return "\n".join(lines)


def _seconds(run: Run, pictures: int, device: str) -> float:
    config = get_config(run.model)
    fields = {} if run.ablation is None else ablation_fields(run.ablation)
    config = config.replace(**{**fields, **run.config})
    trained = int(_TRAIN * pictures)
    recipe = (BASES[run.base] or preset_recipe(config, trained)).replace(**{**AS_PUBLISHED, **run.recipe})
    macs = count_macs(config)
    each = {"dcg": macs["dcg"] * _PASSES}
    each["diffusion"] = macs["dcg"] + (macs["feature_prior"] + macs["unet"]) * _PASSES
    work = sum(stage.epochs * trained * each[stage.name] for stage in create_stages(recipe, config))
    return work / _SPEED["cpu" if device == "cpu" else "gpu"] + _REST
