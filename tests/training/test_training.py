from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from factories import QUICK, tiny_model

import diffmiczoo
from diffmiczoo.data.augmentation import create_augmentation
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.inference.probabilities import score_logits
from diffmiczoo.metrics.calibration import fit_temperature
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.encoders import create_encoder
from diffmiczoo.runtime.depthwise import fast_depthwise
from diffmiczoo.runtime.precision import autocast
from diffmiczoo.training.checkpoint import load_checkpoint, save_checkpoint
from diffmiczoo.training.presets import preset_recipe
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import create_stages, parameter_groups
from diffmiczoo.training.trainer import selection_value
from diffmiczoo.zoo.registry import model_config


def test_fit_learns_what_is_easy_and_leaves_a_loadable_model(manifest_csv, tmp_path) -> None:
    model = tiny_model(latent_dim=32)
    recipe = QUICK.replace(dcg_epochs=4, diffusion_epochs=24, diffusion_lr=3e-2, validate_every=8)
    state = torch.get_rng_state()
    result = diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.trained and model.config.labels == ("dark", "light") and model.config.temperature is not None
    test = read_manifest(manifest_csv).split("test")
    loaded = diffmiczoo.create_model(f"local-dir:{tmp_path}/run/best", pretrained=True)
    prediction = loaded.predict([record.path for record in test.records])
    assert prediction.labels == [record.labels[0] for record in test.records]
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [row["stage"] for row in rows] == ["dcg"] * 4 + ["diffusion"] * 24
    assert len(result.history) == 28 and all(float(row["train_loss"]) > 0 for row in rows)
    assert Recipe.load(tmp_path / "run" / "recipe.json") == recipe


def test_a_calibrated_model_is_no_worse_on_validation_than_its_parts(manifest_csv, tmp_path) -> None:
    """Pooled with the DCG's logits it contains both as special cases, so this holds however badly it learned."""
    recipe = QUICK.replace(dcg_epochs=3, diffusion_epochs=2, dcg_lr=1e-2, select="nll")
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    model = diffmiczoo.create_model(f"local-dir:{tmp_path}/run/best", pretrained=True)
    assert model.config.prior_weight == result.model.config.prior_weight > 0
    records = read_manifest(manifest_csv).split("val").records
    truth = torch.tensor([model.config.labels.index(record.labels[0]) for record in records])
    found = model.predict([record.path for record in records])

    def loss(probs: torch.Tensor) -> float:
        return float(torch.nn.functional.nll_loss(probs.double().log(), truth))

    parts = score_logits(found.scores, model.config), found.dcg_scores
    alone = [(part / fit_temperature(part, truth, task="multiclass")).softmax(-1) for part in parts]
    assert loss(found.probs) <= min(map(loss, alone)) + 1e-6
    kept = next(row for row in result.history if row["stage"] == "diffusion" and row["kept"])
    assert loss(found.probs) == pytest.approx(kept["nll"], abs=1e-4)


def test_a_dcg_that_learns_alone_takes_the_calibration_with_it(manifest_csv, tmp_path) -> None:
    model = tiny_model(temperature=0.123, prior_weight=7.0)
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0)
    diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert model.config == model.config.uncalibrated()


def test_stage_two_leaves_the_dcg_as_it_is(manifest_csv, tmp_path) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    diffmiczoo.fit(model, manifest_csv, recipe=QUICK.replace(dcg_epochs=0), output=tmp_path / "run", progress=False)
    changed = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"feature_prior", "unet"}


def test_stage_one_touches_only_the_dcg_and_stays_untrained(manifest_csv, tmp_path) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = QUICK.replace(diffusion_epochs=0)
    diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    changed = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"dcg"} and not model.trained


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(manifest_csv, tmp_path, monkeypatch, stop_after) -> None:
    whole = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, output=tmp_path / "whole", progress=False).model

    import diffmiczoo.training.trainer as loop

    saves = []

    def stopping(state, path) -> None:
        save_checkpoint(state, path)
        saves.append(path)
        if len(saves) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", stopping)
    with pytest.raises(KeyboardInterrupt):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, output=tmp_path / "part", progress=False)
    monkeypatch.setattr(loop, "save_checkpoint", save_checkpoint)
    other = DiffMICv2(whole.config.replace(temperature=None))
    resumed = diffmiczoo.fit(other, manifest_csv, recipe=QUICK, output=tmp_path / "part", progress=False)
    assert len(resumed.history) == 4 and resumed.model.config == whole.config
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_checkpoint_of_another_recipe_is_refused(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0)
    diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"another recipe \(fields \['dcg_lr'\]\)"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe.replace(dcg_lr=0.1), output=tmp_path / "run")
    diffmiczoo.fit(
        tiny_model(), manifest_csv, recipe=recipe.replace(dcg_lr=0.1), output=tmp_path / "run", resume="never"
    )


