"""What the diffusion head needs: trains it alone on cached features and compares settings
(docs/experiments/diffusion-head.md).

    python tools/head_study.py RUN DATA

RUN is a run of `diffmiczoo fit` whose DCG is trained (`--set diffusion_epochs=0` is enough). The DCG's priors and the
pooled features of its frozen encoders are computed once, without augmentation; each setting then trains the
projections, Q and the U-Net only, so that it takes a minute instead of an hour.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.diffusion.losses import diffusion_loss, label_vectors, sample_training_noise
from diffmiczoo.inference.probabilities import logits_to_probs, score_logits
from diffmiczoo.metrics.calibration import fit_temperature
from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.condition import Condition, Priors
from diffmiczoo.training.optimization import cosine_with_warmup

Cache = dict[str, Tensor]
COLUMNS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "nll", "ece")


@dataclass(frozen=True)
class Setting:
    """One row of the study; `config` holds fields of the model that differ from its own."""

    name: str
    steps: int = 1000
    lr: float = 1e-2
    ema: float = 0.99
    weight_decay: float = 0.05
    config: dict[str, Any] = field(default_factory=dict)


SETTINGS = (
    Setting("learning rate 1e-3, 300 steps", steps=300, lr=1e-3),
    Setting("learning rate 1e-3", lr=1e-3),
    Setting("learning rate 3e-3", lr=3e-3),
    Setting("learning rate 1e-2"),
    Setting("learning rate 3e-2", lr=3e-2),
    Setting("softmax priors", config={"prior_activation": "softmax"}),
    Setting("no average of the weights", ema=0.0),
    Setting("no weight decay", weight_decay=0.0),
    Setting("skip connection", config={"skip": True}),
    Setting("2000 steps", steps=2000),
)


class CachedFeaturePrior(nn.Module):
    """The feature prior of a model, fed with features that are pooled already."""

    def __init__(self, prior: Any, raw_features: int, roi_features: int, hidden: int) -> None:
        super().__init__()
        prior.raw_encoder, prior.raw_proj = nn.Identity(), nn.Linear(raw_features, hidden)
        prior.roi_encoder, prior.roi_proj = nn.Identity(), nn.Linear(roi_features, hidden)
        self.prior = prior

    def forward(self, raw: Tensor, rois: Tensor) -> Tensor:
        return self.prior(raw[..., None, None], rois[..., None, None])


@torch.inference_mode()
def cache_features(model: DiffMICv2, loader: DataLoader[Any]) -> Cache:
    rows = []
    for images, targets in loader:
        priors = model.priors(images)
        rois = priors.rois
        local = model.dcg.local_encoder(rois.flatten(0, 1)).mean((2, 3)).unflatten(0, rois.shape[:2])
        image = model.dcg.global_encoder(images).mean((2, 3))
        rows.append((priors.global_prior, priors.local_prior, image, local, targets))
    names = ("global_prior", "local_prior", "raw", "rois", "targets")
    return {name: torch.cat(columns) for name, columns in zip(names, zip(*rows, strict=True), strict=True)}


def condition_of(model: DiffMICv2, cache: Cache, index: Any) -> Condition:
    part = {name: tensor[index] for name, tensor in cache.items()}
    unused = torch.empty(0)
    priors = Priors(part["global_prior"], part["local_prior"], unused, part["rois"], unused, unused)
    return model.condition_from_priors(part["raw"], priors)


def build(config: DiffMICConfig, cache: Cache) -> DiffMICv2:
    torch.manual_seed(0)
    model = DiffMICv2(config)
    sizes = cache["raw"].shape[-1], cache["rois"].shape[-1], config.latent_dim
    model.feature_prior = CachedFeaturePrior(model.feature_prior, *sizes)
    return model


def train(model: DiffMICv2, cache: Cache, setting: Setting) -> DiffMICv2:
    head = [p for part in (model.feature_prior, model.unet) for p in part.parameters()]
    groups = [
        {"params": [p for p in head if p.ndim > 1], "weight_decay": setting.weight_decay},
        {"params": [p for p in head if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=setting.lr)
    factor = cosine_with_warmup(setting.steps, warmup=setting.steps // 20, floor=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    average = ModelEmaV3(model, decay=setting.ema) if setting.ema else None
    model.train()
    for _ in range(setting.steps):
        index = torch.randint(len(cache["targets"]), (64,))
        labels = label_vectors(cache["targets"][index], model.config)
        drawn, parts = sample_training_noise(model.config, len(labels)), (model.unet, model.schedule, model.config)
        loss = diffusion_loss(*parts, condition_of(model, cache, index), labels, drawn)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if average is not None:
            average.update(model)
    return model if average is None else average.module


def row(name: str, probs: Tensor, targets: Tensor, seconds: float) -> str:
    values = compute_metrics(probs, targets, task="multiclass", bootstrap=0).values
    return f"| {name} | " + " | ".join(f"{values[key]:.3f}" for key in COLUMNS) + f" | {seconds:.0f} s |"


@torch.inference_mode()
def sampled(model: DiffMICv2, cache: Cache, steps: int = 10, runs: int = 1) -> Tensor:
    model.eval()
    scores = model.sample(condition_of(model, cache, slice(None)), steps, num_samples=runs).mean((2, 3))
    logits = score_logits(scores, model.config)
    return logits_to_probs(logits / fit_temperature(logits, cache["targets"], task="multiclass"), "multiclass")


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True))
@click.option("--steps", type=int, help="Train every setting for this many steps, for a quick look.")
def main(run: Path, data: str, steps: int | None) -> None:
    """Prints a table of validation metrics, one row per setting."""
    source = diffmiczoo.create_model(f"local-dir:{run / 'best'}", pretrained=True)
    manifest = read_manifest(data, class_names=source.config.class_names)
    datasets = {split: ImageDataset(manifest.split(split), source.config) for split in ("train", "val")}
    caches = {split: cache_features(source, DataLoader(dataset, 64)) for split, dataset in datasets.items()}
    val = caches["val"]
    targets = val["targets"]
    click.echo("| setting | " + " | ".join(COLUMNS) + " | time |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    click.echo(
        row("DCG alone", logits_to_probs(0.5 * (val["global_prior"] + val["local_prior"]), "multiclass"), targets, 0)
    )
    for setting in SETTINGS:
        started = time.monotonic()
        chosen = setting if steps is None else Setting(**{**setting.__dict__, "steps": steps})
        model = train(build(source.config.replace(**setting.config), val), caches["train"], chosen)
        click.echo(row(setting.name, sampled(model, val), targets, time.monotonic() - started))
    for sampling_steps in (2, 5, 20, 50, 100):
        click.echo(row(f"the last, {sampling_steps} sampling steps", sampled(model, val, sampling_steps), targets, 0))
    for runs in (4, 16):
        click.echo(row(f"the last, mean of {runs} runs", sampled(model, val, runs=runs), targets, 0))


if __name__ == "__main__":
    main()
