"""`diffmiczoo info`."""

from __future__ import annotations

import json

from factories import run_command


def test_info() -> None:
    text = run_command("info", "diffmicv2_ham10000").output
    assert all(word in text for word in ("akiec", "parameters", "MACs", "CC BY-NC 4.0", "shipped", "accuracy"))
    assert (
        json.loads(run_command("info", "diffmicv2_resnet18", "--format", "json").output)["config"]["latent_dim"] == 6144
    )
    result = run_command("info", "diffmicv2_ham1000")
    assert result.exit_code == 2 and "did you mean" in result.stderr and "Traceback" not in result.stderr
