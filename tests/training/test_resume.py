"""No work is lost: killed, stopped, out of disk or gone wrong, a run goes on and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from factories import FULL_RECIPE, QUICK, OnStep, edited, tiny_model
from PIL import Image
from processes import ForkedProcess, outputs, train

import diffmiczoo
from diffmiczoo.images.items import ImageError
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.callbacks import Callback
from diffmiczoo.training.checkpoint import load_checkpoint


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(common_manifest, quick_run, tmp_path, stop_after) -> None:
    class Stop(Callback):
        saves = 0

        def on_checkpoint(self, path: Path) -> None:
            assert path.exists()
            self.saves += 1
            if self.saves == stop_after:
                raise KeyboardInterrupt

    part = {"recipe": QUICK, "output": tmp_path / "part", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        diffmiczoo.fit(tiny_model(), common_manifest, callbacks=[Stop()], **part)
    whole = quick_run.model
    other = DiffMICv2(whole.config.replace(temperature=None))
    resumed = diffmiczoo.fit(other, common_manifest, **part)
    assert len(resumed.history) == 4 and resumed.model.config == whole.config
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_unfinished_files_of_decoded_images_are_removed(manifest_csv, tmp_path) -> None:
    left = tmp_path / "run" / "cache" / ".0123abcd.u8.4711.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"gigabytes, of a process that was killed")
    (left.parent / "0123abcd.u8").write_bytes(b"complete")
    diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, output=tmp_path / "run", progress=False)
    assert [path.name for path in left.parent.iterdir()] == ["0123abcd.u8"]


def test_a_checkpoint_of_another_recipe_is_refused(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0)
    diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"another recipe \(fields \['dcg_lr'\]\)"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe.replace(dcg_lr=0.1), output=tmp_path / "run")
    diffmiczoo.fit(
        tiny_model(), manifest_csv, recipe=recipe.replace(dcg_lr=0.1), output=tmp_path / "run", resume="never"
    )


def test_other_data_in_the_same_output_are_refused(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0)
    diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    swapped = edited(manifest_csv, lambda lines: [lines[0], lines[1].replace("dark", "light"), *lines[2:]])
    with pytest.raises(ValueError, match="was made with other images, labels, splits or teachers"):
        diffmiczoo.fit(tiny_model(), swapped, recipe=recipe, output=tmp_path / "run", progress=False)


def test_a_run_that_is_refused_leaves_the_files_of_the_one_that_is_there(manifest_csv, tmp_path) -> None:
    """Its table of splits would otherwise call pictures test pictures that the weights were trained on."""
    without_splits = edited(manifest_csv, lambda lines: [",".join(line.split(",")[:2]) for line in lines])
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0)
    output = tmp_path / "run"
    diffmiczoo.fit(tiny_model(), without_splits, recipe=recipe, output=output, progress=False)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert output / "split.csv" in before
    with pytest.raises(ValueError, match=r"another recipe \(fields \['seed'\]\)"):
        diffmiczoo.fit(tiny_model(), without_splits, recipe=recipe.replace(seed=7), output=output, progress=False)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_with_another_number_of_workers(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0, rand_augment=9.0)
    run = {"output": tmp_path / "run", "progress": False}
    first = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, **run)
    again = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe.replace(num_workers=1), **run)
    assert again.history == first.history


def test_a_run_that_starts_anew_leaves_nothing_of_the_one_before(manifest_csv, tmp_path) -> None:
    output, recipe = tmp_path / "run", QUICK.replace(dcg_epochs=1, diffusion_epochs=1)
    without_splits = edited(manifest_csv, lambda lines: [",".join(line.split(",")[:2]) for line in lines])
    diffmiczoo.fit(tiny_model(), without_splits, recipe=recipe, output=output, progress=False)
    card = json.loads((output / "best" / "card.json").read_text())
    (output / "best" / "card.json").write_text(json.dumps(card | {"license": "apache-2.0"}))
    given = edited(manifest_csv, lambda lines: lines[:-1])
    anew = {"output": output, "progress": False, "resume": "never"}
    diffmiczoo.fit(tiny_model(), given, recipe=recipe.replace(diffusion_epochs=0), **anew)
    new = json.loads((output / "best" / "card.json").read_text())
    assert new["license"] == "apache-2.0"
    assert new["counts"] != card["counts"] and new["split"] != card["split"]
    assert not (output / "last").exists() and not (output / "best" / "metrics.json").exists()
    assert not (output / "confusion.png").exists()
    splits = [line.split(",")[2] for line in (output / "split.csv").read_text().splitlines()[1:]]
    assert splits.count("train") == new["counts"]["train"]


def test_nothing_of_the_one_before_is_left_where_the_new_one_was_interrupted(manifest_csv, tmp_path) -> None:
    output, recipe = tmp_path / "run", QUICK.replace(dcg_epochs=2, diffusion_epochs=1)
    diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=output, progress=False)
    assert (output / "confusion.png").exists() and (output / "last").exists()
    options = {"recipe": recipe.replace(diffusion_epochs=0), "output": output, "progress": False}

    def stop(stage: str, epoch: int, batch: int) -> None:
        if epoch == stop_in:
            raise KeyboardInterrupt

    stop_in = 0
    with pytest.raises(KeyboardInterrupt):
        diffmiczoo.fit(tiny_model(), manifest_csv, resume="never", callbacks=[OnStep(stop)], **options)
    assert (output / "last").exists() and (output / "confusion.png").exists(), "no checkpoint of its own yet"
    stop_in = 1
    with pytest.raises(KeyboardInterrupt):
        diffmiczoo.fit(tiny_model(), manifest_csv, resume="never", callbacks=[OnStep(stop)], **options)
    diffmiczoo.fit(tiny_model(), manifest_csv, **options)
    assert not (output / "last").exists() and not (output / "confusion.png").exists()


def test_broken_pictures_of_both_splits_are_named_at_once(manifest_csv, tmp_path) -> None:
    lines = [line.split(",") for line in manifest_csv.read_text().splitlines()[1:]]
    broken = [next(line[0] for line in lines if line[2] == split) for split in ("train", "val")]
    for name in broken:
        (manifest_csv.parent / name).write_bytes(b"no picture")
    with pytest.raises(ImageError) as error:
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, output=tmp_path / "run", progress=False)
    assert all(Path(name).name in str(error.value) for name in broken)


def test_other_pixels_under_the_same_names_are_refused(quick_run, common_manifest, tmp_path) -> None:
    data = shutil.copytree(common_manifest.parent, tmp_path / "data")
    run = shutil.copytree(quick_run.output, tmp_path / "run")
    file = data / (data / "labels.csv").read_text().splitlines()[1].split(",")[0]
    with Image.open(file) as image:
        changed = image.point(lambda value: 255 - value)
    changed.save(file)
    with pytest.raises(ValueError, match=r"was made with other images.*where their pixels, or weights, are others"):
        diffmiczoo.fit(tiny_model(), data / "labels.csv", recipe=QUICK, output=run, progress=False)


def test_a_field_that_came_after_the_checkpoint_had_its_default(quick_run, common_manifest, tmp_path) -> None:
    run = shutil.copytree(quick_run.output, tmp_path / "run")
    values = torch.load(run / "checkpoint.pt", weights_only=True)
    values["recipe"].pop("cutmix"), values["config"].pop("prior_weight")
    torch.save(values, run / "checkpoint.pt")
    options = {"output": run, "progress": False}
    with pytest.raises(ValueError, match=r"another recipe \(fields \['cutmix'\]\)"):
        diffmiczoo.fit(tiny_model(), common_manifest, recipe=QUICK.replace(cutmix=1.0), **options)
    with pytest.warns(UserWarning, match="holds this run, finished"):
        result = diffmiczoo.fit(tiny_model(), common_manifest, recipe=QUICK, **options)
    assert result.history == quick_run.history


@pytest.fixture(autouse=True)
def one_thread():
    """Bit-identical sums need the same number of threads as in the other process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(data: Path, output: Path, dies_at: tuple[str, int, int] | None = None) -> ForkedProcess:
    return ForkedProcess(train, data, output, FULL_RECIPE.to_dict(), dies_at)


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return diffmiczoo.create_model(f"local-dir:{directory}", pretrained=True).state_dict()


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture(scope="module")
def uninterrupted(common_manifest, tmp_path_factory) -> Path:
    """The directory of a whole run; nobody may write there."""
    output = tmp_path_factory.mktemp("run") / "whole"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    diffmiczoo.fit(tiny_model(), common_manifest, recipe=FULL_RECIPE, output=output, progress=False)
    torch.set_num_threads(threads)
    return output


