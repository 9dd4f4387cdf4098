"""The ways to do the same training step."""

from __future__ import annotations

import pytest
import torch
from factories import run_command, tiny_model

from diffmiczoo.benchmark.training import benchmark_training, train_variants, training_table


def test_all_variants_learn_the_same(clock) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    timings = benchmark_training(model, batch_size=4, repeats=3, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()) and model.training
    names = [variant.name for variant in train_variants()]
    assert [(row.stage, row.variant) for row in timings] == [
        (stage, n) for stage in ("dcg", "diffusion") for n in names
    ]
    for stage in ("dcg", "diffusion"):
        rows = [row for row in timings if row.stage == stage]
        plain, exact, *rounded = [row.loss for row in rows]
        assert exact == pytest.approx(plain, rel=1e-4) and rounded == pytest.approx([plain] * len(rounded), rel=0.1)
        for row in rows:  # each step takes longer than the one before it
            assert row.fastest < row.seconds < row.slowest
            assert row.images_per_second == pytest.approx(4 / row.seconds)
            assert row.ratio == pytest.approx(rows[0].seconds / row.seconds)
    assert training_table(timings).count("\n") == len(timings) + 1


def test_a_step_needs_several_images() -> None:
    with pytest.raises(ValueError, match="batch_size=1 must be at least 2"):
        benchmark_training(tiny_model(), batch_size=1)


def test_the_command_line(tmp_path) -> None:
    tiny_model().save_pretrained(tmp_path)
    result = run_command(
        "benchmark", "--train", "--model", f"local-dir:{tmp_path}", "--batch-size", "2", "--repeats", "1"
    )
    assert result.exit_code == 0 and "| diffusion | ours, bf16 |" in result.stdout
