"""Other diffusions over a label than the published one, on a frozen model's F and priors.

    python tools/label_diffusion_study.py diffmicv2_nano.ham10000 ../shared/data/ham10000

Each head sees the same condition c = (F, ŷ_g, ŷ_l), has the same network and learns from the same training images: a
classifier; a Gaussian diffusion of the one-hot label; the same with noise whose size depends on the class (√ of its
share, so that rare classes are less disturbed); and a discrete one, in which a label turns into a random class and the
network says which it was, so that its scores are probabilities by construction. Measured on validation images alone
and pooled with both priors, the pool fitted on one half and measured on the other. Prints a Markdown table.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
import torch.nn.functional as F
from start_study import measured
from torch import Tensor, nn
from tqdm import tqdm

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.diffusion.schedule import NoiseSchedule
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.inference.probabilities import score_logits
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.settings import FAST, using
from diffmiczoo.training.optimization import cosine_with_warmup

HEADS = ("classifier", "Gaussian, as published", "Gaussian, noise by class", "discrete")
STEPS, BATCH, WIDTH, RUNS, SEEDS, SAMPLING_STEPS = 2000, 128, 256, 32, 3, 10


class Head(nn.Module):
    """Maps (y_t, c, t) to C numbers: two hidden layers, scaled by an embedding of t."""

    def __init__(self, classes: int, condition: int, timesteps: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(classes + condition, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(2))
        self.time = nn.Sequential(nn.Linear(16, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.last, self.timesteps = nn.Linear(WIDTH, classes), timesteps

    def forward(self, y_t: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        angles = (t[:, None] / self.timesteps) * 2.0 ** torch.arange(8) * torch.pi / 2
        scale = 1 + self.time(torch.cat([angles.sin(), angles.cos()], 1))
        hidden = F.silu(self.norms[0](self.first(torch.cat([y_t, condition], 1)))) * scale
        logits: Tensor = self.last(F.silu(self.norms[1](self.second(hidden))))
        return logits


def disturbed(kind: str, labels: Tensor, alpha_bar: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns y_t of one-hot labels (B, C) at ᾱ_t (B, 1), and what the network is to say."""
    if kind == "classifier":
        return torch.zeros_like(labels), labels
    if kind == "discrete":
        classes = labels.shape[1]
        mixed = alpha_bar * labels + (1 - alpha_bar) / classes
        return F.one_hot(torch.multinomial(mixed, 1)[:, 0], classes).float(), labels
    noise = torch.randn_like(labels)
    return alpha_bar.sqrt() * labels + (1 - alpha_bar).sqrt() * noise * sizes, noise


