"""Which runs a table or figure needs: all of them, in order, before any picture is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError, did_you_mean
from diffmiczoo.nn.encoders import PACKAGES
from diffmiczoo.reporting.reproduction.methods import ABLATIONS, METHODS, OURS, SweepPoint, chosen_methods, sweep_points
from diffmiczoo.reporting.reproduction.variants import Budget, Run, Variant
from diffmiczoo.zoo.factory import get_config


@dataclass(frozen=True)
class Target:
    """A table or figure of the paper.

    Attributes:
        name: "table1", …
        title: what it shows.
        kind: "comparison", "ablation", "sweep", "cost", "maps", "embedding" or "convergence".
        datasets: of the paper, all of which are used.
        any_of: one of these is enough, the first that is found.
        protocols: that are run by default.
    """

    name: str
    title: str
    kind: str
    datasets: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("paper", "grouped")

    @property
    def is_figure(self) -> bool:
        """Whether it is drawn."""
        return self.name.startswith("fig")

    @property
    def file(self) -> str:
        """Name of its files without the ending."""
        return self.name


_ANY = ("pmg2000", "aptos2019", "ham10000")
_ONE = ("grouped",)

#: The publications' numbers of tables 1 to 3 follow the order of the data sets in its section IV-A.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("table1", "Methods on PMG2000 (BUSI in its place)", "comparison", ("pmg2000",)),
        Target("table2", "Methods on HAM10000 and APTOS2019", "comparison", ("ham10000", "aptos2019")),
        Target("table3", "Methods on ChestX-ray14", "comparison", ("chestxray14",)),
        Target("table4", "Ablation: C1 to C6 and the full model", "ablation", ("pmg2000",)),
        Target("table5", "Number of ROIs K, noise points Np and width H", "sweep", ("pmg2000",), protocols=_ONE),
        Target("table6", "Multiply-accumulates, parameters and run-time", "cost", protocols=()),
        Target("fig3", "Where what speaks for a class lies: saliency and Grad-CAM", "maps", (), _ANY, _ONE),
        Target("fig4", "K, Np and H as curves", "sweep", ("pmg2000",), protocols=_ONE),
        Target("fig5", "Features of every denoising step in the plane", "embedding", (), _ANY, _ONE),
        Target("fig6", "Convergence of DiffMIC (v1) and DiffMIC-v2", "convergence", (), _ANY, _ONE),
    )
}


def find_target(name: str) -> Target:
    """Returns a table or figure.

    Raises:
        ValueError: there is no such one.
    """
    if name not in TARGETS:
        raise InvalidValueError(
            f"{name!r} is no table or figure that can be made{did_you_mean([name], TARGETS, {})}; there are "
            f"{', '.join(TARGETS)}"
        )
    return TARGETS[name]


def rows_of(target: Target, budget: Budget, methods: Sequence[str] = ()) -> list[Variant]:
    """Returns what the rows of a table train; a figure's runs are the same.

    Args:
        target: table or figure.
        budget: decides which methods there are by default, and which values are swept.
        methods: keys of `METHODS`, for comparisons and costs.

    Raises:
        ValueError: a method is unknown, or the table has a fixed list of rows.
    """
    if methods and target.kind not in ("comparison", "cost"):
        raise InvalidValueError(f"methods are for tables that compare methods; the rows of {target.name} are fixed")
    if target.kind in ("comparison", "cost"):
        return [fitted_to(variant, budget) for variant in chosen_methods(methods, budget.name)]
    if target.kind == "ablation":
        return list(ABLATIONS)
    if target.kind == "sweep":
        return list({point.variant.key: point.variant for point in points_of(budget)}.values())
    keys = ("diffmic_v1", OURS) if target.kind == "convergence" else (OURS,)
    return [METHODS[key] for key in keys]


def points_of(budget: Budget) -> list[SweepPoint]:
    """Returns the points of a sweep."""
    return sweep_points(config_of(budget), full=not budget.architecture)


def config_of(budget: Budget, dataset: str = "") -> DiffMICConfig:
    """Returns the config of a budget's DiffMIC-v2."""
    return get_config(architecture_of(budget, dataset)).replace(**budget.config)


def architecture_of(budget: Budget, dataset: str = "") -> str:
    """Returns a budget's architecture: its own, or the paper's for a data set."""
    paper = "diffmicv2_densenet169" if dataset == "chestxray14" else "diffmicv2_resnet18"
    return budget.architecture or paper


def fitted_to(variant: Variant, budget: Budget) -> Variant:
    """Gives LDAM and OHEM the encoder of a budget's other rows, where that is not the paper's."""
    encoder = config_of(budget).dcg_encoder
    if variant.key in ("ldam", "ohem") and budget.architecture:
        return replace(variant, plain=encoder)
    return replace(variant, plain=encoder, title=_title(encoder)) if variant.key == "plain" else variant


def _title(encoder: str) -> str:
    return METHODS["plain"].title if encoder == METHODS["plain"].plain else encoder


def run_of(variant: Variant, budget: Budget, dataset: str, protocol: str, seed: int) -> Run:
    """Returns the training of a row on a data set."""
    size = {} if budget.image_size is None else {"image_size": budget.image_size}
    model = f"timm/{variant.plain}" if variant.plain else variant.architecture or architecture_of(budget, dataset)
    config = {**size, **variant.config} if variant.plain else {**size, **budget.config, **variant.config}
    recipe, base = {**budget.recipe, **variant.recipe}, "preset"
    if budget.epochs is not None:
        dcg, diffusion = budget.epochs
        alone = variant.plain or variant.ablation in ("c1", "dcg")
        # As many epochs for all: what has no second stage gets those of both.
        recipe |= {"dcg_epochs": dcg + diffusion, "diffusion_epochs": 0} if alone else {}
        recipe = recipe if alone else {**recipe, "dcg_epochs": dcg, "diffusion_epochs": diffusion}
    elif not variant.plain and not budget.architecture:
        base = "paper_chest" if dataset == "chestxray14" else "paper"
    start = budget.start == "imagenet" or (budget.start == "packaged" and _packaged(variant, budget, dataset))
    return Run(dataset, protocol, variant.key, model, seed, variant.ablation, config, recipe, base, start)


def _packaged(variant: Variant, budget: Budget, dataset: str) -> bool:
    """Whether an installed package holds the ImageNet weights of all of a row's encoders."""
    import importlib.util

    own = config_of(budget, dataset)
    encoders = {variant.plain} if variant.plain else {own.dcg_encoder, own.raw_encoder, own.roi_encoder}
    return all(name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is not None for name in encoders)


def runs_of(
    target: Target,
    budget: Budget,
    datasets: Sequence[str],
    protocols: Sequence[str],
    seeds: int,
    methods: Sequence[str] = (),
) -> list[Run]:
    """Returns all runs of a table: every row with seed 0 first, so that a table is whole early.

    A figure of one model's pictures or features needs one seed alone.
    """
    if target.kind == "cost":
        return []
    count = 1 if target.kind in ("maps", "embedding") else seeds
    rows = rows_of(target, budget, methods)
    return [
        run_of(variant, budget, dataset, protocol, seed)
        for seed in range(count)
        for dataset in datasets
        for protocol in protocols
        for variant in rows
    ]
