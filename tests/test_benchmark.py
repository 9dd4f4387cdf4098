"""The benchmark times ways to compute the same answers."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from conftest import SMALL_ENCODERS, TINY

from diffmiczoo.benchmark import as_table, benchmark, variants
from diffmiczoo.cli import main
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2


def small(**fields) -> DiffMICv2:
    torch.manual_seed(0)
    return DiffMICv2(DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS, **fields})).eval()


def test_all_variants_have_the_same_answer() -> None:
    model = small(num_points=4)
    config = model.config
    timings = benchmark(model, batch_size=2, repeats=2, progress=False)
    assert [row.variant for row in timings] == [variant.name for variant in variants()]
    assert timings[1].max_difference < 1e-5
    assert all(
        row.max_difference < 0.2 and row.seconds > 0 and row.fastest <= row.seconds <= row.slowest for row in timings
    )
    assert timings[0].ratio == 1 and model.config == config and not model.training
    assert as_table(timings).count("\n") == len(timings) + 1


def test_the_work_that_is_left_out_is_not_counted() -> None:
    gmac = [row.gmac for row in benchmark(small(num_points=4), batch_size=1, repeats=1, progress=False)]
    plain, ours, half, *without = gmac
    assert plain == max(gmac) and ours == half == min(gmac) and all(ours <= each <= plain for each in without)


def test_paper_size_work_is_the_published_one() -> None:
    from diffmiczoo.benchmark import OURS, PLAIN, _gmac

    with torch.device("meta"):
        model = DiffMICv2(DiffMICConfig())
    assert _gmac(model, PLAIN) == pytest.approx(76.5, rel=0.02)
    assert _gmac(model, OURS) == pytest.approx(11.3, rel=0.02)


def test_a_model_without_a_diffusion_is_refused() -> None:
    with pytest.raises(ValueError, match="predictor='dcg' has no diffusion to time"):
        benchmark(small(predictor="dcg"))


def test_the_command_line(tmp_path) -> None:
    small().save_pretrained(tmp_path)
    arguments = ["benchmark", "--model", f"local-dir:{tmp_path}", "--batch", "1", "--repeats", "1", "--steps", "2"]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert len(report["batches"]["1"]) == len(variants()) and report["threads"] == torch.get_num_threads()
    done = CliRunner().invoke(main, arguments)
    assert "| plain order of work, fp32 |" in done.stdout and "batch 1" in done.stdout
