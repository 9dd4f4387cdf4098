"""`diffmiczoo benchmark`."""

from __future__ import annotations

import json

import torch
from click.testing import CliRunner
from factories import small_model

from diffmiczoo.benchmark import inference, roofline
from diffmiczoo.benchmark.inference import variants
from diffmiczoo.cli import main
from diffmiczoo.runtime.quantized import can_quantize


def test_the_command_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(roofline._SIDE, "cpu", 64)
    monkeypatch.setitem(roofline._BYTES, "cpu", 2**20)
    small_model().save_pretrained(tmp_path)
    arguments = ["benchmark", "--model", f"local-dir:{tmp_path}", "--batch-size", "1", "--repeats", "1", "--steps", "2"]
    done = CliRunner().invoke(main, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    rows = len(variants()) + can_quantize()
    assert len(report["batches"]["1"]) == rows and report["threads"] == torch.get_num_threads()
    assert [row["part"] for row in report["parts"]["1"]] == ["DCG", "feature prior", "U-Net, 2 steps", "total"]
    assert report["limits"]["flops"].keys() == {"fp32", "bf16"} and "bandwidth" in report["limits"]
    monkeypatch.setattr(inference, "variants", lambda *_, graphs: variants(graphs=graphs)[:2])
    done = CliRunner().invoke(main, [*arguments, "--against", "timm/test_efficientnet"])
    assert "| timm/test_efficientnet | timm, fp32 |" in done.stdout and "beside other models" in done.stdout
    assert "| plain order of work, fp32 |" in done.stdout and "batch 1" in done.stdout
    assert "| total |" in done.stdout and "GFLOP/s" in done.stdout
    done = CliRunner().invoke(main, [*arguments, "--against", "timm/test_efficientnet", "--train"])
    assert done.exit_code == 2 and "--against is for predictions from memory" in done.stderr
