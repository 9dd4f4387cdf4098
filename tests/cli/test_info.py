"""`diffmiczoo info`."""

from __future__ import annotations

import json

from factories import run_command, tiny_model


def test_info() -> None:
    text = run_command("info", "diffmicv2_ham10000").output
    assert all(word in text for word in ("akiec", "parameters", "MACs", "CC BY-NC 4.0", "shipped", "accuracy"))
    assert (
        json.loads(run_command("info", "diffmicv2_resnet18", "--format", "json").output)["config"]["latent_dim"] == 6144
    )
    result = run_command("info", "diffmicv2_ham1000")
    assert result.exit_code == 2 and "did you mean" in result.stderr and "Traceback" not in result.stderr


def test_info_tells_both_sizes_and_the_views(tmp_path) -> None:
    tiny_model(roi_source_size=96, tta="flips").save_pretrained(tmp_path)
    text = run_command("info", f"local-dir:{tmp_path}").output
    assert "96 × 96 pixels, center crop; seen whole at 64 × 64; mean over views, tta=flips" in text