def test_killed_at_random_moments_a_run_ends_with_the_same_bits(common_manifest, uninterrupted, tmp_path) -> None:
    """A kill in the middle of an epoch, and three a random part of a few batches later; then it is left alone.

    A batch, not a second, is the clock: a faster machine must not be done before it is killed.
    """
    moments = random.Random(os.environ.get("DIFFMICZOO_KILL_SEED", "7"))
    checkpoint = tmp_path / "part" / "checkpoint.pt"
    process = start(common_manifest, tmp_path / "part", dies_at=("dcg", 0, 5))
    assert process.wait()[-1] == "step" and process.exitcode == -signal.SIGKILL
    state = load_checkpoint(checkpoint)
    assert (state.stage, state.progress.epoch, state.progress.batch) == (0, 0, 4)
    for _ in range(3):
        process = start(common_manifest, tmp_path / "part")
        begun = [(process.receive(), time.monotonic()) for _ in range(moments.randint(2, 3))]
        assert [word for word, _ in begun] == ["step"] * len(begun)
        time.sleep(moments.uniform(0, 1.5) * (begun[-1][1] - begun[-2][1]))
        process.kill()
        process.wait()
        assert process.exitcode == -signal.SIGKILL, "it was done before it was killed"
        load_checkpoint(checkpoint)  # whole, whatever was being written
    checkpoint.with_name(".checkpoint.pt.1.partial").write_bytes(b"a kill while it was being written")
    process = start(common_manifest, tmp_path / "part")
    outputs([process])
    assert not list(checkpoint.parent.glob("*.partial"))
    for kind in ("best", "last"):
        assert_equal(tensors(tmp_path / "part" / kind), tensors(uninterrupted / kind))
    whole = load_checkpoint(uninterrupted / "checkpoint.pt")
    part = load_checkpoint(tmp_path / "part" / "checkpoint.pt")
    assert_equal(part.model, whole.model)
    assert_equal(part.optimization["average"], whole.optimization["average"])
    for one, other in zip(part.history, whole.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops_in_the_middle_of_an_epoch(common_manifest, uninterrupted, tmp_path, number) -> None:
    steps = []
    before = signal.getsignal(number)

    def signalled(*place) -> None:
        steps.append(place)
        if len(steps) == 3:
            os.kill(os.getpid(), number)

    part = {"recipe": FULL_RECIPE, "output": tmp_path / "part", "progress": False}
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 1, batch 4 of 6"):
        diffmiczoo.fit(tiny_model(), common_manifest, callbacks=[OnStep(signalled)], **part)
    assert steps == [("dcg", 0, batch) for batch in range(4)]
    assert load_checkpoint(tmp_path / "part" / "checkpoint.pt").progress.batch == 4  # an update is two batches
    assert signal.getsignal(number) == before
    diffmiczoo.fit(tiny_model(), common_manifest, **part)
    assert_equal(tensors(tmp_path / "part" / "best"), tensors(uninterrupted / "best"))


def test_ctrl_c_at_the_command_line_says_how_to_go_on(manifest_csv, tmp_path) -> None:
    command = [
        sys.executable,
        "-m",
        "diffmiczoo.cli",
        "fit",
        "--no-report",
        "--model",
        "diffmicv2_nano",
        "--train",
        str(manifest_csv),
    ]
    command += ["--config", "image_size=64", "--set", "batch_size=4", "--output", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    history = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not history.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "start it again" in errors and "Traceback" not in errors
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").history


def test_a_full_disk_leaves_the_checkpoint_before_it(common_manifest, uninterrupted, tmp_path) -> None:
    """The limit on the size of a file stands for the disk: writing fails in the middle, by the system's own error."""
    import resource

    output = tmp_path / "part"
    short = FULL_RECIPE.replace(diffusion_epochs=0)
    diffmiczoo.fit(tiny_model(), common_manifest, recipe=short, output=output, progress=False)
    before = (output / "checkpoint.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint\.pt: the checkpoint could not be written .* intact"):
            diffmiczoo.fit(
                tiny_model(), common_manifest, recipe=FULL_RECIPE, output=output, progress=False, resume="never"
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (output / "checkpoint.pt").read_bytes() == before
    assert not list(output.glob("*.partial"))


def test_two_runs_in_one_directory_are_refused(common_manifest, uninterrupted, tmp_path) -> None:
    """The second says so before it has written anything, and the first ends as if nothing had happened."""
    refused = []

    def interfere(*_) -> None:
        if not refused:
            refused.append(True)
            before = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").iterdir()}
            process = start(common_manifest, tmp_path / "part")
            ((_, error),) = process.wait()
            assert process.exitcode == 1
            assert "part: another run is going on in this directory; wait for it" in error
            assert {path: path.stat().st_mtime_ns for path in (tmp_path / "part").iterdir()} == before

    options = {"output": tmp_path / "part", "callbacks": [OnStep(interfere)], "progress": False}
    diffmiczoo.fit(tiny_model(), common_manifest, recipe=FULL_RECIPE, **options)
    assert refused
    assert_equal(tensors(tmp_path / "part" / "best"), tensors(uninterrupted / "best"))


def test_a_finished_run_is_not_trained_again(common_manifest, uninterrupted, tmp_path) -> None:
    output = shutil.copytree(uninterrupted, tmp_path / "run")
    options = {"output": output, "callbacks": [OnStep(lambda *_: pytest.fail("trained again"))]}
    with pytest.warns(UserWarning, match="run holds this run, finished: nothing is left to train"):
        result = diffmiczoo.fit(tiny_model(), common_manifest, recipe=FULL_RECIPE, progress=False, **options)
    assert_equal(tensors(output / "best"), tensors(uninterrupted / "best"))
    assert len(result.history) == 4
