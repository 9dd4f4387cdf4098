"""Where ROIs should lie, how large they should be and what should see them (docs/experiments/local-stream.md).

    python tools/local_stream_study.py RUN DATA --source 224

RUN holds weights whose global stream is trained: a run of `diffmiczoo fit` (`--config predictor=global` is enough) or
the name of a weights entry. ROIs are cut without a gradient, so the global stream does not depend on the local one: its
maps for every augmented picture are computed once, and each setting then trains a local stream alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from timm.utils import ModelEmaV3
from torch import Tensor

import diffmiczoo
from diffmiczoo.data.augmentation import create_augmentation
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.metrics.calibration import fit_temperature
from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.dcg import roi_positions
from diffmiczoo.nn.roi import crop_rois, whole_view
from diffmiczoo.runtime.depthwise import fast_depthwise
from diffmiczoo.runtime.settings import FAST, training_runtime, using
from diffmiczoo.training.optimization import cosine_with_warmup

COLUMNS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "nll")
BATCH = 32


@dataclass(frozen=True)
class Setting:
    """One row of the study.

    Attributes:
        name: of the row.
        fields: of the config.
        from_global: the local encoder starts from the trained global one.
        shared: it is the global one, frozen; attention and classifier learn alone.
    """

    name: str
    fields: dict[str, Any]
    from_global: bool = False
    shared: bool = False


def rois(number: int, size: int, out_index: int, saliency: str) -> dict[str, Any]:
    return {"num_rois": number, "roi_size": size, "local_out_index": out_index, "roi_saliency": saliency}


def settings(source: int) -> tuple[Setting, ...]:
    """Returns the settings: sizes are shares of the source square, so that pictures of any size can be studied."""
    small, middle, large = (round(share * source / 16) * 16 for share in (1 / 7, 2 / 7, 1 / 2))
    return (
        Setting("published: sum, six small ROIs, three stages", rois(6, small, 2, "sum")),
        Setting("sum, four middle ROIs, four stages", rois(4, middle, 3, "sum")),
        Setting("probability, the same ROIs", rois(4, middle, 3, "probability")),
        Setting("top, the same ROIs", rois(4, middle, 3, "top")),
        Setting("spread, the same ROIs", rois(4, middle, 3, "spread")),
        Setting("top, encoder from the global one", rois(4, middle, 3, "top"), from_global=True),
        Setting("top, two large ROIs", rois(2, large, 3, "top")),
        Setting("top, two large ROIs, from the global one", rois(2, large, 3, "top"), from_global=True),
        Setting("sum, two large ROIs, from the global one", rois(2, large, 3, "sum"), from_global=True),
        Setting("top, the global encoder itself, frozen", rois(4, middle, 3, "top"), from_global=True, shared=True),
        Setting("top, two large ROIs, the same", rois(2, large, 3, "top"), from_global=True, shared=True),
        Setting("top, from the global one, three stages", rois(4, middle, 2, "top"), from_global=True),
        Setting("top, two large ROIs, from the global one, three stages", rois(2, large, 2, "top"), from_global=True),
    )


@dataclass(frozen=True)
class Pictures:
    """Squares (N, 3, R, R) uint8 with their targets, and what the global stream says of them."""

    squares: Tensor
    targets: Tensor
    saliency: Tensor
    global_prior: Tensor


def seen(trunk: DiffMICv2, dataset: ImageDataset, augmentation: Any, epoch: int) -> Pictures:
    torch.manual_seed(epoch)
    squares = dataset.squares
    if augmentation is not None:
        squares = torch.stack([augmentation(square) for square in squares])
    maps, priors = [], []
    with torch.inference_mode(), using(FAST, squares.device):
        for part in squares.split(BATCH):
            images = normalize(part, trunk.config).to(memory_format=torch.channels_last)
            found = trunk.dcg.global_stream(whole_view(images, trunk.config))
            maps.append(found[0].float())
            priors.append(found[1].float())
    return Pictures(squares, dataset.targets, torch.cat(maps).clone(), torch.cat(priors).clone())


def local_prior(model: DiffMICv2, pictures: Pictures, index: Tensor) -> Tensor:
    config = model.config
    images = normalize(pictures.squares[index], config)
    top_left = roi_positions(pictures.saliency[index], pictures.global_prior[index], config)
    prior, _ = model.dcg.local_stream(crop_rois(images, top_left, config.roi_size))
    return prior.float()


def build(trunk: DiffMICv2, setting: Setting) -> DiffMICv2:
    torch.manual_seed(0)
    fields = trunk.config.to_dict() | {"predictor": "dcg", "temperature": None, "prior_weight": 0.0} | setting.fields
    model = diffmiczoo.create_model("diffmicv2_nano", pretrained_backbones=True, **fields)
    if setting.from_global:
        own, known = model.dcg.local_encoder.state_dict(), trunk.dcg.global_encoder.state_dict()
        model.dcg.local_encoder.load_state_dict({name: known[name] for name in own})
    return model.to(memory_format=torch.channels_last)


def train(model: DiffMICv2, epochs: list[Pictures], lr: float, encoder_lr: float, shared: bool) -> DiffMICv2:
    dcg = model.dcg
    dcg.local_encoder.requires_grad_(not shared)
    heads = [*dcg.attention.parameters(), *dcg.local_classifier.parameters()]
    encoder = [parameter for parameter in dcg.local_encoder.parameters() if parameter.requires_grad]
    groups = [{"params": heads, "lr": lr}, *([{"params": encoder, "lr": encoder_lr}] if encoder else [])]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05, fused=True)
    batches = len(epochs[0].targets) // BATCH
    factor = cosine_with_warmup(batches * len(epochs), batches, floor=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    average, step = ModelEmaV3(model, decay=0.99, use_warmup=True), 0
    model.train()
    dcg.local_encoder.train(not shared)
    for pictures in epochs:
        order = torch.randperm(len(pictures.targets))[: batches * BATCH]
        for index in order.split(BATCH):
            with fast_depthwise(model), using(training_runtime("bf16"), index.device):
                logits = local_prior(model, pictures, index)
            torch.nn.functional.cross_entropy(logits, pictures.targets[index]).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            step += 1
            average.update(model, step=step)
    return average.module.eval()


def row(name: str, members: list[Tensor], targets: Tensor, seconds: float) -> str:
    logits = sum(members) / len(members)
    probs = (logits / fit_temperature(logits, targets, task="multiclass")).softmax(-1)
    values = compute_metrics(probs, targets, task="multiclass", bootstrap=0).values
    return f"| {name} | " + " | ".join(f"{values[key]:.3f}" for key in COLUMNS) + f" | {seconds:.0f} s |"


@click.command()
@click.argument("run")
@click.argument("data", type=click.Path(exists=True))
@click.option("--source", type=int, required=True, help="Side of the square that ROIs are cut from.")
@click.option("--epochs", type=int, default=5)
@click.option("--only", multiple=True, type=int, help="Numbers of the settings, from 0; all by default.")
def main(run: str, data: str, source: int, epochs: int, only: tuple[int, ...]) -> None:
    """Prints a table of validation metrics of ŷ_l, and of ŷ_g + ŷ_l, with a row for each setting."""
    name = f"local-dir:{run}" if Path(run).exists() else run
    trunk = diffmiczoo.create_model(name, pretrained=True)
    trunk.config = trunk.config.replace(roi_source_size=source)
    manifest = read_manifest(Path(data), class_names=trunk.config.class_names)
    augmentation = create_augmentation(source, vflip=0.5, rotation=180.0, min_scale=0.7, color_jitter=0.1)
    training = ImageDataset(manifest.split("train"), trunk.config)
    prepared = [seen(trunk, training, augmentation, epoch) for epoch in range(epochs)]
    val = seen(trunk, ImageDataset(manifest.split("val"), trunk.config), None, 0)
    click.echo("| | accuracy | balanced | macro F1 | AUROC | NLL | time |\n|---|---|---|---|---|---|---|")
    click.echo(row("ŷ_g", [val.global_prior], val.targets, 0))
    for setting in [each for place, each in enumerate(settings(source)) if not only or place in only]:
        started = time.monotonic()
        model = train(build(trunk, setting), prepared, lr=1e-3, encoder_lr=5e-4, shared=setting.shared)
        with torch.inference_mode(), using(FAST, val.squares.device):
            found = torch.cat([local_prior(model, val, part) for part in torch.arange(len(val.targets)).split(BATCH)])
        seconds = time.monotonic() - started
        click.echo(row(f"ŷ_l: {setting.name}", [found], val.targets, seconds))
        click.echo(row(f"ŷ_g + ŷ_l: {setting.name}", [val.global_prior, found], val.targets, seconds))


if __name__ == "__main__":
    main()
