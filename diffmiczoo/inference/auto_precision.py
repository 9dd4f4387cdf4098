"""`precision="auto"`: the fastest precision of this machine that keeps a model's labels on made pictures, by trying."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffmiczoo._version import __version__
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.made import made_squares
from diffmiczoo.inference.certificate import TOLERANCES
from diffmiczoo.inference.decisions import decide
from diffmiczoo.inference.tensors import PredictionTensors
from diffmiczoo.runtime.machine import machine_of, recalled, remember
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.module_walk import tensors_of
from diffmiczoo.runtime.precision import check_precision, is_slow
from diffmiczoo.runtime.weight_cache import WeightCache

#: The name that stands for one of `CANDIDATES`.
AUTO = "auto"

#: Precision → largest difference of a probability from fp32's, in the order in which they are tried.
CANDIDATES = {"fp32": 0.0, "bf16": TOLERANCES["fp16"], "int8": TOLERANCES["int8"]}

#: Pictures that are computed at once, the smallest first: a batch is timed as the largest that is no larger.
BATCH_CLASSES = (1, 8)

# A precision with larger errors has to take less than this share of the time.
_WORTH_IT = 0.95

# Runs of each precision in turns, and seconds after which no other turn begins. Before them each computes the pictures
# once, which is a warm-up as well.
_TURNS, _SECONDS = 5, 2.0

_TOPIC = "precision"

#: Squares (B, 3, S, S) uint8 → the tensors of their prediction, in a precision.
PredictIn = Callable[[str, Tensor], PredictionTensors]

# One at a time: two would time each other.
_probing = threading.Lock()

_chosen: WeightCache[str] = WeightCache()


@dataclass(frozen=True)
class Probe:
    """What was measured: milliseconds of each precision that passed, and the largest difference of a probability."""

    precision: str
    milliseconds: Mapping[str, float]
    differences: Mapping[str, float]


def auto_precision(
    model: nn.Module, config: DiffMICConfig, device: torch.device, batch_size: int, settings: str, predict_in: PredictIn
) -> str:
    """Returns the fastest precision that this machine has and whose answers on made pictures are the model's own.

    What is found is remembered: in this process while no weight changes, and in a file of this machine. The choice is a
    measurement, so that two machines may choose otherwise; what is computed in a precision is the same whoever chose.

    Args:
        model: its weights are part of what is remembered.
        config: of the model.
        device: where it computes.
        batch_size: images at once.
        settings: what else the work depends on.
        predict_in: what is timed.
    """
    batch = max(size for size in BATCH_CLASSES if size <= max(batch_size, 1))
    key = (AUTO, config, str(device), torch.get_num_threads(), batch, settings)

    def find() -> str:
        with _probing:
            machine = machine_of(device)
            asked = {**machine, "batch": batch, "settings": settings, "version": __version__}
            asked["model"] = _fingerprint(model, config)
            return _remembered(asked) or _measured(asked, config, device, batch, predict_in)

    return _chosen.get(model, key, find)


def probe(
    candidates: list[str],
    config: DiffMICConfig,
    batch: int,
    predict_in: PredictIn,
    clock: Callable[[], float],
    warm: int = 0,
) -> Probe:
    """Compares precisions with fp32, and times in turns those whose answers are fp32's.

    Labels and ROIs have to be equal on pictures that are made from a seed, and probabilities within `CANDIDATES`.

    Args:
        candidates: names of `CANDIDATES` in their order, "fp32" the first.
        config: of the model.
        batch: images at once.
        predict_in: what is timed.
        clock: seconds.
        warm: untimed calls of each.
    """
    squares = torch.from_numpy(made_squares(max(BATCH_CLASSES), config.input_size)).permute(0, 3, 1, 2).contiguous()
    answers = {name: predict_in(name, squares) for name in candidates}
    found = {name: _difference(answers["fp32"], answer, config) for name, answer in answers.items()}
    passed = [name for name in candidates if found[name] <= CANDIDATES[name]]
    taken: dict[str, list[float]] = {name: [] for name in passed}
    pictures = squares[:batch]
    for name in passed * warm:
        predict_in(name, pictures)
    started = clock()
    for turn in range(_TURNS):
        if turn and clock() - started > _SECONDS:
            break
        for name in passed:
            begun = clock()
            predict_in(name, pictures)
            taken[name].append(clock() - begun)
    fastest = {name: min(times) for name, times in taken.items()}
    best = "fp32"
    for name in passed:
        best = name if fastest[name] < _WORTH_IT * fastest[best] else best
    return Probe(best, {name: 1000 * seconds for name, seconds in fastest.items()}, found)


def _measured(
    asked: Mapping[str, object], config: DiffMICConfig, device: torch.device, batch: int, predict_in: PredictIn
) -> str:
    candidates = [name for name in CANDIDATES if _is_here(name, device)]
    if len(candidates) == 1:
        return candidates[0]
    # What there is to warn of is said when the images are predicted.
    with warnings.catch_warnings(), keep_memory():
        warnings.simplefilter("ignore")
        # A GPU's first calls choose kernels and record what later ones replay.
        found = probe(candidates, config, batch, predict_in, time.perf_counter, warm=0 if device.type == "cpu" else 3)
    values = {"milliseconds": dict(found.milliseconds), "differences": dict(found.differences)}
    remember(_TOPIC, asked, {"precision": found.precision, **values})
    return found.precision


def _remembered(asked: Mapping[str, object]) -> str | None:
    precision = (recalled(_TOPIC, asked) or {}).get("precision")
    return precision if isinstance(precision, str) and precision in CANDIDATES else None


def _is_here(precision: str, device: torch.device) -> bool:
    """Returns whether a device multiplies in a precision by itself; what is emulated is slow."""
    if is_slow(precision, device):
        return False
    try:
        check_precision(precision, device)
    except InvalidValueError:
        return False
    if precision == "fp32" or device.type != "cpu":
        return True
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _difference(wanted: PredictionTensors, found: PredictionTensors, config: DiffMICConfig) -> float:
    """Returns the largest difference of a probability; ∞ where a label or an ROI is another one."""
    labels = [decide(each.probs, config.task, config.thresholds, config.label_adjustment) for each in (wanted, found)]
    if not torch.equal(*labels) or not torch.equal(wanted.rois, found.rois):
        return float("inf")
    return float((wanted.probs - found.probs).abs().max())


def _fingerprint(model: nn.Module, config: DiffMICConfig) -> str:
    """Returns a hash of a config and of the first numbers of every tensor, which no training leaves as they were."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    for tensor in tensors_of(model):
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().flatten()[:16].cpu().float().numpy().tobytes())
    return digest.hexdigest()
