"""`diffmiczoo audit`: what it prints, writes and ends with."""

from __future__ import annotations

import json

import numpy as np
from factories import run_command, save_picture, write_manifest
from PIL import Image


def _noise(path, seed: int) -> None:
    save_picture(path, np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8))


def test_clean_data_end_with_status_0(tmp_path) -> None:
    for number in range(8):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        _noise(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    result = run_command("audit", tmp_path)
    assert result.exit_code == 0 and result.stdout == "nothing found\n"
    assert "8 images, 2 classes, multiclass" in result.stderr


def test_what_is_wrong_ends_with_status_1_and_is_written(tmp_path) -> None:
    table = write_manifest(tmp_path / "data") if (tmp_path / "data").mkdir() is None else None
    (tmp_path / "data" / "0.png").write_bytes((tmp_path / "data" / "39.png").read_bytes())
    result = run_command("audit", table, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stdout.startswith("wrong\n") and "0.png (dark, train) = 39.png (light, test)" in result.stdout
    assert "The same picture in two splits" in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    saved = json.loads((tmp_path / "out" / "audit.json").read_text())
    shown = run_command("audit", table, "--format", "json")
    assert shown.exit_code == 1 and json.loads(shown.stdout) == saved
    assert {each["kind"] for each in saved["findings"]} >= {"leak", "conflict", "give-away"}


def test_a_model_is_asked(tmp_path, weights) -> None:
    (tmp_path / "data").mkdir()
    result = run_command("audit", write_manifest(tmp_path / "data"), "--model", weights, "--format", "json")
    assert result.exit_code == 0
    opinion = json.loads(result.stdout)["opinion"]
    assert opinion["model"] == weights and opinion["images"] == 40


def test_what_is_typed_wrong_is_status_2(tmp_path, monkeypatch) -> None:
    _noise(tmp_path / "one.png", 0)
    assert run_command("audit", tmp_path / "nowhere").exit_code == 2
    assert run_command("audit", tmp_path).exit_code == 2
    (tmp_path / "file").touch()
    assert run_command("audit", tmp_path, "--output", tmp_path / "file").exit_code == 2


def test_a_model_of_the_environment_is_not_asked(tmp_path, monkeypatch) -> None:
    """It may be for other classes; audits need none."""
    monkeypatch.setenv("DIFFMICZOO_MODEL", "diffmicv2_ham10000")
    for number in range(4):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        _noise(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    assert run_command("audit", tmp_path).exit_code == 0


def test_hostile_names_do_not_reach_the_screen_as_they_are(tmp_path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    for number in range(4):
        _noise(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    Image.open(tmp_path / "a" / "0.png").save(tmp_path / "b" / "x\x1b[31m\n.png")
    result = run_command("audit", tmp_path)
    assert result.exit_code == 1 and "\x1b" not in result.output and "x\N{REPLACEMENT CHARACTER}[31m" in result.stdout