def trained(kind: str, condition: Tensor, targets: Tensor, classes: int, schedule: NoiseSchedule, seed: int) -> Head:
    torch.manual_seed(seed)
    head = Head(classes, condition.shape[1], schedule.num_train_timesteps)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_with_warmup(STEPS, STEPS // 20, 0.01))
    sizes = noise_sizes(kind, targets, classes)
    for _ in range(STEPS):
        index = torch.randint(len(targets), (BATCH,))
        t = torch.randint(schedule.num_train_timesteps, (BATCH,))
        alpha_bar = schedule.alphas_cumprod_on(t.device)[t][:, None]
        y_t, wanted = disturbed(kind, F.one_hot(targets[index], classes).float(), alpha_bar, sizes)
        said = head(y_t, condition[index], t)
        gaussian = kind.startswith("Gaussian")
        loss = F.mse_loss(said, wanted) if gaussian else F.cross_entropy(said, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return head.eval()


def noise_sizes(kind: str, targets: Tensor, classes: int) -> Tensor:
    """Returns the size of the noise on each class, (C,), with mean 1."""
    if kind != "Gaussian, noise by class":
        return torch.ones(classes)
    roots = torch.bincount(targets, minlength=classes).float().sqrt()
    return roots / roots.mean()


@torch.no_grad()
def logits_of(
    kind: str, head: Head, condition: Tensor, sizes: Tensor, schedule: NoiseSchedule, config: DiffMICConfig
) -> Tensor:
    """Returns log probabilities, or the published mapping of scores, (N, C): the mean of the runs."""
    count, classes = len(condition), len(sizes)
    if kind == "classifier":
        return head(torch.zeros(count, classes), condition, torch.zeros(count)).log_softmax(1)
    steps, total = schedule.timesteps(SAMPLING_STEPS), torch.zeros(count, classes)
    for run in range(RUNS):
        torch.manual_seed(run)
        total += (discrete_run if kind == "discrete" else gaussian_run)(head, condition, sizes, schedule, steps)
    mean = total / RUNS
    return mean.clamp_min(1e-9).log() if kind == "discrete" else score_logits(mean, config)


def gaussian_run(head: Head, condition: Tensor, sizes: Tensor, schedule: NoiseSchedule, steps: list[int]) -> Tensor:
    y_t = torch.randn(len(condition), len(sizes)) * sizes
    for place, t in enumerate(steps):
        alpha_bar = schedule.alphas_cumprod[t]
        noise = head(y_t, condition, torch.full((len(condition),), float(t)))
        y_0 = (y_t - (1 - alpha_bar) ** 0.5 * noise * sizes) / alpha_bar**0.5
        if place + 1 < len(steps):
            after = schedule.alphas_cumprod[steps[place + 1]]
            y_t = after**0.5 * y_0 + (1 - after) ** 0.5 * noise * sizes
    return y_0


def discrete_run(head: Head, condition: Tensor, sizes: Tensor, schedule: NoiseSchedule, steps: list[int]) -> Tensor:
    classes = len(sizes)
    y_t = F.one_hot(torch.randint(classes, (len(condition),)), classes).float()
    for place, t in enumerate(steps):
        probs = head(y_t, condition, torch.full((len(condition),), float(t))).softmax(1)
        if place + 1 == len(steps):
            return probs
        now, after = schedule.alphas_cumprod[t], schedule.alphas_cumprod[steps[place + 1]]
        kept = now / after
        # q(y_s | y_t, y_0) summed over what the network says of y_0.
        likelihood = kept * y_t + (1 - kept) / classes
        by_start = after * torch.eye(classes) + (1 - after) / classes
        joint = likelihood[:, None] * by_start
        posterior = (probs[:, :, None] * joint / joint.sum(2, keepdim=True)).sum(1)
        y_t = F.one_hot(torch.multinomial(posterior, 1)[:, 0], classes).float()
    raise AssertionError("no steps")


@torch.inference_mode()
def conditions(model: DiffMICv2, images: ImageDataset) -> tuple[Tensor, Tensor, Tensor]:
    """Returns F (N, H) and both priors (N, C)."""
    rows = []
    with using(FAST, images.squares.device):
        for squares in tqdm(images.squares.split(32), desc="images", disable=None):
            found = model.condition(normalize(squares, model.config).to(memory_format=torch.channels_last))
            rows.append((found.feature_prior, found.global_prior, found.local_prior))
    features, global_prior, local_prior = (torch.cat(column) for column in zip(*rows, strict=True))
    return features, global_prior, local_prior


@click.command()
@click.argument("name")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
def main(name: str, data: Path) -> None:
    """Compare heads on what weights NAME know of the pictures of DATA."""
    model = diffmiczoo.create_model(name, pretrained=True).eval()
    config = model.config.uncalibrated()
    schedule = NoiseSchedule(config)
    manifest = as_manifest(data, class_names=config.class_names, task=config.task)
    images = {split: ImageDataset(manifest.split(split), config) for split in ("train", "val")}
    found = {split: conditions(model, each) for split, each in images.items()}
    together = {split: torch.cat(parts, 1).clone() for split, parts in found.items()}
    mean, std = together["train"].mean(0), together["train"].std(0)
    inputs = {split: (values - mean) / std for split, values in together.items()}
    priors, targets = list(found["val"][1:]), images["val"].targets
    click.echo("| head | alone: accuracy | NLL | with both priors: accuracy | NLL |\n|---|---|---|---|---|")
    accuracy, loss = measured(priors, targets)
    click.echo(f"| none: ŷ_g, ŷ_l | | | {accuracy:.3f} | {loss:.3f} |")
    for kind in HEADS:
        rows = []
        for seed in range(SEEDS):
            sizes = noise_sizes(kind, images["train"].targets, config.num_classes)
            head = trained(kind, inputs["train"], images["train"].targets, config.num_classes, schedule, seed)
            logits = logits_of(kind, head, inputs["val"], sizes, schedule, config)
            rows.append([*measured([logits], targets), *measured([logits, *priors], targets)])
        values, spread = torch.tensor(rows).mean(0), torch.tensor(rows).std(0)
        cells = " | ".join(f"{value:.3f} ± {sd:.3f}" for value, sd in zip(values, spread, strict=True))
        click.echo(f"| {kind} | {cells} |")


if __name__ == "__main__":
    main()
