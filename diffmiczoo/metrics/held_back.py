"""`HeldBack`: what a model says of labelled pictures that no training has seen, and the rules that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.decisions import decide
from diffmiczoo.inference.limits import settings_of
from diffmiczoo.inference.probabilities import uncertainty
from diffmiczoo.metrics.checks import indicator
from diffmiczoo.trust.arrays import checked_groups, group_shares
from diffmiczoo.trust.conformal import fit_sets
from diffmiczoo.trust.gate import Gate
from diffmiczoo.trust.selective import fit_deferral
from diffmiczoo.trust.stored import Trust


@dataclass(frozen=True, eq=False)
class HeldBack:
    """What a model says of labelled pictures, as arrays; N pictures.

    Attributes:
        probs: (N, C).
        truth: (N, C) bool.
        wrong: (N,) bool: the labels are not exactly the true ones.
        uncertainty: (N,) as `Prediction.uncertainty`.
        features: (N, H); (N, 0) where there are none.
        groups: (N,) number of each picture's group.
    """

    probs: np.ndarray
    truth: np.ndarray
    wrong: np.ndarray
    uncertainty: np.ndarray
    features: np.ndarray
    groups: np.ndarray

    @classmethod
    def from_probs(
        cls,
        probs: Tensor,
        targets: Tensor,
        groups: np.ndarray,
        config: DiffMICConfig,
        features: Tensor | None = None,
    ) -> HeldBack:
        """Returns what probabilities (N, C) and the config's decision rule say of pictures with these targets."""
        truth = indicator(targets, probs.shape, config.task)
        given = decide(probs, config.task, config.thresholds, config.label_adjustment)
        return cls(
            probs.numpy().astype(np.float64),
            truth.numpy(),
            (given != truth).any(1).numpy(),
            uncertainty(probs, config.task).numpy().astype(np.float64),
            (torch.zeros(len(probs), 0) if features is None else features).numpy(),
            groups,
        )

    def trust(self, config: DiffMICConfig, gate: Gate | None, foreign: np.ndarray | None) -> Trust:
        """Fits prediction sets and deferral to these pictures.

        Args:
            config: of the model, with its calibration.
            gate: what goes with them.
            foreign: (N,) bool, which pictures the gate does not pass; None without one.
        """
        ranked = self.uncertainty
        if foreign is not None and not foreign.all():
            # Foreign pictures are deferred in any case; the promise is about the others.
            ranked = np.where(foreign, np.inf, ranked)
        sets = fit_sets(self.probs, self.truth, self.groups)
        deferral = fit_deferral(ranked, self.wrong, self.groups)
        means = np.average(self.probs, axis=0, weights=group_shares(checked_groups(self.groups, len(self.probs))))
        return Trust(settings_of(config), gate, sets, deferral, tuple(means.tolist()))
