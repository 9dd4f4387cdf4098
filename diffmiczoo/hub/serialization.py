"""A model as a directory: `model.safetensors`, which holds its own description, and `config.json`, a readable copy."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffmiczoo._version import __version__
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError, MissingFileError
from diffmiczoo.hub.client import CONFIG_FILE, WEIGHTS_FILE
from diffmiczoo.hub.companions import StorableModel, companions_of, take_companions
from diffmiczoo.runtime.devices import as_device

#: Files that others keep weights in; they can run code when they are loaded, so they never are.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

#: The table of before and after a recalibration, for programs, and how the title of the README.md beside it ends.
RECALIBRATION_FILE, RECALIBRATED = "recalibration.json", ", recalibrated"

#: No description is longer; a longer file is not one.
LONGEST_CONFIG = 1_000_000

#: Fields of the config that say what the numbers of the weights mean; they cannot be overridden.
_MEANING = ("task", "num_classes", "class_names")

_FIELDS = {"library", "version", "name", "trained", "config"}
_METADATA = "diffmiczoo"


Model = TypeVar("Model", bound=StorableModel)


@dataclass(frozen=True)
class Description:
    """What a weights directory says of itself.

    Attributes:
        version: of the package that wrote it.
        name: of the registered weights that it holds, if any.
        trained: whether the weights come from training.
        config: of the model.
    """

    version: str
    name: str | None
    trained: bool
    config: DiffMICConfig

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values, with the library's name."""
        return {
            "library": "diffmiczoo",
            "version": self.version,
            "name": self.name,
            "trained": self.trained,
            "config": self.config.to_dict(),
        }


# ---------------------------------------------------------------------- to a directory


def save_directory(
    model: StorableModel, directory: str | os.PathLike[str], *, dtype: torch.dtype | None = None
) -> None:
    """Writes `model.safetensors` and `config.json`; a save that is killed leaves the old model or the new one.

    The weights file holds the description too, so replacing it, one step for the file system, replaces the model.

    Args:
        model: its weights, config, name and whether it is trained.
        directory: made if need be; other files in it are left alone, but for those that say how weights that were here
            before were recalibrated.
        dtype: store floating-point tensors as this type; as they are by default.

    Raises:
        ValueError: a value does not fit `dtype`.
        OSError: the directory cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    description = Description(__version__, model.weights_name, model.trained, model.config)
    text = json.dumps(description.to_dict(), indent=2) + "\n"
    metadata = {"format": "pt", _METADATA: text, **companions_of(model)}
    with tempfile.TemporaryDirectory(dir=directory, prefix=".saving-") as temporary:
        weights, config = Path(temporary) / WEIGHTS_FILE, Path(temporary) / CONFIG_FILE
        save_file(tensors, weights, metadata=metadata)
        config.write_text(text, encoding="utf-8")
        # safetensors writes files that only their owner may read; weights are shared like the config beside them.
        weights.chmod(config.stat().st_mode)
        _flush(weights)
        os.replace(weights, directory / WEIGHTS_FILE)
        os.replace(config, directory / CONFIG_FILE)
    _remove_recalibration(directory)


def _remove_recalibration(directory: Path) -> None:
    table, readme = directory / RECALIBRATION_FILE, directory / "README.md"
    if not table.is_file():
        return
    if readme.is_file() and readme.read_text("utf-8", "replace").partition("\n")[0].endswith(RECALIBRATED):
        readme.unlink()
    table.unlink()


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    stored = tensor.detach().cpu().contiguous()
    if dtype is None or not stored.is_floating_point():
        return stored.clone()
    if not bool(torch.isfinite(stored.to(dtype)).all()):
        raise InvalidValueError(f"{name} has values that {dtype} cannot hold")
    return stored.to(dtype)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


# ---------------------------------------------------------------------- what a directory says of itself


def read_description(directory: str | os.PathLike[str]) -> Description:
    """Reads what a weights directory says of itself, without its weights.

    Raises:
        FileNotFoundError: there is no such directory or file.
        ValueError: it is not a description of a diffmiczoo model, or a field of its config is unknown, missing or not
            allowed.

    Warns:
        UserWarning: `config.json` says something else than the weights file; the weights file is believed.
    """
    directory = Path(directory)
    if not (directory / WEIGHTS_FILE).is_file():
        return _description(directory, None)
    with _opened(directory / WEIGHTS_FILE) as file:
        return _description(directory, file)


def read_config(directory: str | os.PathLike[str]) -> DiffMICConfig:
    """Reads the `DiffMICConfig` of a weights directory; raises and warns as `read_description` does."""
    return read_description(directory).config


@contextmanager
def _opened(path: Path, device: str = "cpu") -> Iterator[Any]:
    try:
        file = safe_open(path, framework="pt", device=device)
    except SafetensorError as error:
        raise InvalidValueError(f"{path}: not a safetensors file, or cut short ({error})") from error
    with file as opened:
        yield opened


def _description(directory: Path, weights: Any) -> Description:
    """Parses the description in `config.json` and that inside an open weights file, which is believed."""
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; a weights directory holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    if path.stat().st_size > LONGEST_CONFIG:
        raise InvalidValueError(f"{path}: longer than {LONGEST_CONFIG:,} bytes, no description of a diffmiczoo model")
    values = _parsed(path.read_bytes(), path)
    inside = None if weights is None else (weights.metadata() or {}).get(_METADATA)
    # A file without one was written by another program.
    own = values if inside is None else _parsed(inside.encode(), directory / WEIGHTS_FILE)
    if own != values:
        DiffMICConfig.from_dict(values["config"], source=str(path))
        changed = sorted({name for name, _ in {*_flat(own).items()} ^ {*_flat(values).items()}})
        warnings.warn(
            f"{path} differs from the description inside {WEIGHTS_FILE} in {changed}: a save was interrupted, or it "
            "was edited; the weights' own is used",
            UserWarning,
            stacklevel=3,
        )
    config = DiffMICConfig.from_dict(own["config"], source=str(path))
    return Description(own["version"], own["name"], own["trained"], config)


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(values, dict) or set(values) != _FIELDS or values["library"] != "diffmiczoo":
        raise InvalidValueError(
            f"{path}: expected a description of a diffmiczoo model with the fields {sorted(_FIELDS)}"
        )
    name, trained = values["name"], values["trained"]
    if not (name is None or isinstance(name, str)) or not isinstance(trained, bool):
        raise InvalidValueError(f"{path}: name={name!r} must be a text or null, and trained={trained!r} true or false")
    return values


def _flat(description: dict[str, Any]) -> dict[str, str]:
    config = description["config"] if isinstance(description["config"], dict) else {"config": description["config"]}
    return {name: json.dumps(value) for name, value in {**description, **config}.items() if name != "config"}


# ---------------------------------------------------------------------- from a directory


def load_model(
    directory: str | os.PathLike[str],
    build: Callable[[DiffMICConfig], Model],
    overrides: Mapping[str, Any] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """Builds the model of a weights directory; every tensor has to be there and to fit.

    Nothing is drawn at random and nothing is held twice: the model is laid out without memory, the file's header is
    compared with it, and the tensors are mapped from the file straight to the device. The file is opened once.

    Args:
        directory: holds `model.safetensors` and `config.json`.
        build: returns the module of a config.
        overrides: fields of the config to change; those that shape tensors, or tell what they mean, are errors.
        device: where the model lives; "auto" for a GPU of CUDA where there is one; the CPU by default.
        dtype: of its floating-point tensors; float32 by default.

    Returns:
        The model in eval mode.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is broken or a pickle, or tensors are missing, unknown, of another shape or type; the message
            lists them.
    """
    directory = Path(directory)
    _require_safetensors(directory)
    device, dtype = as_device(device), dtype or torch.float32
    with _opened(directory / WEIGHTS_FILE, str(device)) as file:
        description = _description(directory, file)
        model = build_without_memory(build, _overridden(description.config, overrides or {}, directory))
        _compare(file, model, directory / WEIGHTS_FILE)
        companions = file.metadata() or {}
        tensors = {name: _loaded(file.get_tensor(name), dtype) for name in file.keys()}  # noqa: SIM118
    model.load_state_dict(tensors, assign=True)
    take_companions(model, companions)
    model.finish_loading(device, dtype)
    model.trained, model.weights_name, model.loaded_from = description.trained, description.name, directory
    return model.eval()


def same_tensors(model: nn.Module, directory: str | os.PathLike[str]) -> bool:
    """Returns whether a model has the values of a directory's weights file, in its own floating-point type."""
    own = model.state_dict()
    with _opened(Path(directory) / WEIGHTS_FILE) as file:
        if set(file.keys()) != own.keys():
            return False
        stored = {name: file.get_tensor(name) for name in own}
    return all(torch.equal(stored[name].to(tensor.dtype), tensor.cpu()) for name, tensor in own.items())


