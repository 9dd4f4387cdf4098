"""Where sampling should start: at noise as published, or at the guidance map with some noise, and in how many steps.

    python tools/start_study.py diffmicv2_nano.busi --data ../shared/data/busi

In training y_t lies around √ᾱ_t · y_0, and M is a guess of y_0: started at t₀ < T with √ᾱ_t₀ · M + √(1 - ᾱ_t₀) · ε the
sampler has less to do. Temperatures and weights of the pool are fitted on one half of the validation images and
measured on the other, both ways and for ten divisions. Prints a Markdown table.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from second_stage_study import pooled
from torch import Tensor
from torch.nn.functional import nll_loss
from tqdm import tqdm

import diffmiczoo
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.diffusion.samplers import DDIM
from diffmiczoo.diffusion.sampling import denoise_runs, points_share_bands
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.inference.probabilities import score_logits
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.condition import Condition
from diffmiczoo.runtime.settings import FAST, using

#: t₀, steps; None is the start from noise alone, as published, of one step from the last timestep.
STARTS = ((None, 5), (None, 1), (800, 5), (600, 4), (400, 3), (200, 2), (200, 1), (50, 1))
DIVISIONS = 10


class Truncated(DDIM):
    """DDIM that begins at another timestep than the last."""

    first: int

    def timesteps(self, steps: int) -> list[int]:
        """Returns `steps` timesteps from `first` down to 0, evenly spaced; of one step `first` alone."""
        last = max(steps - 1, 1)
        return [round(self.first * (1 - part / last)) for part in range(steps)]


def scores_from(model: DiffMICv2, condition: Condition, start: tuple[int | None, int]) -> Tensor:
    """Returns the sampler's scores (B, C)."""
    first, steps = start
    if first is None and steps > 1:
        return model.sample(condition, steps).mean((2, 3))
    sampler = Truncated(model.schedule)
    sampler.first = len(model.schedule.alphas_cumprod) - 1 if first is None else first
    kept = 0.0 if first is None else model.schedule.alphas_cumprod[first]
    noise = model.sampling_noise(steps, model.config.num_samples, len(condition.guidance_map)).initial
    begin = kept**0.5 * condition.guidance_map + (1 - kept) ** 0.5 * noise
    once = points_share_bands(model.config, sampler)
    return denoise_runs(model.unet, sampler, condition, steps, begin, equal_points=once).mean((0, 3, 4))


def collect(model: DiffMICv2, images: ImageDataset) -> tuple[list[Tensor], dict[tuple[int | None, int], Tensor]]:
    """Returns the logits of both priors, and those of the sampler for each start; all (N, C)."""
    priors: list[tuple[Tensor, Tensor]] = []
    found: dict[tuple[int | None, int], list[Tensor]] = {start: [] for start in STARTS}
    with torch.inference_mode(), using(FAST, images.squares.device):
        for squares in tqdm(images.squares.split(32), desc="images", disable=None):
            condition = model.condition(normalize(squares, model.config).to(memory_format=torch.channels_last))
            priors.append((condition.global_prior, condition.local_prior))
            for start, rows in found.items():
                rows.append(score_logits(scores_from(model, condition, start), model.config))
    both = [torch.cat(rows) for rows in zip(*priors, strict=True)]
    return both, {start: torch.cat(rows) for start, rows in found.items()}


def measured(members: list[Tensor], targets: Tensor) -> tuple[float, float]:
    """Returns accuracy and negative log-likelihood, means over the divisions."""
    values = []
    for seed in range(DIVISIONS):
        halves = torch.from_numpy(np.random.default_rng(seed).permutation(len(targets)) % 2)
        probs = pooled(members, targets, halves)
        loss = nll_loss(probs.clamp_min(1e-12).log(), targets)
        values.append((float((probs.argmax(1) == targets).double().mean()), float(loss)))
    accuracy, loss = np.mean(values, 0)
    return float(accuracy), float(loss)


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option(
    "--data", "folders", multiple=True, type=click.Path(exists=True, path_type=Path), help="One for each NAME."
)
def main(names: tuple[str, ...], folders: tuple[Path, ...]) -> None:
    """Measure weights NAMES with each start of the sampler."""
    click.echo("| weights | start | steps | sampler: accuracy | NLL | with both priors: accuracy | NLL |")
    click.echo("|---|---|---|---|---|---|---|")
    for name, data in zip(names, folders, strict=True):
        model = diffmiczoo.create_model(name, pretrained=True).eval()
        manifest = as_manifest(data, class_names=model.config.class_names, task=model.config.task)
        images = ImageDataset(manifest.split("val"), model.config)
        priors, samplers = collect(model, images)
        accuracy, loss = measured(priors, images.targets)
        click.echo(f"| `{name}` | none: ŷ_g, ŷ_l | | | | {accuracy:.3f} | {loss:.3f} |")
        for (first, steps), logits in samplers.items():
            alone, pool = measured([logits], images.targets), measured([logits, *priors], images.targets)
            start = "noise" if first is None else f"M, t = {first}"
            cells = " | ".join(f"{value:.3f}" for value in (*alone, *pool))
            click.echo(f"| `{name}` | {start} | {steps} | {cells} |")


if __name__ == "__main__":
    main()
