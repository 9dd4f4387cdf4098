"""A folder of pictures from files to predictions."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from factories import small_model
from PIL import Image

from diffmiczoo.benchmark.folder import benchmark_folder
from diffmiczoo.cli import main
from diffmiczoo.images.items import ImageError


def test_a_folder_from_files_to_answers(tmp_path) -> None:
    for index in range(5):
        Image.new("RGB", (80, 60), (50 * index, 0, 0)).save(tmp_path / f"{index}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    rows = benchmark_folder(small_model(), tmp_path, batch_size=3, progress=False)
    assert [row.part for row in rows] == ["decode alone", "model alone", "together"]
    assert all(row.images_per_second > 0 and row.busy >= 0 and row.peak_mib > 10 for row in rows)
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
