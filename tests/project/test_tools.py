"""The repository's own tools: each can be imported beside today's package and says what it is for."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / "tools"

#: Tool → a package that it measures with, and no extra brings.
NEEDS = {"memory_check": "psutil", "ray_scale": "psutil"}


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)


@pytest.mark.parametrize("name", sorted(path.stem for path in TOOLS.glob("*.py")))
def test_a_tool_fits_the_package(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    tool = importlib.import_module(name)
    assert inspect.getdoc(tool)
    if isinstance(main := getattr(tool, "main", None), click.Command):
        result = CliRunner().invoke(main, ["--help"])
        assert result.exit_code == 0, result.output
        assert "Usage" in result.output


def test_changed_chests_keep_their_labels_and_lose_what_a_thumbnail_sees(tmp_path: Path) -> None:
    tool = importlib.import_module("shortcut_study")
    source = tmp_path / "chests"
    (source / "images").mkdir(parents=True)
    bright = np.random.default_rng(0).integers(0, 60, (2, 300, 260)) + np.array([10, 190])[:, None, None]
    for place, pixels in enumerate(bright):
        Image.fromarray(pixels.astype(np.uint8)).save(source / "images" / f"{place}.jpg")
    (source / "labels.csv").write_text("file,label,split,group\nimages/0.jpg,,train,a\nimages/1.jpg,Edema,test,b\n")
    means = {}
    for change, steps in tool.CHANGES.items():
        target = tmp_path / change
        tool.write_changed(source, target, steps)
        table = (target / "labels.csv").read_text().split()
        assert table == ["file,label,split,group", "images/0.png,,train,a", "images/1.png,Edema,test,b"]
        pictures = [np.asarray(Image.open(target / "images" / f"{place}.png")) for place in (0, 1)]
        assert len({picture.shape for picture in pictures}) == 1
        means[change] = abs(float(pictures[0].mean()) - float(pictures[1].mean()))
    assert means["as they are"] > 150
    assert means["flat"] < 5


def test_a_set_of_numbered_pictures_is_written_from_its_file(tmp_path: Path) -> None:
    tool = importlib.import_module("shortcut_study")
    source = tmp_path / tool.CHILDREN
    source.mkdir()
    np.savez(source / f"{tool.CHILDREN}.npz", test_images=np.full((2, 28, 28), 7, np.uint8), test_labels=[[0], [1]])
    rows = [f"{tool.CHILDREN}.npz:test:{place},normal,test,test:{place}" for place in (0, 1)]
    left_out = f"{tool.CHILDREN}.npz:train:0,normal,train,train:0"
    (source / "labels.csv").write_text("\n".join(["file,label,split,official", *rows, left_out]) + "\n")
    tool.write_changed(source, tmp_path / "out", ())
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == [
        f"{tool.CHILDREN}_test_{place}.png" for place in (0, 1)
    ]