def test_a_loss_that_is_not_finite_stops_the_run(manifest_csv, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(DiffMICv2, "dcg_loss", lambda self, *_, **__: next(self.parameters()).sum() * float("nan"))
    with pytest.raises(ValueError, match="the loss became nan in stage dcg, epoch 1, batch 1"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, output=tmp_path / "run", progress=False)


def test_fit_refuses_what_does_not_fit(manifest_csv, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"call finetune, or model\.reset_classifier"):
        diffmiczoo.fit(tiny_model(num_classes=3), manifest_csv, output=tmp_path / "run")
    with pytest.raises(ValueError, match="do not fill one batch of 64"):
        diffmiczoo.fit(tiny_model(), manifest_csv, output=tmp_path / "run")
    with pytest.raises(ValueError, match="resume='maybe'"):
        diffmiczoo.fit(tiny_model(), manifest_csv, output=tmp_path / "run", resume="maybe")


def test_the_selection_metric_has_to_exist_and_may_be_undefined() -> None:
    metrics = Metrics({"auroc": float("nan"), "nll": 0.4, "accuracy": 0.5}, {}, {}, 4, None, ())
    assert selection_value(metrics, "auroc") == float("-inf")
    assert selection_value(metrics, "nll") == -0.4 and selection_value(metrics, "accuracy") == 0.5
    with pytest.raises(ValueError, match="select='macro_f1' is not a metric of this task"):
        selection_value(metrics, "macro_f1")


def test_bf16_steps_use_the_weights_of_their_own_step() -> None:
    """Autocast caches bf16 copies of the weights for as long as its context lasts."""
    encoder = create_encoder("test_efficientnet", 64)
    images = torch.randn(4, 3, 64, 64)
    outputs = []
    with fast_depthwise(encoder):
        for _ in range(2):
            with autocast("bf16", torch.device("cpu")):
                outputs.append(encoder(images).float())
            with torch.no_grad():
                for parameter in encoder.parameters():
                    parameter.mul_(1.5)
    assert not torch.allclose(outputs[0], outputs[1], rtol=0.1)


def test_learning_rates_and_decay_of_the_parameter_groups() -> None:
    model, recipe = tiny_model(), QUICK.replace(encoder_lr=1e-3, weight_decay=0.5)
    groups = parameter_groups(model, create_stages(recipe, model.config)[1], recipe)
    of = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(of) == len(list(model.feature_prior.parameters())) + len(list(model.unet.parameters()))
    assert of[id(model.feature_prior.Q)] == (1e-2, 0.0)
    assert of[id(model.unet.block1.gamma.weight)] == (1e-2, 0.0)
    assert of[id(model.unet.block2.conv.weight)] == (1e-2, 0.5)
    assert of[id(next(model.feature_prior.raw_encoder.parameters()))] == (pytest.approx(1e-3), 0.5)


def test_checkpoints_are_replaced_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"epoch": 1}, path)

    class Unwritable:
        def __reduce__(self):
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="the one before it is intact"):
        save_checkpoint({"epoch": 2, "x": Unwritable()}, path)
    assert load_checkpoint(path) == {"epoch": 1} and list(tmp_path.iterdir()) == [path]
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="delete it to start again"):
        load_checkpoint(path)


