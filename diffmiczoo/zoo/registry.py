"""Names → models: `create_model`, `list_models`; light until a model is built."""

from __future__ import annotations

import difflib
import fnmatch
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub.checksums import WrongContentError, verify
from diffmiczoo.hub.client import HUB_PREFIX, Access, fetch, parse_hub_name
from diffmiczoo.zoo.architectures import ablation_fields, architectures
from diffmiczoo.zoo.weights import DATASET_NAMES, ENTRIES, WeightsEntry

if TYPE_CHECKING:
    import torch

    from diffmiczoo.model import DiffMICv2

LOCAL_PREFIX = "local-dir:"


def list_models(filter: str = "", pretrained: bool = False, tags: bool | None = None) -> list[str]:
    """Returns the registered names, sorted: architectures, weight entries and data-set names.

    Args:
        filter: wildcards as in a shell ("diffmicv2_nano*"), or a part of the name.
        pretrained: only names whose weights exist.
        tags: False leaves out the entries `architecture.tag`, True returns only them.
    """
    names = [name for name in _all_names() if not pretrained or has_weights(name)]
    if tags is not None:
        names = [name for name in names if ("." in name) is tags]
    pattern = filter if any(sign in filter for sign in "*?[") else f"*{filter}*"
    return sorted(fnmatch.filter(names, pattern))


def has_weights(name: str) -> bool:
    """Returns whether `create_model(name, pretrained=True)` finds weights of a registered name."""
    return _pretrained_entry(name) is not None


def describe(name: str) -> str:
    """Returns the card of a registered name in one paragraph."""
    architecture, entry = resolve(name)
    text = (architectures()[architecture].__doc__ or "").strip()
    if entry is None:
        return text
    state = {
        "shipped": "weights ship with the package",
        "on the Hub": f"weights are on the Hub, {entry.repository}",
    }.get(weights_state(name, entry), "weights are not published yet")
    return f"{entry.description} Entry {entry.name}: {state}.\n\n    {text}"


def resolve(name: str) -> tuple[str, WeightsEntry | None]:
    """Returns the architecture and the weights entry that a registered name stands for.

    Raises:
        ValueError: the name is not registered; the message suggests the nearest names.
    """
    entry = ENTRIES.get(DATASET_NAMES.get(name, name))
    if entry is not None:
        return entry.architecture, entry
    if name in architectures():
        return name, None
    raise ValueError(_unknown_message(name))


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    task: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    pretrained_backbones: bool = False,
    ablation: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    **config_overrides: Any,
) -> DiffMICv2:
    """Builds a model by name, with trained weights if asked for.

    Args:
        name: an architecture ("diffmicv2_nano"), weights ("diffmicv2_nano.ham10000"), a data set's recommended
            weights ("diffmicv2_ham10000"), "hf-hub:ORGANISATION/REPOSITORY[@REVISION]", or "local-dir:PATH" of a
            directory that `save_pretrained` wrote.
        pretrained: load the trained weights; never falls back to random ones. Needs no network for weights that ship
            with the package.
        num_classes: C; other than the weights' own: the layers that depend on it are rebuilt, with a warning.
        class_names: C names; other than the weights' own: the same.
        task: "multiclass" or "multilabel".
        device: where the model lives; the CPU by default.
        dtype: of its floating-point tensors; float32 by default.
        pretrained_backbones: start the encoders from published weights (ImageNet's from timm, EfficientSAM's); not
            together with `pretrained`.
        ablation: a row of the paper's table IV, "c1" to "c6", or "dcg" for the DCG alone; see
            `diffmiczoo.zoo.architectures.ABLATIONS`.
        revision: commit, branch or tag of the Hub's repository; the commit that the table of weights names by default.
        token: for the Hub; HF_TOKEN by default.
        cache_dir: where downloads are kept; huggingface_hub's own cache by default.
        local_files_only: never ask the network.
        config_overrides: any field of `DiffMICConfig`.

    Returns:
        The model in eval mode.

    Raises:
        ValueError: the name is unknown (the nearest names are suggested), it has no weights, an override is not a
            field, or contradicts the weights.
        TypeError: `class_names` is one text, or `num_classes` not a whole number.
        FileNotFoundError: a local directory has no weights.
        HubError: the Hub does not give the weights, or their content is wrong.
    """
    if pretrained and pretrained_backbones:
        raise ValueError("pretrained=True loads the encoders as well; leave pretrained_backbones out")
    if pretrained and ablation is not None:
        raise ValueError(f"ablation={ablation!r} is a model to train anew; leave pretrained=True out")
    overrides = ({} if ablation is None else ablation_fields(ablation)) | config_overrides
    overrides |= {} if task is None else {"task": task}
    access = Access(token, cache_dir, local_files_only)
    if pretrained:
        directory = weights_directory(name, revision, access)
        model = _load(directory, overrides, device, dtype)
        _apply_classes(model, num_classes, class_names)
        return model
    from diffmiczoo.model import DiffMICv2

    config = config_of(name).uncalibrated().replace(**overrides)
    model = DiffMICv2(_with_classes(config, num_classes, class_names), pretrained_backbones=pretrained_backbones)
    if pretrained_backbones:
        from diffmiczoo.zoo.encoder_weights import fetch_efficientsam

        fetch_efficientsam(model, access)
    return model.to(device=device, dtype=dtype).eval()


