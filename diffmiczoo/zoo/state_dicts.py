"""Third-party state dicts: read without executing pickles, loaded strictly (missing or unknown keys are listed)."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffmiczoo.errors import InvalidValueError, MissingFileError

Checkpoint = str | os.PathLike[str] | Mapping[str, Any]

_SHOWN = 10


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint under their names, without wrappers.

    Args:
        checkpoint: a file or a state dict; Lightning's and others' wrappers, and DataParallel's prefix, are taken off.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a checkpoint, or holds more than tensors; the message says what it is.
    """
    source = "the state dict" if isinstance(checkpoint, Mapping) else os.fspath(checkpoint)
    values: Any = checkpoint if isinstance(checkpoint, Mapping) else _load(Path(source))
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(values, Mapping) and isinstance(values.get(wrapper), Mapping):
            values = values[wrapper]
    if not isinstance(values, Mapping) or not values:
        raise InvalidValueError(f"{source}: expected a state dict (name → tensor), found {type(values).__name__}")
    others = sorted(str(key) for key, value in values.items() if not isinstance(value, Tensor))
    raise_if_any(f"{source}: not tensors:", others)
    return {str(key).removeprefix("module."): value for key, value in values.items()}


def _load(path: Path) -> Any:
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist")
    _recognise(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise InvalidValueError(f"{path}: not a safetensors file, or cut short ({error})") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidValueError(
            f"{path}: is no checkpoint, or holds Python objects besides tensors. Loading those can run any code, so it "
            "is refused. Whoever made the file can store its state dict alone: "
            "torch.save(checkpoint['state_dict'], 'weights.pt')"
        ) from error
    except Exception as error:  # bytes that are no pickle make the unpickler fail in any way
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidValueError(f"{path}: not a checkpoint, or cut short ({first})") from error


def _recognise(path: Path) -> None:
    """Names what people often have instead of a checkpoint."""
    with path.open("rb") as file:
        head = file.read(200)
    if not head:
        raise InvalidValueError(f"{path}: is empty; was the download interrupted?")
    if head.startswith(b"version https://git-lfs"):
        raise InvalidValueError(f"{path}: is a pointer of Git LFS, not the file; fetch it with `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise InvalidValueError(f"{path}: is a web page, not a checkpoint; was it downloaded without logging in?")


def load_strict(module: nn.Module, tensors: dict[str, Tensor], what: str = "") -> None:
    """Loads tensors that have to be exactly a module's own; counters of batches may be missing.

    Args:
        module: also one without memory, on the meta device.
        tensors: name → values, which are copied.
        what: whose tensors they are, the first words of the message.

    Raises:
        ValueError: they are not, or are not finite.
    """
    own = module.state_dict()
    counters = {
        key: torch.zeros_like(tensor, device="cpu") if tensor.is_meta else tensor
        for key, tensor in own.items()
        if key.endswith("num_batches_tracked")
    }
    problems = [f"missing {key}" for key in own if key not in tensors and key not in counters]
    problems += [f"unknown {key}" for key in tensors if key not in own]
    for key, tensor in tensors.items():
        if key in own and tensor.shape != own[key].shape:
            problems.append(f"{key} has shape {tuple(tensor.shape)}, expected {tuple(own[key].shape)}")
        elif tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            problems.append(f"{key} has values that are NaN or infinite")
    raise_if_any(f"{what}tensors that do not fit:", problems)
    if any(tensor.is_meta for tensor in own.values()):
        copies = {key: tensor.detach().to("cpu", own[key].dtype, copy=True) for key, tensor in tensors.items()}
        module.load_state_dict(counters | copies, assign=True)
    else:
        module.load_state_dict(counters | tensors)


def raise_if_any(what: str, names: Sequence[str]) -> None:
    """Raises a `ValueError` that lists names, if there are any."""
    if names:
        raise InvalidValueError(f"{what} {preview(names)} ({len(names)} in all)")


def preview(names: Any) -> str:
    """Returns the first of some names as a text."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
