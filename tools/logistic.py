"""Logistic regression on the frozen image feature prior F: what a model can do without its second stage."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.evaluation.ablation import SplitLogits
from diffmiczoo.evaluation.members import MemberLogits
from diffmiczoo.inference.probabilities import logits_to_probs

#: Inverse strengths of the penalty that are tried.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def logistic_on_features(train: MemberLogits, val: MemberLogits, test: MemberLogits, task: str) -> SplitLogits:
    """Fits it to standardised F of the training images, with the penalty that has the lowest NLL on validation."""
    mean, spread = train.features.mean(0), train.features.std(0).clamp(min=1e-6)
    scaled = [((each.features - mean) / spread).numpy() for each in (train, val, test)]
    found = []
    for strength in STRENGTHS:
        val_logits, test_logits = _fitted(scaled, train.targets.numpy(), task, strength)
        found.append((_nll(val_logits, val.targets, task), SplitLogits(val_logits, test_logits)))
    return min(found, key=lambda each: each[0])[1]


def _fitted(scaled: list[np.ndarray], targets: np.ndarray, task: str, strength: float) -> tuple[Tensor, Tensor]:
    from sklearn.linear_model import LogisticRegression

    train, *others = scaled
    if task == "multiclass":
        model = LogisticRegression(C=strength, max_iter=2000).fit(train, targets)
        val, test = (np.asarray(model.decision_function(each)) for each in others)
        return torch.from_numpy(val), torch.from_numpy(test)
    columns: list[list[np.ndarray]] = [[], []]
    for label in targets.T:
        if len(np.unique(label)) < 2:
            rate = (label.sum() + 0.5) / (len(label) + 1)
            answers = [np.full(len(each), np.log(rate / (1 - rate))) for each in others]
        else:
            model = LogisticRegression(C=strength, max_iter=2000).fit(train, label)
            answers = [model.decision_function(each) for each in others]
        for column, answer in zip(columns, answers, strict=True):
            column.append(answer)
    val, test = (torch.from_numpy(np.stack(column, 1)) for column in columns)
    return val, test


def _nll(logits: Tensor, targets: Tensor, task: str) -> float:
    probs = logits_to_probs(logits.double(), task).clamp(1e-15, 1 - 1e-15)
    if task == "multilabel":
        return float(torch.nn.functional.binary_cross_entropy(probs, targets.double()))
    return float(torch.nn.functional.nll_loss(probs.log(), targets.long()))
