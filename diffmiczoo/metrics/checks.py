"""Checks of what metrics and calibration are given: shapes, finite values, targets that fit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffmiczoo.config import DiffMICConfig, choices
from diffmiczoo.errors import InvalidValueError

#: Numbers as a tensor, an array or nested lists.
Values = Tensor | ArrayLike


def on_cpu(values: Values) -> Tensor:
    """Returns a tensor, an array or a list as a tensor on the CPU; numbers of a list keep Python's double precision."""
    return values.detach().cpu() if isinstance(values, Tensor) else torch.tensor(np.asarray(values))


def checked_matrix(values: Values, name: str) -> Tensor:
    """Returns scores or probabilities as (N, C) float64 on the CPU.

    Raises:
        ValueError: the shape is not (N, C) with N ≥ 1 and C ≥ 2, or a value is not finite.
    """
    matrix = on_cpu(values).double()
    if matrix.ndim != 2 or matrix.shape[1] < 2:
        raise InvalidValueError(f"{name} has shape {tuple(matrix.shape)}; expected (N, C) with at least two classes")
    if not len(matrix):
        raise InvalidValueError(f"{name} is empty; expected at least one image")
    if not matrix.isfinite().all():
        rows = (~matrix.isfinite()).any(1).nonzero().flatten().tolist()
        raise InvalidValueError(f"{name} has NaN or infinite values in {len(rows)} rows, the first is row {rows[0]}")
    return matrix


def checked_members(values: Values) -> Tensor:
    """Returns the logits (N, M, C) of M members as (M, N, C) float64 on the CPU.

    Raises:
        ValueError: the shape is another, or a value is not finite.
    """
    members = on_cpu(values)
    if members.ndim != 3:
        raise InvalidValueError(f"members have shape {tuple(members.shape)}; expected (N, M, C)")
    for place, member in enumerate(members.unbind(1)):
        checked_matrix(member, f"member {place}")
    return members.double().transpose(0, 1)


def indicator(targets: Values, shape: torch.Size, task: str) -> Tensor:
    """Returns targets as (N, C) bool.

    Args:
        targets: (N,) class indices for "multiclass", (N, C) of 0 and 1 for "multilabel"; any type.
        shape: (N, C) of the scores or probabilities.
        task: "multiclass" or "multilabel".

    Raises:
        ValueError: the task is unknown, the shape does not fit, or a value is not a class or not 0 or 1.
    """
    tasks = choices(DiffMICConfig, "task")
    if task not in tasks:
        raise InvalidValueError(f"task={task!r} is not one of {', '.join(map(repr, tasks))}")
    values = on_cpu(targets)
    expected = tuple(shape[:1] if task == "multiclass" else shape)
    if tuple(values.shape) != expected:
        raise InvalidValueError(f"targets have shape {tuple(values.shape)}; expected {expected} for a {task} task")
    largest = shape[1] - 1 if task == "multiclass" else 1
    allowed = (values >= 0) & (values <= largest) & (values == values.to(torch.int64))
    if not allowed.all():
        raise InvalidValueError(f"targets hold {values[~allowed][0].item()!r}; expected integers from 0 to {largest}")
    if task == "multilabel":
        return values.bool()
    return torch.nn.functional.one_hot(values.to(torch.int64), shape[1]).bool()
