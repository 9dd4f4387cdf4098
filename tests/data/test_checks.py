"""What is said of data before training."""

from __future__ import annotations

import json

from factories import TINY, write_images

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.checks import check_data
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest

CONFIG = DiffMICConfig(**{"num_classes": 2, **TINY})


def test_what_is_odd_about_data_is_reported(tmp_path) -> None:
    write_images(tmp_path, ["1.png", "2.png", "3.png", "4.png"])
    (tmp_path / "5.png").write_bytes((tmp_path / "1.png").read_bytes())
    (tmp_path / "6.png").write_bytes((tmp_path / "2.png").read_bytes())
    rows = ["1,x,train,g1", "2,x,train,g2", "3,x,train,g3", "4,y,val,g3", "5,y,val,g4", "6,x,train,g5"]
    lines = [f"{row.split(',')[0]}.png,{row.split(',', 1)[1]}" for row in rows]
    (tmp_path / "t.csv").write_text("file,label,split,group\n" + "\n".join(lines) + "\n")
    manifest = read_manifest(tmp_path / "t.csv", class_names=["x", "y", "z"])
    config = CONFIG.replace(num_classes=3)
    splits = {name: ImageDataset(manifest.split(name), config, progress=False) for name in ("train", "val")}
    report = check_data(splits, manifest)
    assert report.counts == {"train": {"x": 4, "y": 0, "z": 0}, "val": {"x": 0, "y": 2, "z": 0}}
    assert report.problems == ["no training image shows y, z; a class cannot be learned without one"]
    (same,) = report.duplicates
    assert same.names == ("1.png", "5.png") and same.splits == ("train", "val") and report.contradictions == [same]
    assert report.leaks == {"train and val": ["g3"]}
    text = "\n".join(report.warnings)
    for part in ("1 group has images in train and val", "1 image is in more than one split", "no validation image"):
        assert part in text
    several = read_manifest(tmp_path / "t.csv", class_names=["x", "y", "z"], task="multilabel")
    relaxed = check_data(splits, several)
    assert not relaxed.problems and any("no training image shows y, z: the model" in text for text in relaxed.warnings)
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["problems"] == report.problems
