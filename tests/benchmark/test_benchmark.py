"""The benchmark times ways to compute the same answers."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from factories import SMALL_ENCODERS, TINY
from PIL import Image

from diffmiczoo.benchmark.folder import benchmark_folder
from diffmiczoo.benchmark.inference import as_table, benchmark, variants
from diffmiczoo.benchmark.parts import benchmark_parts
from diffmiczoo.benchmark.roofline import Limits, measure_limits
from diffmiczoo.cli import main
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import ImageError
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.quantized import can_quantize


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
    from diffmiczoo.benchmark.inference import OURS, PLAIN, _gmac

    with torch.device("meta"):
        model = DiffMICv2(DiffMICConfig())
    assert _gmac(model, PLAIN) == pytest.approx(76.5, rel=0.02)
    assert _gmac(model, OURS) == pytest.approx(11.3, rel=0.02)


def test_the_parts_are_the_whole() -> None:
    model = small(num_points=4)
    *parts, total = benchmark_parts(model, batch_size=2, repeats=2)
    assert total.seconds == pytest.approx(sum(part.seconds for part in parts))
    assert total.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert total.gmac == pytest.approx(benchmark(model, batch_size=1, repeats=1, progress=False)[1].gmac)


def test_limits_are_those_of_this_machine() -> None:
    limits = measure_limits(torch.device("cpu"), ("fp32",), repeats=1)
    assert 1e9 < limits.flops["fp32"] < 1e14 and 1e8 < limits.bandwidth < 1e13
    assert Limits({"fp32": 2e9}, 1.0).share(gmac=0.5, images_per_second=1, precision="fp32") == 0.5


def test_a_folder_from_files_to_answers(tmp_path) -> None:
    for index in range(5):
        Image.new("RGB", (80, 60), (50 * index, 0, 0)).save(tmp_path / f"{index}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    rows = benchmark_folder(small(), tmp_path, batch_size=3, progress=False)
    assert [row.part for row in rows] == ["decode alone", "model alone", "together"]
    assert all(row.images_per_second > 0 and row.busy >= 0 and row.peak_mib > 10 for row in rows)
    small().save_pretrained(tmp_path / "model")
    arguments = ["benchmark", "--model", f"local-dir:{tmp_path / 'model'}", "--images", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0 and "| together |" in done.stdout, done.output
    done = CliRunner().invoke(main, [*arguments, "--train"])
    assert done.exit_code == 2 and "--images and --train are different benchmarks" in done.output


def test_a_folder_without_readable_images_is_an_error(tmp_path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="holds nothing that can be read among its first 32 images"):
        benchmark_folder(small(), tmp_path)


def test_a_model_without_a_diffusion_is_refused() -> None:
    with pytest.raises(ValueError, match="predictor='dcg' has no diffusion to time"):
        benchmark(small(predictor="dcg"))


def test_the_command_line(tmp_path) -> None:
    small().save_pretrained(tmp_path)
    arguments = ["benchmark", "--model", f"local-dir:{tmp_path}", "--batch", "1", "--repeats", "1", "--steps", "2"]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    rows = len(variants()) + can_quantize()
    assert len(report["batches"]["1"]) == rows and report["threads"] == torch.get_num_threads()
    assert [row["part"] for row in report["parts"]["1"]] == ["DCG", "feature prior", "U-Net, 2 steps", "total"]
    assert report["limits"]["flops"].keys() == {"fp32", "bf16"} and report["limits"]["bandwidth"] > 1e8
    done = CliRunner().invoke(main, arguments)
    assert "| plain order of work, fp32 |" in done.stdout and "batch 1" in done.stdout
    assert "| total |" in done.stdout and "GFLOP/s" in done.stdout