def weights_directory(name: str, revision: str | None = None, access: Access | None = None) -> Path:
    """Returns the directory that holds the weights of a name: shipped with the package, in the cache, or from the Hub.

    Args:
        name: as for `create_model`.
        revision: of the Hub's repository; the one that the table names by default.
        access: how the Hub is asked.

    Raises:
        ValueError: the name is unknown or has no weights; the message names weights that exist.
        FileNotFoundError: a local directory does not exist.
        HubError: the Hub does not give them, or their content is wrong.
    """
    access = access or Access()
    if name.startswith(LOCAL_PREFIX):
        return _local_directory(name)
    if name.startswith(HUB_PREFIX):
        repository, named = parse_hub_name(name)
        if named and revision and named != revision:
            raise ValueError(f"{name!r} names a revision, and revision={revision!r} another one")
        return fetch(repository, named or revision, None, access)
    entry = _pretrained_entry(name)
    if entry is None:
        raise ValueError(_not_published_message(name))
    shipped = shipped_directory(entry)
    if shipped is not None and revision is None:
        _verify_shipped(shipped, entry)
        return shipped
    if entry.revision is None:
        raise ValueError(f"{name!r} ships with the package and has no other revision; leave revision={revision!r} out")
    digests = entry.files if revision in (None, entry.revision) else None
    return fetch(entry.repository, revision or entry.revision, digests, access)


def _local_directory(name: str) -> Path:
    directory = Path(name.removeprefix(LOCAL_PREFIX)).expanduser()
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a directory; expected {LOCAL_PREFIX}PATH of saved weights")
    return directory


def _verify_shipped(directory: Path, entry: WeightsEntry) -> None:
    for filename, digest in entry.files.items():
        try:
            verify(directory / filename, digest)
        except WrongContentError as error:
            raise ValueError(f"{entry.name}: {error}; install diffmiczoo again") from error


def _not_published_message(name: str) -> str:
    exist = ", ".join(list_models(pretrained=True)) or "none"
    wanted = resolve(name)[1]
    data = "DIR" if wanted is None else wanted.dataset
    return (
        f"{name!r} has no published weights; weights exist for: {exist}. To train it: "
        f"diffmiczoo fit --model {name} --train {data} --output runs/{name}"
    )


def weights_state(name: str, entry: WeightsEntry | None) -> str:
    """Returns where the weights of a registered name are, in the words of `ModelInfo.weights`."""
    found = _pretrained_entry(name)
    if found is None:
        return "none" if entry is None else "not published"
    state = "on the Hub" if shipped_directory(found) is None else "shipped"
    return state if entry is not None else f"{state} as {found.name}"


def _all_names() -> list[str]:
    return [*architectures(), *ENTRIES, *DATASET_NAMES]