def _overridden(config: DiffMICConfig, overrides: Mapping[str, Any], directory: Path) -> DiffMICConfig:
    # Without the calibration, which may contradict another task or other classes too.
    asked = config.uncalibrated().replace(**overrides)
    for name in _MEANING:
        own, wanted = getattr(config, name), getattr(asked, name)
        # Weights without names may be given some.
        if own != wanted and not (name == "class_names" and not own):
            raise InvalidValueError(
                f"{name}={wanted!r} contradicts the weights in {directory}, which are {own}; leave pretrained=True out "
                "to train a new model"
            )
    return config.replace(**overrides)


#: Buffers that `finish_loading` computes.
COMPUTED_BUFFERS = {"default_noise", "default_step_noise"}


def build_without_memory(build: Callable[[DiffMICConfig], Model], config: DiffMICConfig) -> Model:
    """Lays a model out on the meta device, or with memory where a backbone computes buffers that no file holds."""
    with torch.device("meta"):
        model = build(config)
    stored = set(model.state_dict())
    computed = [name for name, _ in model.named_buffers() if name not in stored | COMPUTED_BUFFERS]
    return build(config) if computed else model


def _require_safetensors(directory: Path) -> None:
    if (directory / WEIGHTS_FILE).is_file():
        return
    if (directory / "best" / WEIGHTS_FILE).is_file():
        raise MissingFileError(f"{directory} is a training run; its weights are in {directory / 'best'}")
    pickles = sorted(path.name for path in directory.glob("*") if path.suffix in PICKLES)
    if pickles:
        raise InvalidValueError(
            f"{directory} holds {', '.join(pickles)} but no {WEIGHTS_FILE}: pickled weights can run code when they are "
            "loaded and are refused; `diffmiczoo convert` turns checkpoints of known programs into safetensors"
        )
    path = directory / WEIGHTS_FILE
    raise MissingFileError(f"{path} does not exist; a weights directory holds {CONFIG_FILE} and {WEIGHTS_FILE}")


_TYPES = {"F16", "BF16", "F32", "F64"}

#: Bytes at whose multiples torch places tensors.
_ALIGNMENT = 64


def _compare(file: Any, model: nn.Module, path: Path) -> None:
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
        raise InvalidValueError(f"{path} does not fit the model in {len(problems)} tensors: {shown}")


def _loaded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    loaded = tensor.to(dtype) if tensor.is_floating_point() else tensor
    # In a file tensors lie anywhere, and from there some processors compute other last digits than from torch's places.
    return loaded if loaded.data_ptr() % _ALIGNMENT == 0 else loaded.clone()