def test_recipe_json_round_trip_and_errors(tmp_path) -> None:
    QUICK.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == QUICK
    (tmp_path / "part.json").write_text(json.dumps({"dcg_lr": 0.5}))
    assert Recipe.load(tmp_path / "part.json") == Recipe(dcg_lr=0.5)
    for text, message in [("[1]", "expected a JSON object"), ("{", "not a JSON file"), ('{"lr": 1}', "unknown fields")]:
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            Recipe.load(tmp_path / "bad.json")
    for wrong in ({"precision": "fp8"}, {"batch_size": 1}, {"hflip": 2}, {"dcg_lr": "fast"}, {"seed": True}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            Recipe(**wrong)


def test_presets_are_the_papers_for_paper_sized_models() -> None:
    paper = preset_recipe(model_config("diffmicv2_resnet18.ham10000"))
    assert (paper.dcg_epochs, paper.diffusion_epochs, paper.dcg_lr, paper.diffusion_lr) == (100, 1000, 2e-4, 1e-3)
    assert paper.diffusion_lr * paper.min_lr_ratio == pytest.approx(1e-5) and paper.batch_size == 64
    chest = preset_recipe(model_config("diffmicv2_densenet169.chestxray14"))
    assert (chest.dcg_epochs, chest.diffusion_epochs) == (20, 100)
    assert preset_recipe(model_config("diffmicv2_ham10000")).encoder_lr is not None


# ---------------------------------------------------------------------- data


def test_manifest_of_a_csv(manifest_csv) -> None:
    manifest = read_manifest(manifest_csv)
    assert len(manifest) == 40 and manifest.class_names == ("dark", "light") and manifest.task == "multiclass"
    assert manifest.has_splits and len(manifest.split("val")) == 8
    assert manifest.targets().tolist() == [0, 1] * 20 and manifest.groups()[:3] == ["patient0", "patient0", "patient1"]
    assert read_manifest(manifest_csv.parent).records == manifest.records
    ordered = read_manifest(manifest_csv, class_names=["light", "dark"])
    assert ordered.targets().tolist() == [1, 0] * 20


def test_manifest_of_a_folder(image_folder) -> None:
    manifest = read_manifest(image_folder)
    assert len(manifest) == 12 and manifest.class_names == ("dark", "light") and manifest.groups() is None
    assert all(record.path.parent.name == record.labels[0] for record in manifest.records)
    with pytest.raises(ValueError, match="no image belongs to split 'val'"):
        manifest.split("val")


def test_manifest_with_several_labels(manifest_csv) -> None:
    text = "file,label\n0.png,a|b\n1.png,\n2.png,b\n"
    (manifest_csv.parent / "multi.csv").write_text(text)
    manifest = read_manifest(manifest_csv.parent / "multi.csv")
    assert manifest.task == "multilabel" and manifest.targets().tolist() == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n0.png,a\n", "needs the columns file and label"),
        ("file,label\n", "lists no images"),
        ("file,label\n0.png,a\nnothing.png,b\n", r"1 of 2 files do not exist, first .*nothing\.png"),
        ("file,label\n0.png,a\n0.png,b\n", "1 files more than once"),
        ("file,label,split\n0.png,a,training\n", "line 2: split 'training' is not one of train, val, test"),
        ("file,label\n,a\n", "line 2: column file is empty"),
        ("file,label\n0.png,a\n1.png,a\n", "at least two are needed"),
    ],
)
def test_bad_manifests_name_the_line_and_the_cause(manifest_csv, text: str, message: str) -> None:
    path = manifest_csv.parent / "bad.csv"
    path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_manifest(path)


