"""A model as a directory: `model.safetensors`, which holds its own description, and `config.json`, a readable copy."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffmiczoo._version import __version__
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

#: Files that others keep weights in; they can run code when they are loaded, so they never are.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

#: No description is longer; a longer file is not one.
LONGEST_CONFIG = 1_000_000

_FIELDS = {"library", "version", "name", "trained", "config"}
_METADATA = "diffmiczoo"


def save_directory(model: DiffMICv2, directory: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
    """Writes `model.safetensors` and `config.json`; a save that is killed leaves the old model or the new one.

    The weights file holds the description too, so replacing it, one step for the file system, replaces the model.

    Args:
        model: its weights, config, name and whether it is trained.
        directory: made if need be; other files in it are left alone.
        dtype: store floating-point tensors as this type; as they are by default.

    Raises:
        ValueError: a value does not fit `dtype`.
        OSError: the directory cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    description = {
        "library": "diffmiczoo",
        "version": __version__,
        "name": model.weights_name,
        "trained": model.trained,
        "config": model.config.to_dict(),
    }
    text = json.dumps(description, indent=2) + "\n"
    with tempfile.TemporaryDirectory(dir=directory, prefix=".saving-") as temporary:
        weights, config = Path(temporary) / WEIGHTS_FILE, Path(temporary) / CONFIG_FILE
        save_file(tensors, weights, metadata={"format": "pt", _METADATA: text})
        config.write_text(text, encoding="utf-8")
        # safetensors writes files that only their owner may read; weights are shared like the config beside them.
        weights.chmod(config.stat().st_mode)
        _flush(weights)
        os.replace(weights, directory / WEIGHTS_FILE)
        os.replace(config, directory / CONFIG_FILE)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    stored = tensor.detach().cpu().contiguous()
    if dtype is None or not stored.is_floating_point():
        return stored.clone()
    if not bool(torch.isfinite(stored.to(dtype)).all()):
        raise ValueError(f"{name} has values that {dtype} cannot hold")
    return stored.to(dtype)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_description(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what a weights directory says of itself: library, version, name, trained, config.

    Raises:
        FileNotFoundError: there is no such directory or file.
        ValueError: it is not a description of a diffmiczoo model.

    Warns:
        UserWarning: `config.json` says something else than the weights file; the weights file is believed.
    """
    path, weights = Path(directory) / CONFIG_FILE, Path(directory) / WEIGHTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a weights directory holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    if path.stat().st_size > LONGEST_CONFIG:
        raise ValueError(f"{path}: is longer than {LONGEST_CONFIG:,} bytes, not a description of a diffmiczoo model")
    description = _parsed(path.read_bytes(), path)
    own = _metadata(weights) if weights.is_file() else None
    if own is None or own == description:
        return description
    DiffMICConfig.from_dict(description["config"], source=str(path))
    changed = sorted({*_flat(own).items()} ^ {*_flat(description).items()})
    warnings.warn(
        f"{path} differs from the description inside {WEIGHTS_FILE} in {sorted({name for name, _ in changed})}: a save "
        "was interrupted, or it was edited; the weights' own is used",
        UserWarning,
        stacklevel=2,
    )
    return own


def _metadata(weights: Path) -> dict[str, Any] | None:
    """Returns the description inside a weights file; None where a file without one was written by another program."""
    with _opened(weights) as file:
        text = (file.metadata() or {}).get(_METADATA)
    return None if text is None else _parsed(text.encode(), weights)


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    try:
        description = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(description, dict) or set(description) != _FIELDS or description["library"] != "diffmiczoo":
        raise ValueError(f"{path}: expected a description of a diffmiczoo model with the fields {sorted(_FIELDS)}")
    return description


def _flat(description: dict[str, Any]) -> dict[str, str]:
    config = description["config"] if isinstance(description["config"], dict) else {"config": description["config"]}
    return {name: json.dumps(value) for name, value in {**description, **config}.items() if name != "config"}


def read_config(directory: str | os.PathLike[str]) -> DiffMICConfig:
    """Reads the `DiffMICConfig` of a weights directory.

    Raises:
        FileNotFoundError: there is no such directory or file.
        ValueError: a field is unknown, missing or not allowed.
    """
    description = read_description(directory)
    return DiffMICConfig.from_dict(description["config"], source=str(Path(directory) / CONFIG_FILE))


def load_model(
    directory: str | os.PathLike[str],
    overrides: dict[str, Any] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> DiffMICv2:
    """Builds the model of a weights directory; every tensor has to be there and to fit.

    Nothing is drawn at random and nothing is held twice: the model is laid out without memory, the file's header is
    compared with it, and the tensors are mapped from the file straight to the device.

    Args:
        directory: holds `model.safetensors` and `config.json`.
        overrides: fields of the config to change; those that shape tensors are errors.
        device: where the model lives; the CPU by default.
        dtype: of its floating-point tensors; float32 by default.

    Returns:
        The model in eval mode.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is broken or a pickle, or tensors are missing, unknown, of another shape or type; the message
            lists them.
    """
    directory = Path(directory)
    path = directory / WEIGHTS_FILE
    _require_safetensors(directory)
    description = read_description(directory)
    config = DiffMICConfig.from_dict(description["config"], source=str(directory / CONFIG_FILE))
    model = build_without_memory(config.replace(**overrides or {}))
    device, dtype = torch.device(device or "cpu"), dtype or torch.float32
    with _opened(path, str(device)) as file:
        _compare(file, model, path)
        tensors = {name: _loaded(file.get_tensor(name), dtype) for name in file.keys()}  # noqa: SIM118
    model.load_state_dict(tensors, assign=True)
    model.finish_loading(device, dtype)
    model.trained, model.weights_name = description["trained"], description["name"]
    return model.eval()


def build_without_memory(config: DiffMICConfig) -> DiffMICv2:
    """Lays a model out on the meta device, or with memory where a backbone computes buffers that no file holds."""
    with torch.device("meta"):
        model = DiffMICv2(config)
    stored = model.state_dict().keys()
    computed = [name for name, _ in model.named_buffers() if name not in stored and name != "default_noise"]
    return DiffMICv2(config) if computed else model


def _require_safetensors(directory: Path) -> None:
    if (directory / WEIGHTS_FILE).is_file():
        return
    pickles = sorted(path.name for path in directory.glob("*") if path.suffix in PICKLES)
    if pickles:
        raise ValueError(
            f"{directory} holds {', '.join(pickles)} but no {WEIGHTS_FILE}: pickled weights can run code when they are "
            "loaded and are refused; `diffmiczoo convert` turns checkpoints of known programs into safetensors"
        )
    path = directory / WEIGHTS_FILE
    raise FileNotFoundError(f"{path} does not exist; a weights directory holds {CONFIG_FILE} and {WEIGHTS_FILE}")


def _opened(path: Path, device: str = "cpu") -> Any:
    try:
        return safe_open(path, framework="pt", device=device)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or cut short ({error})") from error


_TYPES = {"F16", "BF16", "F32", "F64"}


def _compare(file: Any, model: DiffMICv2, path: Path) -> None:
    """Compares a file's header with a model's tensors.

    Raises:
        ValueError: they differ.
    """
    own, found = model.state_dict(), set(file.keys())
    problems = [f"missing {name}" for name in own if name not in found]
    problems += [f"unknown {name}" for name in sorted(found - own.keys())]
    for name in own.keys() & found:
        part = file.get_slice(name)
        shape, kind = tuple(part.get_shape()), part.get_dtype()
        if shape != tuple(own[name].shape):
            problems.append(f"{name} has shape {shape}, expected {tuple(own[name].shape)}")
        allowed = _TYPES if own[name].is_floating_point() else {"I64"}
        if kind not in allowed:
            problems.append(f"{name} has type {kind}, expected {' or '.join(sorted(allowed))}")
    if problems:
        shown = "; ".join(sorted(problems)[:10])
        raise ValueError(f"{path} does not fit the model in {len(problems)} tensors: {shown}")


def _loaded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
