"""Teachers answer to what the student sees, and have their share of its labels."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from factories import QUICK, edited, tiny_model

import diffmiczoo
from diffmiczoo.data.known_pictures import count_known
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.images.preprocessing import denormalize, normalize
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.optimization import Optimization
from diffmiczoo.training.soft_labels import SoftLabels
from diffmiczoo.training.stages import create_stages, trainable
from diffmiczoo.training.teachers import Teachers, load_teachers

NAMES = ("dark", "light")
CPU = torch.device("cpu")


def teacher(seed: int, **fields):
    # Of an untrained sampler nobody could tell which picture it saw.
    model = tiny_model(**{"class_names": NAMES, "prior_weight": (1.0, 0.1), **fields}).eval()
    model.trained = True
    with torch.no_grad():
        # Untrained ones say nearly the same of all pictures, and `tiny_model`'s are all one.
        weight = model.dcg.saliency_conv.weight
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * 2)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("teachers")
    for seed in (0, 1):
        teacher(seed, temperature=2.0, prior_weight=(0.5, 0.1)).save_pretrained(directory / str(seed) / "best")
    return tuple(str(directory / str(seed) / "best") for seed in (0, 1))


def test_the_answer_is_the_mean_of_their_predictions() -> None:
    models = [teacher(0, temperature=2.0, prior_weight=(0.5, 0.1)), teacher(1)]
    student = tiny_model(class_names=NAMES)
    size = student.config.input_size
    squares = torch.rand(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    squares *= torch.linspace(0, 1, 5)[:, None, None, None]
    answers = Teachers([("", model) for model in models], student.config)(normalize(squares, student.config))
    wanted = torch.stack([model.predict(list(squares)).probs for model in models]).mean(0)
    torch.testing.assert_close(answers, wanted, rtol=1e-4, atol=1e-5)
    assert answers.std(0).min() > 1e-3, "other pictures, other answers"
    assert not answers.is_inference() and not answers.requires_grad


def test_a_teacher_may_see_another_size_and_scale() -> None:
    first, other = teacher(0), teacher(0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), image_size=96)
    student = tiny_model(class_names=NAMES)
    size = student.config.input_size
    flat = torch.full((1, 3, size, size), 0.3)
    [found] = Teachers([("other", other)], student.config)(normalize(flat, student.config))
    side = other.config.input_size
    assert side != size
    wanted = other.predict([torch.full((3, side, side), 0.3)]).probs[0]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, first.predict([flat[0]]).probs[0], atol=1e-3)


def test_classes_in_another_order_are_put_into_the_students() -> None:
    """A cycle of three: two classes do not tell an order from its inverse."""
    other = teacher(0, num_classes=3, class_names=("b", "c", "a"))
    student = tiny_model(num_classes=3, class_names=("a", "b", "c"))
    squares = torch.rand(4, 3, student.config.input_size, student.config.input_size)
    found = Teachers([("other", other)], student.config)(normalize(squares, student.config))
    wanted = other.predict(list(squares)).probs
    torch.testing.assert_close(found, torch.stack([wanted[:, 2], wanted[:, 0], wanted[:, 1]], 1), rtol=1e-4, atol=1e-5)


def test_views_that_a_teacher_averages_are_a_part_of_its_answer() -> None:
    student, one = tiny_model(class_names=NAMES), teacher(0, tta="hflip")
    squares = torch.rand(2, 3, student.config.input_size, student.config.input_size)
    squares[:, :, :, : squares.shape[-1] // 2] = 0
    found = Teachers([("one", one)], student.config)(normalize(squares, student.config))
    torch.testing.assert_close(found, one.predict(list(squares)).probs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, one.predict(list(squares), tta="none").probs, atol=1e-4)


def test_a_teacher_that_answers_nothing_is_named() -> None:
    broken = teacher(0)
    with torch.no_grad():
        broken.dcg.saliency_conv.weight.fill_(float("nan"))
    student = tiny_model(class_names=NAMES)
    images = torch.randn(1, 3, student.config.input_size, student.config.input_size)
    with pytest.raises(ValueError, match="teacher runs/a answers with NaN"):
        Teachers([("runs/a", broken)], student.config)(images)


def test_pixels_come_back() -> None:
    config, squares = tiny_model().config, torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(denormalize(normalize(squares, config), config), squares, rtol=0, atol=1e-6)


def test_teachers_have_their_share_of_the_labels(saved) -> None:
    config = tiny_model(class_names=NAMES).config
    recipe = QUICK.replace(teachers=saved, teacher_share=0.25, label_smoothing=0.1)
    teachers = load_teachers(recipe, config, CPU)
    images, labels = torch.randn(3, 3, config.input_size, config.input_size), torch.eye(2)[[0, 1, 1]]
    found = SoftLabels(recipe, config, teachers)(labels, images)
    torch.testing.assert_close(found, 0.75 * (0.9 * labels + 0.05) + 0.25 * teachers(images))


@pytest.mark.parametrize("stage_name", ["dcg", "diffusion"])
def test_with_the_whole_share_the_dcg_does_not_see_the_labels(saved, stage_name) -> None:
    losses = {}
    for share in (0.5, 1.0):
        for labels in ([0, 1] * 4, [1, 0] * 4):
            model = tiny_model(class_names=NAMES)
            recipe = QUICK.replace(teachers=saved, teacher_share=share)
            teachers = load_teachers(recipe, model.config, CPU)
            stage = next(each for each in create_stages(recipe, model.config) if each.name == stage_name)
            images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
            with trainable(model, stage, recipe):
                targets = torch.tensor(labels)
                step = Optimization(model, stage, recipe, targets, 1, Processes(CPU), teachers).training_step
                losses[share, labels[0]] = step(images, targets, 0, 0)
    assert losses[0.5, 0] != losses[0.5, 1]
    assert (losses[1.0, 0] == losses[1.0, 1]) == (stage_name == "dcg")
    assert (losses[0.5, 0] == losses[1.0, 0]) == (stage_name == "diffusion")


def test_a_run_with_teachers(saved, manifest_csv, tmp_path) -> None:
    recipe, run = QUICK.replace(teachers=saved, dcg_epochs=1, diffusion_epochs=0), tmp_path / "run"
    student = tiny_model(class_names=NAMES, predictor="dcg")
    result = diffmiczoo.fit(student, manifest_csv, recipe=recipe, output=run, progress=False)
    assert result.metrics is not None and len(result.history) == 1
    other = recipe.replace(teachers=saved[:1])
    again = tiny_model(class_names=NAMES, predictor="dcg")
    losses = diffmiczoo.fit(again, manifest_csv, recipe=other, output=tmp_path / "other", progress=False).history
    assert losses[0]["train_loss"] != result.history[0]["train_loss"], "the teachers are asked"
    written = json.loads((run / "best" / "recipe.json").read_text())
    assert written["teachers"] == ["…/0/best", "…/1/best"], "no paths of this machine beside weights"
    with pytest.raises(ValueError, match=r"does not say in which folders the teachers were"):
        load_teachers(diffmiczoo.Recipe.load(run / "best" / "recipe.json"), student.config, CPU)
    assert json.loads((run / "recipe.json").read_text())["teachers"] == list(saved)
    assert diffmiczoo.Recipe.load(run / "recipe.json").teachers == saved


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_names": ("light", "grey")}, r"teacher .* has the classes \('light', 'grey'\), the model that learns"),
        ({"crop_mode": "squash"}, "has crop_mode 'squash', the model that learns 'center'"),
        ({"task": "multilabel"}, "has task 'multilabel', the model that learns 'multiclass'"),
    ],
)
def test_teachers_of_something_else_are_refused(manifest_csv, tmp_path, fields, message) -> None:
    teacher(0, **fields).save_pretrained(tmp_path / "teacher")
    recipe = QUICK.replace(teachers=(str(tmp_path / "teacher"),))
    student = tiny_model()
    with pytest.raises(ValueError, match=message):
        diffmiczoo.fit(student, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert student.config.class_names == (), "the model is as it was"


def test_untrained_and_absent_teachers_are_refused(manifest_csv, tmp_path) -> None:
    tiny_model(class_names=NAMES).save_pretrained(tmp_path / "untrained")
    for source, error, message in (
        (tmp_path / "untrained", ValueError, "untrained: its last stage was never trained"),
        (tmp_path / "nothing", ValueError, "nothing"),
        ("runs/no/best", ValueError, "teacher runs/no/best: there is no such directory"),
        ("diffmicv2_nano.none", ValueError, "teacher diffmicv2_nano.none: "),
        ("diffmicv2_nano.busi", ValueError, r"has the classes \('benign', 'malignant', 'normal'\)"),
    ):
        recipe = QUICK.replace(teachers=(str(source),))
        with pytest.raises(error, match=message):
            diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)


def test_other_weights_in_a_teachers_place_are_not_taken_on_resuming(saved, manifest_csv, tmp_path) -> None:
    place = shutil.copytree(saved[0], tmp_path / "teacher")
    recipe = QUICK.replace(teachers=(str(place),), dcg_epochs=1, diffusion_epochs=0)
    options = {"recipe": recipe, "output": tmp_path / "run", "progress": False}
    diffmiczoo.fit(tiny_model(class_names=NAMES, predictor="dcg"), manifest_csv, **options)
    shutil.rmtree(place)
    shutil.copytree(saved[1], place)
    with pytest.raises(ValueError, match="was made with other images, labels, splits or teachers"):
        diffmiczoo.fit(tiny_model(class_names=NAMES, predictor="dcg"), manifest_csv, **options)


def test_teachers_that_have_seen_held_back_images_are_named(manifest_csv, tmp_path) -> None:
    swapped = edited(manifest_csv, lambda lines: [_swapped(line) for line in lines])
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0)
    one = tiny_model(class_names=NAMES, predictor="dcg")
    diffmiczoo.fit(one, swapped, recipe=recipe, output=tmp_path / "teacher", progress=False)
    taught = recipe.replace(teachers=(str(tmp_path / "teacher" / "best"),))
    student = tiny_model(class_names=NAMES, predictor="dcg")
    with pytest.warns(UserWarning, match=r"teacher .*best was trained on \d+ of the \d+ images that are held back"):
        result = diffmiczoo.fit(student, manifest_csv, recipe=taught, output=tmp_path / "run", progress=False)
    own = len(read_manifest(manifest_csv).split("train"))
    seen = count_known(result.model.training_pictures, read_manifest(manifest_csv), student.config, False)
    assert seen > own, "what its teachers have seen, a student has seen"


def _swapped(line: str) -> str:
    """Trains on what is held back: split train becomes val, the others train."""
    file, label, split, group = line.split(",")
    return ",".join([file, label, {"train": "val", "val": "train", "test": "train"}.get(split, split), group])