def test_bad_manifest_arguments(manifest_csv, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"labels \['light'\] are not among the classes"):
        read_manifest(manifest_csv, class_names=["dark", "grey"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="one per class"):
        read_manifest(tmp_path / "empty")


def test_dataset_gives_what_predict_sees(manifest_csv, tiny_config) -> None:
    model = tiny_model()
    manifest = read_manifest(manifest_csv)
    dataset = ImageDataset(manifest, model.config, progress=False)
    assert len(dataset) == 40
    image, target = dataset[3]
    assert torch.equal(image, model.preprocess(manifest.records[3].path)[0]) and target.item() == 1


def test_augmentation_keeps_shape_and_type_and_changes_pixels() -> None:
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    augment = create_augmentation(32, hflip=1.0, vflip=0.5, rotation=30, min_scale=0.5, color_jitter=0.2)
    changed = augment(image)
    assert changed.shape == image.shape and changed.dtype == torch.uint8 and not torch.equal(changed, image)
    flip = create_augmentation(32, hflip=1.0, rotation=0)
    assert torch.equal(flip(image), image.flip(-1))
    assert create_augmentation(32, hflip=0, rotation=0) is None


# ---------------------------------------------------------------------- what people get wrong


def edited(csv_file: Path, change) -> Path:
    """Returns a copy of a manifest, beside it, with its lines changed."""
    lines = csv_file.read_text().splitlines()
    other = csv_file.with_name("edited.csv")
    other.write_text("\n".join(change(lines)) + "\n")
    return other


def test_a_split_for_some_images_only_is_refused(manifest_csv) -> None:
    partly = edited(manifest_csv, lambda lines: [*lines[:3], lines[3].replace("train", ""), *lines[4:]])
    with pytest.raises(ValueError, match=r"1 of 40 images have no split, first 2\.png"):
        read_manifest(partly)


def test_an_empty_label_is_a_mistake_unless_labels_may_be_several(manifest_csv) -> None:
    emptied = edited(manifest_csv, lambda lines: [*lines[:3], lines[3].replace("dark", ""), *lines[4:]])
    with pytest.raises(ValueError, match=r"2\.png has no label"):
        read_manifest(emptied)
    assert read_manifest(emptied, task="multilabel").task == "multilabel"
    several = edited(emptied, lambda lines: [*lines[:2], lines[2].replace("light", "dark|light"), *lines[3:]])
    assert read_manifest(several).task == "multilabel"


def test_validation_data_with_splits_give_their_validation_images(manifest_csv, tmp_path) -> None:
    from diffmiczoo.training.plan import plan_run

    model = tiny_model(class_names=("dark", "light"))
    plan = plan_run(model.config, manifest_csv, manifest_csv, seed=0)
    assert {record.split for record in plan.train.records} == {"train"}
    assert {record.split for record in plan.val.records} == {"val"}
    unsplit = edited(manifest_csv, lambda lines: [",".join(line.split(",")[:2]) for line in lines])
    with pytest.raises(ValueError, match=r"24 images are in the training and in the validation data, first .*\.png"):
        diffmiczoo.fit(model, manifest_csv, unsplit, QUICK, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_manifests_have_to_fit_the_model(manifest_csv, tmp_path) -> None:
    given = read_manifest(manifest_csv)
    turned = read_manifest(manifest_csv, class_names=["light", "dark"])
    with pytest.raises(ValueError, match=r"has the classes \['light', 'dark'\], the model \['dark', 'light'\]"):
        diffmiczoo.fit(tiny_model(), given, turned.split("val"), QUICK, output=tmp_path / "run")
    several = read_manifest(manifest_csv, task="multilabel")
    with pytest.raises(ValueError, match="is multilabel, the model multiclass; create it with task='multilabel'"):
        diffmiczoo.fit(tiny_model(), several, recipe=QUICK, output=tmp_path / "run")
    with pytest.raises(
        ValueError,
        match="select='balanced_accuracy' is not a metric of this multilabel model; it has accuracy, macro_f1",
    ):
        recipe = QUICK.replace(select="balanced_accuracy")
        diffmiczoo.fit(tiny_model(task="multilabel"), several, recipe=recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_data_in_the_same_output_are_refused(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0)
    diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    swapped = edited(manifest_csv, lambda lines: [lines[0], lines[1].replace("dark", "light"), *lines[2:]])
    with pytest.raises(ValueError, match="was made with other images, labels or splits"):
        diffmiczoo.fit(tiny_model(), swapped, recipe=recipe, output=tmp_path / "run", progress=False)


@pytest.mark.parametrize("training", [True, False])
def test_fit_leaves_the_mode_as_found(manifest_csv, tmp_path, training: bool) -> None:
    model = tiny_model().train(training)
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=1)
    diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert all(module.training is training for module in model.modules())


def test_evaluate_takes_only_splits_that_there_are(manifest_csv, image_folder) -> None:
    model = tiny_model(class_names=("dark", "light"))
    model.trained = True
    options = {"bootstrap": 0, "progress": False}
    assert diffmiczoo.evaluate(model, manifest_csv, **options).num_images == 8
    assert diffmiczoo.evaluate(model, image_folder, **options).num_images == 12
    for data, split in ((manifest_csv, "banana"), (image_folder, "test")):
        with pytest.raises(ValueError, match=f"no image belongs to split '{split}'"):
            diffmiczoo.evaluate(model, data, split=split, **options)


@pytest.mark.parametrize("fields", [{"batch_size": 2.5}, {"dcg_epochs": 1.5}, {"seed": True}])
def test_counts_of_a_recipe_are_whole_numbers(fields: dict) -> None:
    with pytest.raises(TypeError, match=r"is not of type int"):
        Recipe(**fields)


def test_a_manifest_in_another_encoding_says_so(tmp_path) -> None:
    (tmp_path / "labels.csv").write_bytes("file,label\nä.png,x\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.csv: is not UTF-8 .*save it as CSV UTF-8"):
        read_manifest(tmp_path / "labels.csv")


def test_a_folder_per_split_and_class(image_folder, tmp_path) -> None:
    files = sorted(image_folder.rglob("*.png"))
    for number, file in enumerate(files):
        part = ("train", "validation", "test")[number % 3]
        target = tmp_path / "root" / part / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    manifest = read_manifest(tmp_path / "root")
    assert manifest.class_names == ("dark", "light") and manifest.has_splits
    assert [len(manifest.split(name)) for name in ("train", "val", "test")] == [4, 4, 4]


def test_the_kept_epoch_is_marked(manifest_csv, tmp_path) -> None:
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, output=tmp_path / "run", progress=False)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    for stage in ("dcg", "diffusion"):
        of_stage = [row for row in rows if row["stage"] == stage]
        (kept,) = [row for row in of_stage if row["kept"] == "True"]
        assert float(kept["auroc"]) == max(float(row["auroc"]) for row in of_stage)
    assert [row["kept"] for row in result.history] == [row["kept"] == "True" for row in rows]
