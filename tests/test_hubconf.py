"""`torch.hub` as a user meets it: a fresh process, the repository as source."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diffmiczoo

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def hub_home(tmp_path) -> Path:
    """A torch.hub cache that holds this repository as org/diffmic:main, so that nothing is downloaded."""
    checkout = tmp_path / "hub" / "org_diffmic_main"
    ignored = shutil.ignore_patterns(".git", ".venv", "tests", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(REPOSITORY, checkout, ignore=ignored)
    return tmp_path


def in_fresh_process(code: str, home: Path) -> str:
    prepared = (
        "import json, functools, torch\n"
        "options = dict(skip_validation=True, trust_repo=True)\n"
        "listed = functools.partial(torch.hub.list, 'org/diffmic:main', **options)\n"
        "helped = functools.partial(torch.hub.help, 'org/diffmic:main', **options)\n"
        "load = functools.partial(torch.hub.load, 'org/diffmic:main', **options)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", prepared + code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=home,
        env=os.environ | {"TORCH_HOME": str(home)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_list_help_and_load(hub_home) -> None:
    code = """
print(json.dumps(listed()))
for name in listed():
    assert len(helped(name)) > 200, name
model = load("diffmicv2_ham10000")
assert model.trained and not model.training and model.weights_name == "diffmicv2_nano.ham10000"
other = load("diffmicv2", "diffmicv2_nano.ham10000", sampling_steps=2)
assert other.config.sampling_steps == 2
bare = load("diffmicv2_nano.busi", pretrained=False, image_size=64, latent_dim=8)
assert not bare.trained and bare.config.labels == ("benign", "malignant", "normal")
try:
    load("diffmicv2_resnet18")
except ValueError as error:
    assert "no published weights" in str(error)
else:
    raise AssertionError("unpublished weights gave a model")
"""
    listed = json.loads(in_fresh_process(code, hub_home))
    assert sorted(listed) == sorted([*diffmiczoo.list_models(), "diffmicv2"]), "the registry and nothing else"


def test_a_checkout_is_a_source_too(tmp_path) -> None:
    code = (
        f"model = torch.hub.load({str(REPOSITORY)!r}, 'diffmicv2_nano.ham10000', source='local')\nassert model.trained"
    )
    in_fresh_process(code, tmp_path)
