"""What local recalibration repairs when pictures or diseases are others than in training, and what it cannot.

    python tools/recalibration_study.py collect --data ../shared/data --output members
    python tools/recalibration_study.py shifts --members members
    python tools/recalibration_study.py fewest --members members

`collect` predicts each set's pictures once per shift, at most `MOST` of each split; the others compute the tables of
docs/experiments/recalibration.md from these arrays. Recalibration is fitted on validation pictures under a shift and
measured on test pictures under the same one. BUSI has too few validation pictures; half of the test patients join them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.groups import group_numbers
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.members import collect_members
from diffmiczoo.evaluation.trust import some_of
from diffmiczoo.images.corruptions import corrupted
from diffmiczoo.metrics import local_refit
from diffmiczoo.metrics.label_shift import estimate_shares
from diffmiczoo.metrics.local_fit import LocalPictures
from diffmiczoo.metrics.local_outcome import Outcome, changes
from diffmiczoo.metrics.local_refit import fit_limits, refit
from diffmiczoo.metrics.recalibration import Change, cells
from diffmiczoo.trust.arrays import coverage_band
from diffmiczoo.trust.gate import Gate, fit_gate
from diffmiczoo.trust.stored import Trust

#: Weights → folder of their data.
SETS = {"diffmicv2_ham10000": "ham10000", "diffmicv2_aptos2019": "aptos2019", "diffmicv2_busi": "busi"}

#: Shift → corruption and severity.
SHIFTS = {"none": None, "brightness": ("brightness", 3), "JPEG 20": ("jpeg", 2), "downscale 2": ("downscale", 1)}

#: Of the most frequent class one picture in so many stays.
CLASS_MIX = "class mix"
_THINNED = 4

#: Pictures of a split under one shift, and training pictures for the gate.
MOST, MOST_TRAINING = 300, 500


def shifted(manifest: Manifest, shift: str) -> Manifest:
    """Returns the pictures of a manifest with a corruption; nothing is read yet."""
    change = SHIFTS[shift]
    if change is None:
        return manifest
    records = manifest.records
    return manifest.with_records(
        [dataclasses.replace(record, source=corrupted(record.item(), *change).source) for record in records]
    )


@dataclass(frozen=True, eq=False)
class Arrays:
    """What a model says of the pictures of a set."""

    folder: str
    config: DiffMICConfig
    members: Path

    @property
    def gate(self) -> Gate:
        """Of training pictures, with the limit of validation pictures as they are."""
        val = self._read("val", "none")
        gate = fit_gate(self._read("train", "none")["features"].numpy(), val["features"].numpy(), val["groups"])
        assert gate is not None
        return gate

    def _read(self, split: str, shift: str) -> dict:
        return torch.load(self.members / f"{self.folder}-{split}-{shift}.pt", weights_only=False)

    def pictures(self, split: str, shift: str, gate: Gate) -> LocalPictures:
        """Returns the pictures of a split; other groups have other numbers in another split."""
        if shift == CLASS_MIX:
            return thinned(self.pictures(split, "none", gate), self.config)
        found = self._read(split, shift)
        count = len(found["scores"])
        groups = np.arange(count) if found["groups"] is None else group_numbers(found["groups"])[0]
        distances = gate.score(found["features"].numpy()).astype(np.float64) * gate.limit
        return LocalPictures(found["scores"], found["members"], found["targets"], groups, distances)

    def both(self, shift: str, gate: Gate) -> tuple[LocalPictures, LocalPictures]:
        """Returns what is fitted on, and what is measured on."""
        val, test = self.pictures("val", shift, gate), self.pictures("test", shift, gate)
        if self.folder != "busi":
            return val, test
        odd = test.groups % 2 == 1
        more = test.some(odd)
        joined = dataclasses.replace(
            val,
            **{name: torch.cat([getattr(val, name), getattr(more, name)]) for name in ("scores", "members", "targets")},
            groups=np.concatenate([val.groups, val.groups.max() + 1 + more.groups]),
            distances=np.concatenate([val.distances, more.distances]),
        )
        return joined, test.some(~odd)


def thinned(pictures: LocalPictures, config: DiffMICConfig) -> LocalPictures:
    """Returns the pictures of another place, where the most frequent class is rarer."""
    most = int(pictures.truth(config).sum(0).argmax())
    frequent = np.flatnonzero(pictures.targets.numpy() == most)
    keep = np.ones(len(pictures), dtype=bool)
    keep[frequent[np.arange(len(frequent)) % _THINNED != 0]] = False
    return pictures.some(keep)


def measured(before: Outcome, after: Outcome, test: LocalPictures, config: DiffMICConfig) -> dict[str, Change]:
    numbers = np.unique(test.groups, return_inverse=True)[1]
    return {each.name: each for each in changes(before, after, numbers, config.task)}


@click.group()
def main() -> None:
    """Measure what local recalibration repairs."""
    torch.set_num_threads(1)


def sets(members: Path) -> list[tuple[Arrays, Gate, Trust]]:
    found = []
    for name, folder in SETS.items():
        arrays = Arrays(folder, diffmiczoo.create_model(name, pretrained=True).config, members)
        gate = arrays.gate
        val = arrays.pictures("val", "none", gate)
        trust = fit_limits(val, arrays.config, None, val.probs(arrays.config))
        found.append((arrays, gate, dataclasses.replace(trust, gate=gate)))
    return found


@main.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Folder of the sets.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder of the arrays.")
def collect(data: Path, output: Path) -> None:
    """Predict the pictures of each set under each shift."""
    output.mkdir(exist_ok=True, parents=True)
    for name, folder in SETS.items():
        model = diffmiczoo.create_model(name, pretrained=True)
        manifest = as_manifest(data / folder, class_names=model.config.class_names, task=model.config.task)
        jobs = {(split, shift): some_of(manifest.split(split), MOST) for split in ("val", "test") for shift in SHIFTS}
        jobs["train", "none"] = some_of(manifest.split("train"), MOST_TRAINING)
        jobs |= {
            (f"foreign-{other}", "none"): some_of(as_manifest(data / other).split("test"), 100)
            for other in SETS.values()
            if other != folder
        }
        for (split, shift), images in jobs.items():
            path = output / f"{folder}-{split}-{shift}.pt"
            if path.exists():
                continue
            predicted = images
            if split.startswith("foreign"):  # whose labels are none of the model's
                predicted = dataclasses.replace(images, task="multiclass")
            found = collect_members(model, shifted(predicted, shift), progress=False)
            torch.save({**vars(found), "groups": images.groups()}, path)
            click.echo(path.name)


_COLUMNS = ("nll", "ece", "accuracy", "balanced_accuracy", "coverage", "size", "flagged", "seen", "wrong_among_others")


@main.command()
@click.option("--members", required=True, type=click.Path(exists=True, path_type=Path), help="Folder of the arrays.")
def shifts(members: Path) -> None:
    """Show before and after on test pictures under each shift."""
    for arrays, gate, trust in sets(members):
        foreign = np.concatenate(
            [
                gate.score(torch.load(path, weights_only=False)["features"].numpy())
                for path in sorted(members.glob(f"{arrays.folder}-foreign-*.pt"))
            ]
        )
        for shift in (*SHIFTS, CLASS_MIX):
            local, test = arrays.both(shift, gate)
            new = refit(local, arrays.config, trust)
            found = measured(
                Outcome.of(test, arrays.config, trust), Outcome.of(test, new.config, new.trust), test, arrays.config
            )
            limit = new.trust.gate.limit / gate.limit
            count = f"{len(local)}/{len(np.unique(local.groups))}"
            texts = [f"{cells(found[name])[0].split()[0]} → {cells(found[name])[1].split()[0]}" for name in _COLUMNS]
            passed = f"{100 * (foreign > 1).mean():.0f} → {100 * (foreign > limit).mean():.0f}"
            click.echo(f"| {arrays.folder}, {shift} | {count} | {' | '.join([*texts, passed])} |")
            click.echo(f"    NLL {cells(found['nll'])[2]}, accuracy {cells(found['accuracy'])[2]}", err=True)
            _unlabelled(arrays, trust, local, test)


def _unlabelled(arrays: Arrays, trust: Trust, local: LocalPictures, test: LocalPictures) -> None:
    passed = float((local.distances <= trust.gate.limit).mean())
    least = coverage_band(trust.gate.groups, len(local), 1 - trust.gate.keep)[0]
    known = np.array(trust.mean_probs) / sum(trust.mean_probs)
    try:
        shares = estimate_shares(local.probs(arrays.config).double().numpy(), known, local.groups)
    except ValueError as error:
        click.echo(f"    unlabelled: {error}")
        return
    config = arrays.config.replace(class_offsets=shares.offsets(known))
    found = measured(Outcome.of(test, arrays.config, None), Outcome.of(test, config, None), test, config)
    said = "taken" if passed >= least and shares.certain else "refused"
    said += " by the gate" * (passed < least) + ", no evidence" * (not shares.certain)
    click.echo(f"    unlabelled: {said}; NLL {cells(found['nll'])[2]}")
    true = local.truth(config).double().mean(0).tolist()
    for row in zip(arrays.config.labels, known, shares.shares, shares.errors, true, strict=True):
        click.echo("      {} known {:.2f} found {:.2f} ± {:.2f} true {:.2f}".format(*row))


@main.command()
@click.option("--members", required=True, type=click.Path(exists=True, path_type=Path), help="Folder of the arrays.")
@click.option("--draws", default=15, show_default=True, help="Of local pictures for each number.")
def fewest(members: Path, draws: int) -> None:
    """Show how often few pictures make the NLL on test pictures worse."""
    local_refit.LEAST_GROUPS = 10
    for arrays, gate, _ in sets(members)[:2]:
        for shift in SHIFTS:
            local, test = arrays.pictures("val", shift, gate), arrays.pictures("test", shift, gate)
            before = _nll(test, arrays.config)
            for count in (20, 35, 50, 75, 100, 200):
                gains = []
                for draw in range(draws):
                    groups = np.random.RandomState(draw).permutation(np.unique(local.groups))[:count]
                    some = local.some(np.isin(local.groups, groups))
                    gains.append(before - _nll(test, refit(some, arrays.config, None, resamples=1).config))
                found = np.array(gains)
                row = f"{found.mean():+.3f} | {found.min():+.3f} | {100 * (found < -0.01).mean():.0f} %"
                click.echo(f"| {arrays.folder}, {shift} ({before:.3f}) | {count} | {row} |")


def _nll(pictures: LocalPictures, config: DiffMICConfig) -> float:
    rows = torch.arange(len(pictures))
    return float(-pictures.probs(config).double()[rows, pictures.targets].log().mean())


if __name__ == "__main__":
    main()