def shipped_directory(entry: WeightsEntry) -> Path | None:
    """Returns the directory of the package that holds an entry's weights, or None where they do not ship."""
    directory = Path(__file__).parents[1] / "weights" / entry.name
    return directory if (directory / "model.safetensors").is_file() else None


def _pretrained_entry(name: str) -> WeightsEntry | None:
    """Returns the entry that `pretrained=True` loads; a bare architecture stands for its first one with weights."""
    architecture, entry = resolve(name)
    entries = [entry] if entry is not None else [e for e in ENTRIES.values() if e.architecture == architecture]
    return next(
        (entry for entry in entries if shipped_directory(entry) is not None or entry.revision is not None), None
    )


def model_config(name: str, *, pretrained: bool = False) -> DiffMICConfig:
    """Returns the `DiffMICConfig` that `create_model` of this name starts from.

    Raises:
        ValueError: the name is unknown, or has no weights while `pretrained` is set.
    """
    if pretrained:
        from diffmiczoo.hub.serialization import read_config

        return read_config(weights_directory(name))
    return config_of(name)


def config_of(name: str) -> DiffMICConfig:
    """Returns the config of a registered name, of a local directory or of a Hub repository.

    Raises:
        ValueError: the name is unknown.
    """
    if name.startswith((LOCAL_PREFIX, HUB_PREFIX)):
        from diffmiczoo.hub.serialization import read_config

        return read_config(weights_directory(name))
    architecture, entry = resolve(name)
    if entry is not None and (shipped := shipped_directory(entry)) is not None:
        from diffmiczoo.hub.serialization import read_config

        return read_config(shipped)
    config = architectures()[architecture]()
    return config if entry is None else config.replace(**entry.config)


def _load(
    directory: Path, overrides: dict[str, Any], device: str | torch.device | None, dtype: torch.dtype | None
) -> DiffMICv2:
    from diffmiczoo.hub.serialization import load_model, read_config

    task = read_config(directory).task
    if overrides.get("task", task) != task:
        raise ValueError(
            f"task={overrides['task']!r} contradicts the weights in {directory}, which are {task}; leave "
            "pretrained=True out to train a new model"
        )
    return load_model(directory, overrides, device=device, dtype=dtype)


def _apply_classes(model: DiffMICv2, num_classes: int | None, class_names: Sequence[str] | None) -> None:
    """Gives a loaded model other classes: names only where the weights have none, else new layers for them."""
    own = model.config
    wanted, names = _classes(own, num_classes, class_names)
    if names and own.class_names and names != own.class_names and set(names) == set(own.class_names):
        raise ValueError(f"the weights have the same class_names in another order: {list(own.class_names)}")
    if wanted != own.num_classes or (names and own.class_names and names != own.class_names):
        model.reset_classifier(wanted, names)
    elif names:
        model.config = own.replace(class_names=names)


def _with_classes(config: DiffMICConfig, num_classes: int | None, class_names: Sequence[str] | None) -> DiffMICConfig:
    wanted, names = _classes(config, num_classes, class_names)
    if names or wanted != config.num_classes:
        ordinal = config.ordinal and names == config.class_names
        return config.replace(num_classes=wanted, class_names=names, ordinal=ordinal)
    return config


def _classes(
    config: DiffMICConfig, num_classes: int | None, class_names: Sequence[str] | None
) -> tuple[int, tuple[str, ...]]:
    """Returns the number of classes that is asked for, the config's own by default, and the names given."""
    if isinstance(class_names, str):
        raise TypeError(f"class_names={class_names!r} is one text; expected a list of names")
    names = tuple(class_names or ())
    if num_classes is None:
        return len(names) or config.num_classes, names
    return operator.index(num_classes), names


def _unknown_message(name: str) -> str:
    if os.path.isdir(name):
        return f"{name!r} is a directory; write {LOCAL_PREFIX}{name} to load weights from it"
    near = difflib.get_close_matches(name, _all_names(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"the names are {', '.join(sorted(_all_names()))}"
    return f"unknown model {name!r}; {hint}"
