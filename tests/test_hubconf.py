"""`torch.hub` as a user meets it: a fresh process, the repository as source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import diffmiczoo

REPOSITORY = Path(__file__).resolve().parents[1]


def in_fresh_process(code: str, tmp_path: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-c", f"import json, torch\nrepo = {str(REPOSITORY)!r}\n{code}"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_list_is_the_registry_and_nothing_else(tmp_path) -> None:
    listed = json.loads(in_fresh_process("print(json.dumps(torch.hub.list(repo, source='local')))", tmp_path))
    assert sorted(listed) == sorted([*diffmiczoo.list_models(), "diffmicv2"])


def test_help_and_load(tmp_path) -> None:
    code = """
for name in torch.hub.list(repo, source="local"):
    assert len(torch.hub.help(repo, name, source="local")) > 200, name
model = torch.hub.load(repo, "diffmicv2_ham10000", source="local")
assert model.trained and not model.training and model.weights_name == "diffmicv2_nano.ham10000"
other = torch.hub.load(repo, "diffmicv2", "diffmicv2_nano.ham10000", source="local", sampling_steps=2)
assert other.config.sampling_steps == 2
bare = torch.hub.load(repo, "diffmicv2_nano.busi", source="local", pretrained=False, image_size=64, latent_dim=8)
assert not bare.trained and bare.config.labels == ("benign", "malignant", "normal")
try:
    torch.hub.load(repo, "diffmicv2_resnet18", source="local")
except ValueError as error:
    assert "no published weights" in str(error)
else:
    raise AssertionError("unpublished weights gave a model")
"""
    in_fresh_process(code, tmp_path)
