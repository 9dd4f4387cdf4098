"""Where weights come from and go to: directories with `model.safetensors` and `config.json`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffmiczoo._version import __version__
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def save_directory(model: DiffMICv2, directory: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
    """Writes `model.safetensors` and `config.json`; each file is the old or the new one, never half of it.

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
    tensors = {}
    for name, tensor in model.state_dict().items():
        stored = tensor.detach().cpu().contiguous()
        if dtype is not None and stored.is_floating_point():
            if not bool(torch.isfinite(stored.to(dtype)).all()):
                raise ValueError(f"{name} has values that {dtype} cannot hold")
            stored = stored.to(dtype)
        tensors[name] = stored.clone()
    description = {
        "library": "diffmiczoo",
        "version": __version__,
        "name": model.weights_name,
        "trained": model.trained,
        "config": model.config.to_dict(),
    }
    with tempfile.TemporaryDirectory(dir=directory, prefix=".saving-") as temporary:
        save_file(tensors, Path(temporary) / WEIGHTS_FILE, metadata={"format": "pt"})
        (Path(temporary) / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        # safetensors writes files that only their owner may read; weights are shared like the config beside them.
        (Path(temporary) / WEIGHTS_FILE).chmod((Path(temporary) / CONFIG_FILE).stat().st_mode)
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            os.replace(Path(temporary) / file, directory / file)


def read_description(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the `config.json` of a weights directory: library, version, name, trained, config.

    Raises:
        FileNotFoundError: there is no such directory or file.
        ValueError: it is not a description of a diffmiczoo model.
    """
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a weights directory holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    fields = {"library", "version", "name", "trained", "config"}
    if not isinstance(description, dict) or set(description) != fields or description["library"] != "diffmiczoo":
        raise ValueError(f"{path}: expected a description of a diffmiczoo model with the fields {sorted(fields)}")
    return description


def read_config(directory: str | os.PathLike[str]) -> DiffMICConfig:
    """Reads the `DiffMICConfig` of a weights directory.

    Raises:
        FileNotFoundError: there is no such directory or file.
        ValueError: a field is unknown, missing or not allowed.
    """
    description = read_description(directory)
    return DiffMICConfig.from_dict(description["config"], source=str(Path(directory) / CONFIG_FILE))


def load_weights(model: DiffMICv2, directory: str | os.PathLike[str]) -> None:
    """Fills a model from a weights directory; every tensor has to be there and to fit.

    Args:
        model: built from the directory's own config.
        directory: holds `model.safetensors`.

    Raises:
        FileNotFoundError: there is no weights file.
        ValueError: it is broken, or tensors are missing, unknown or of another shape; the message lists them.
    """
    path = Path(directory) / WEIGHTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a weights directory holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or cut short ({error})") from error
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in stored]
    problems += [f"unknown {name}" for name in stored if name not in own]
    problems += [
        f"{name} has shape {tuple(stored[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in stored and stored[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:10])
        raise ValueError(f"{path} does not fit the model in {len(problems)} tensors: {shown}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])
