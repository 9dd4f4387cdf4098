"""A folder of pictures from files to predictions."""

from __future__ import annotations

import itertools
import os
import resource

import pytest
from click.testing import CliRunner
from factories import small_model
from PIL import Image

from diffmiczoo.benchmark import folder
from diffmiczoo.benchmark.folder import benchmark_folder
from diffmiczoo.cli import main
from diffmiczoo.images.items import ImageError


def test_a_folder_from_files_to_predictions(tmp_path, clock, monkeypatch) -> None:
    for index in range(5):
        Image.new("RGB", (80, 60), (50 * index, 0, 0)).save(tmp_path / f"{index}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    worked = itertools.count()  # a second of work in each part
    monkeypatch.setattr(folder, "_processor_seconds", lambda: next(worked))
    rows = benchmark_folder(small_model(), tmp_path, batch_size=3, progress=False)
    assert [row.part for row in rows] == ["decode alone", "model alone", "together"]
    seconds = [2e-3, 4e-3, 6e-3]
    assert [row.images_per_second for row in rows] == pytest.approx([6 / each for each in seconds])
    assert [row.busy for row in rows] == pytest.approx([1 / (each * (os.cpu_count() or 1)) for each in seconds])
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    assert rows[0].peak_mib <= rows[1].peak_mib <= rows[2].peak_mib == pytest.approx(peak, rel=0.1)
    small_model().save_pretrained(tmp_path / "model")
    arguments = ["benchmark", "--model", f"local-dir:{tmp_path / 'model'}", "--images", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0 and "| together |" in done.stdout, done.output
    done = CliRunner().invoke(main, [*arguments, "--train"])
    assert done.exit_code == 2 and "--images and --train are different benchmarks" in done.output


def test_a_folder_without_readable_images_is_an_error(tmp_path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="holds nothing that can be read among its first 32 images"):
        benchmark_folder(small_model(), tmp_path)
