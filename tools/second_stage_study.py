"""Does the second stage pay, and what makes it pay (docs/experiments/second-stage.md)?

    python tools/second_stage_study.py DATA --image-size 128 --roi-size 48

Of the training and validation images of DATA two fifths are held out. A DCG learns from the rest, and, for priors of
training pictures that no DCG has seen, one DCG for each of five folds from the other four. Each setting then trains a
second stage on the same DCG. Pools are fitted on one half of the held-out images and measured on the other, both ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.augmentation import create_augmentation
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.splits import make_splits
from diffmiczoo.diffusion.losses import diffusion_loss, label_vectors, sample_training_noise
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.inference.probabilities import score_logits
from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.condition import Priors
from diffmiczoo.runtime.depthwise import fast_depthwise
from diffmiczoo.runtime.settings import FAST, training_runtime, using
from diffmiczoo.training.optimization import cosine_with_warmup

COLUMNS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "nll", "ece")
BATCH, FOLDS = 16, 5
Members = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """One way to train the second stage.

    Attributes:
        name: of the rows.
        folds: priors of training pictures come from DCGs that have not seen them.
        warm: the encoders of F start from those of the DCG.
        config: fields of the model that differ.
    """

    name: str
    folds: bool = False
    warm: bool = False
    config: dict[str, Any] = field(default_factory=dict)


AUXILIARY = {"feature_loss_weight": 1.0}
SETTINGS = (
    Setting("as published"),
    Setting("priors from folds", folds=True),
    Setting("classifier on F", config=AUXILIARY),
    Setting("classifier on F, priors from folds", folds=True, config=AUXILIARY),
    Setting("classifier on F, encoders from the DCG", warm=True, config=AUXILIARY),
    Setting("classifier on F, folds, encoders from the DCG", folds=True, warm=True, config=AUXILIARY),
)


class Study:
    """Pictures and settings that all trainings share."""

    def __init__(self, data: Path, fields: dict[str, Any], seed: int) -> None:
        manifest = read_manifest(data)
        records = [record for record in manifest.records if record.split in ("train", "val")]
        parted = make_splits(manifest.with_records(records), val=0.4, test=0, seed=0)
        self.seed = seed
        self.fields = {"class_names": manifest.class_names, "num_classes": len(manifest.class_names)} | fields
        model = self.build({})
        self.train = ImageDataset(parted.split("train"), model.config)
        self.held_out = ImageDataset(parted.split("val"), model.config)
        folds = make_folds(parted.split("train"))
        self.fold = torch.from_numpy(folds)
        self.augmentation = create_augmentation(model.config.input_size, rotation=15.0, min_scale=0.7, color_jitter=0.1)

    def build(self, fields: dict[str, Any]) -> DiffMICv2:
        torch.manual_seed(self.seed)
        model = diffmiczoo.create_model("diffmicv2_nano", pretrained_backbones=True, **(self.fields | fields))
        return model.to(memory_format=torch.channels_last)

    def batch(self, index: Tensor, config: DiffMICConfig) -> Tensor:
        squares = torch.stack([self.augmentation(self.train.squares[place]) for place in index])
        return normalize(squares, config).to(memory_format=torch.channels_last)


def make_folds(manifest: Any) -> np.ndarray:
    """Deals groups to folds by splitting off one fold after the other; classes stay as even as they can."""
    places = {record.identity: place for place, record in enumerate(manifest.records)}
    left, folds = manifest, np.zeros(len(manifest), dtype=np.int64)
    for number in range(1, FOLDS):
        parted = make_splits(left, val=1 / (FOLDS - number + 1), test=0, seed=number)
        for record in parted.split("val").records:
            folds[places[record.identity]] = number
        left = parted.split("train")
    return folds


def optimise(
    model: DiffMICv2, parts: list[nn.Module], lr: float, index: Tensor, epochs: int, loss: Callable[[Tensor], Tensor]
) -> DiffMICv2:
    """Trains some parts of a model as `fit` does; returns the average of the weights."""
    encoders = [p for name, p in model.named_parameters() if "encoder" in name]
    known = {id(p) for p in encoders}
    wanted = [p for part in parts for p in part.parameters()]
    groups = [
        {"params": [p for p in wanted if id(p) in known], "lr": 5e-4},
        {"params": [p for p in wanted if id(p) not in known], "lr": lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05, fused=True)
    batches = len(index) // BATCH
    factor = cosine_with_warmup(batches * epochs, batches, floor=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    average, step = ModelEmaV3(model, decay=0.99, use_warmup=True), 0
    for _ in range(epochs):
        for part in index[torch.randperm(len(index))][: batches * BATCH].split(BATCH):
            model.train()
            with fast_depthwise(model), using(training_runtime("bf16"), part.device):
                value = loss(part)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            step += 1
            average.update(model, step=step)
    return average.module.eval()


def train_dcg(study: Study, index: Tensor, epochs: int) -> DiffMICv2:
    model = study.build({})

    def loss(part: Tensor) -> Tensor:
        return model.dcg_loss(study.batch(part, model.config), study.train.targets[part])

    return optimise(model, [model.dcg], 1e-3, index, epochs, loss)


@torch.no_grad()
def priors_of(dcgs: list[DiffMICv2], images: Tensor, fold: Tensor) -> Priors:
    """Returns priors of each image from the DCG of its fold."""
    places = [(fold == number).nonzero()[:, 0] for number in range(len(dcgs))]
    found = [dcg.priors(images[place]) for dcg, place in zip(dcgs, places, strict=True) if len(place)]
    order = torch.cat(places).argsort()
    names = [name for name, tensor in vars(found[0]).items() if tensor is not None]
    return Priors(**{name: torch.cat([getattr(each, name) for each in found])[order] for name in names})


def train_second(
    study: Study, dcg: DiffMICv2, folds: list[DiffMICv2], setting: Setting, epochs: int, lr: float
) -> DiffMICv2:
    model = study.build(setting.config)
    model.dcg.load_state_dict(dcg.dcg.state_dict())
    if setting.warm:
        pairs = ((model.dcg.global_encoder, "raw_encoder"), (model.dcg.local_encoder, "roi_encoder"))
        for source, name in pairs:
            encoder = getattr(model.feature_prior, name)
            own, known = encoder.state_dict(), source.state_dict()
            encoder.load_state_dict({key: known.get(key, value) for key, value in own.items()})
    nobody = torch.zeros(len(study.fold), dtype=torch.long)
    dcgs, fold = (folds, study.fold) if setting.folds else ([dcg], nobody)

    def loss(part: Tensor) -> Tensor:
        images = study.batch(part, model.config)
        condition = model.condition_from_priors(images, priors_of(dcgs, images, fold[part]))
        labels = label_vectors(study.train.targets[part], model.config)
        drawn = sample_training_noise(model.config, len(labels))
        return diffusion_loss(model.unet, model.schedule, model.config, condition, labels, drawn)

    index = torch.arange(len(study.train))
    return optimise(model, [model.feature_prior, model.unet], lr, index, epochs, loss)


def members_of(model: DiffMICv2, images: ImageDataset) -> tuple[Members, Tensor]:
    """Returns the logits of each member of the pool, and F."""
    rows: list[dict[str, Tensor]] = []
    with torch.inference_mode(), using(FAST, images.squares.device):
        for squares in images.squares.split(32):
            batch = normalize(squares, model.config).to(memory_format=torch.channels_last)
            condition = model.condition(batch)
            scores = model.sample(condition, 5, num_samples=8).mean((2, 3))
            row = {"g": condition.global_prior, "l": condition.local_prior, "F": condition.feature_prior}
            row["sampler"] = score_logits(scores, model.config)
            if condition.feature_logits is not None:
                row["c"] = condition.feature_logits
            rows.append({name: tensor.float() for name, tensor in row.items()})
    found = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    return found, found.pop("F")


def pooled(members: list[Tensor], targets: Tensor, halves: Tensor) -> Tensor:
    """Returns probabilities: weights ≥ 0 of the members fitted on one half, applied to the other."""
    stack = torch.stack(members, 1).double().numpy()
    truth, probs = targets.numpy(), np.zeros(members[0].shape)
    for half in (0, 1):
        there = (halves != half).numpy()
        logits, labels = stack[there], truth[there]

        def nll(weights: np.ndarray, logits: np.ndarray = logits, labels: np.ndarray = labels) -> float:
            mixed = torch.from_numpy(np.einsum("m,nmc->nc", weights, logits))
            return float(torch.nn.functional.cross_entropy(mixed, torch.from_numpy(labels)))

        fitted = minimize(nll, np.full(len(members), 1 / len(members)), bounds=[(0, 10)] * len(members))
        mixed = torch.from_numpy(np.einsum("m,nmc->nc", fitted.x, stack[~there]))
        probs[~there] = mixed.softmax(-1).numpy()
    return torch.from_numpy(probs)


def row(name: str, members: list[Tensor], study: Study, halves: Tensor) -> str:
    targets = study.held_out.targets
    values = compute_metrics(pooled(members, targets, halves), targets, task="multiclass", bootstrap=0).values
    return f"| {name} | " + " | ".join(f"{values[key]:.3f}" for key in COLUMNS) + " |"


def report(name: str, model: DiffMICv2, study: Study, halves: Tensor) -> None:
    found, features = members_of(model, study.held_out)
    _, learned = members_of(model, study.train)
    spread = learned.std(0).clamp_min(1e-6)
    regression = LogisticRegression(C=0.01, max_iter=2000).fit((learned / spread).numpy(), study.train.targets.numpy())
    linear = torch.from_numpy(regression.predict_log_proba((features / spread).numpy())).float()
    priors = [found["g"], found["l"]]
    sets = {"sampler": [found["sampler"]], "sampler, ŷ_g, ŷ_l": [found["sampler"], *priors]}
    sets |= {"logistic regression on F": [linear], "logistic regression, ŷ_g, ŷ_l": [linear, *priors]}
    if "c" in found:
        sets |= {"ŷ_F": [found["c"]], "ŷ_F, ŷ_g, ŷ_l": [found["c"], *priors]}
        sets |= {"ŷ_F, sampler, ŷ_g, ŷ_l": [found["c"], found["sampler"], *priors]}
    for what, members in sets.items():
        click.echo(row(f"{name}: {what}", members, study, halves))


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--image-size", type=int, default=128)
@click.option("--roi-size", type=int, default=48)
@click.option("--dcg-epochs", type=int, default=16)
@click.option("--epochs", type=int, default=16)
@click.option("--lr", type=float, default=1e-2, help="Of the second stage's heads.")
@click.option("--seed", type=int, default=0)
@click.option("--only", multiple=True, type=int, help="Numbers of the settings, from 0; all by default.")
def main(
    data: Path,
    image_size: int,
    roi_size: int,
    dcg_epochs: int,
    epochs: int,
    lr: float,
    seed: int,
    only: tuple[int, ...],
) -> None:
    """Prints a table of metrics on held-out images, with rows for each setting."""
    rois = {"num_rois": 4, "roi_size": roi_size, "local_out_index": 3, "roi_out_index": 3, "roi_saliency": "top"}
    study = Study(data, {"image_size": image_size, "clip_sample": False} | rois, seed)
    halves = torch.arange(len(study.held_out)) % 2
    everything = torch.arange(len(study.train))
    dcg = train_dcg(study, everything, dcg_epochs)
    click.echo(f"{len(study.train)} images to learn from, {len(study.held_out)} held out\n")
    click.echo("| | accuracy | balanced | macro F1 | AUROC | NLL | ECE |\n|---|---|---|---|---|---|---|")
    found, _ = members_of(dcg, study.held_out)
    for name, members in (("ŷ_g", ["g"]), ("ŷ_l", ["l"]), ("ŷ_g, ŷ_l", ["g", "l"])):
        click.echo(row(name, [found[member] for member in members], study, halves))
    chosen = [setting for place, setting in enumerate(SETTINGS) if not only or place in only]
    folds = []
    if any(setting.folds for setting in chosen):
        folds = [train_dcg(study, everything[study.fold != number], dcg_epochs) for number in range(FOLDS)]
    for setting in chosen:
        started = time.monotonic()
        model = train_second(study, dcg, folds, setting, epochs, lr)
        report(setting.name, model, study, halves)
        click.echo(f"{time.monotonic() - started:.0f} s", err=True)


if __name__ == "__main__":
    main()
