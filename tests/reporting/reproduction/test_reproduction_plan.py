"""Which runs a table needs, and where its data lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import write_manifest

from diffmiczoo.reporting.reproduction.dry_run import listing
from diffmiczoo.reporting.reproduction.methods import METHODS, OURS, PUBLISHED, published
from diffmiczoo.reporting.reproduction.planning import TARGETS, find_target, points_of, rows_of, run_of
from diffmiczoo.reporting.reproduction.reproduce import plan_reproduction
from diffmiczoo.reporting.reproduction.variants import FULL, SMALL
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.zoo.factory import create_model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with something in the place of two of the paper's data sets."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("Dataset_BUSI_with_GT", "aptos2019"):
        (folder / name).mkdir()
        write_manifest(folder / name)
    return folder


def test_a_table_has_every_row_by_both_protocols_and_all_seeds(data: Path) -> None:
    plan = plan_reproduction("table1", data, seeds=3)
    assert [(source.dataset, source.stands_for) for source in plan.sources] == [("busi", "pmg2000")]
    assert "not public" in plan.sources[0].title
    assert len(plan.runs) == 6 * 2 * 3 == len({run.id for run in plan.runs})
    # Seed 0 of all rows comes first, so that a table is whole early.
    assert [run.seed for run in plan.runs[:12]] == [0] * 12
    assert {run.protocol for run in plan.runs} == {"paper", "grouped"}
    ldam = next(run for run in plan.runs if run.variant == "ldam")
    assert ldam.recipe["dcg_loss"] == "ldam" and ldam.model == "timm/tf_efficientnet_lite0"


def test_rows_learn_for_as_many_epochs_in_all(data: Path) -> None:
    runs = {run.variant: run for run in plan_reproduction("table1", data, seeds=1).runs}
    epochs = {key: run.recipe["dcg_epochs"] + run.recipe["diffusion_epochs"] for key, run in runs.items()}
    assert set(epochs.values()) == {sum(SMALL.epochs or ())}
    assert runs["gmic"].recipe["diffusion_epochs"] == 0 < runs[OURS].recipe["diffusion_epochs"]


def test_tables_share_the_runs_that_are_the_same(data: Path) -> None:
    first, ablation, sweep = (
        plan_reproduction(name, data, protocols=["grouped"]) for name in ("table1", "table4", "table5")
    )
    ours = {run.id for run in first.runs if run.variant == OURS}
    assert ours <= {run.id for run in ablation.runs} and ours <= {run.id for run in sweep.runs}
    assert len(ablation.runs) == 7 * 3
    assert {run.id for run in plan_reproduction("fig4", data).runs} == {run.id for run in sweep.runs}
    # Another seed, field or protocol is another run.
    run = first.runs[0]
    others = (run_of(METHODS["plain"], FULL, run.dataset, run.protocol, 0), first.runs[-1])
    assert run.id not in {other.id for other in others}


def test_ids_are_names_of_folders_anywhere() -> None:
    run = run_of(METHODS["plain"], SMALL, "medmnist:dermamnist@28", "paper", 0)
    assert not set(run.id) & set(':@/\\*?"<>| ')


def test_sweeps_contain_the_model_itself_once_for_each_setting() -> None:
    points = points_of(FULL)
    own = {point.axis: point.value for point in points if point.variant.key == OURS}
    assert own == {"K": 6, "Np": 6, "H": 6144}
    assert [point.value for point in points if point.axis == "H"] == [2048, 4096, 6144, 8192]


def test_the_full_budget_is_the_paper_s_setting() -> None:
    run = run_of(METHODS[OURS], FULL, "chestxray14", "paper", 0)
    assert (run.model, run.base, run.imagenet) == ("diffmicv2_densenet169", "paper_chest", True)
    assert run_of(METHODS[OURS], FULL, "ham10000", "paper", 0).model == "diffmicv2_resnet18"
    assert run_of(METHODS["swin_t"], FULL, "ham10000", "paper", 0).model == "timm/swin_tiny_patch4_window7_224"


def test_the_first_diffmic_of_a_small_budget_is_one() -> None:
    run = run_of(METHODS["diffmic_v1"], SMALL, "busi", "paper", 0)
    config = create_model(run.model, **run.config).config
    assert (config.num_points, config.guidance, config.process_mean, config.sampler) == (
        1,
        "fused",
        "prior",
        "ancestral",
    )
    assert config.raw_encoder == "tf_efficientnet_lite0" and config.mmd_weight == 0.5


def test_recipes_and_configs_of_all_rows_are_valid() -> None:
    for target in TARGETS.values():
        for variant in rows_of(target, SMALL):
            run = run_of(variant, SMALL, "busi", "paper", 1)
            Recipe(**run.recipe)
            assert not run.config.keys() & {"num_classes", "class_names", "task"}


def test_quoted_figures_are_the_paper_s() -> None:
    assert published("ham10000", OURS, "macro_f1") == 0.839
    assert published("busi", OURS, "accuracy") is None
    assert all(0.7 < row.value < 1 for row in PUBLISHED)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("tabel2", {}, "did you mean table2"),
        ("table1", {"methods": ["resnet81"]}, "did you mean resnet18"),
        ("table4", {"methods": ["resnet18"]}, "the rows of table4 are fixed"),
        ("table1", {"protocols": ["patient"]}, "paper, grouped"),
        ("table1", {"budget": "huge"}, "small, full"),
        ("table1", {"seeds": 0}, "seeds=0"),
        ("table2", {"datasets": ["ham"]}, "'ham'"),
    ],
)
def test_what_is_unknown_is_named(data: Path, table: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_reproduction(table, data, **options)


def test_data_that_are_not_there_are_named_with_the_place(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        plan_reproduction("table1", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="table3 needs chestxray14; looked for"):
        plan_reproduction("table3", data)
    with pytest.raises(ValueError, match="table1 needs labelled images"):
        plan_reproduction("table1", None)
    assert plan_reproduction("table6", None).runs == ()


def test_any_labelled_images_stand_in_and_the_plan_says_so(data: Path) -> None:
    plan = plan_reproduction("table3", data / "aptos2019")
    assert (plan.sources[0].dataset, plan.sources[0].stands_for) == ("aptos2019", "")
    assert "in place of chestxray14" in plan.sources[0].title
    assert plan_reproduction("table2", data / "aptos2019").sources[0].stands_for == "aptos2019"


def test_a_dry_run_lists_the_runs_and_what_they_take(data: Path, tmp_path: Path) -> None:
    plan = plan_reproduction("table1", data, seeds=1, methods=["plain"])
    text = listing(plan, tmp_path / "out", "cpu")
    assert all(run.id in text for run in plan.runs) and not (tmp_path / "out").exists()
    assert "2 of 2 runs to do, about" in text and "40 of 40 pictures" in text
    assert find_target("fig4").is_figure
