"""What this machine is called, and a small file for each thing that was measured on it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import cache_directory, read_json_object, write_text


@cache
def processor() -> str:
    """Returns what the processor is called; on Linux with the numbers that tell kinds of the same name apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.processor()} {platform.machine()}"
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    parts = [facts.get(name, "") for name in ("model name", "cpu family", "model", "stepping")]
    return " ".join(part for part in parts if part) or platform.machine()


def machine_of(device: torch.device) -> dict[str, Any]:
    """Returns what the speed of a device depends on beside the work: its name, torch's version and threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {processor()}"
    return {"device": name, "torch": torch.__version__, "threads": torch.get_num_threads()}


def recalled(topic: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what `remember` wrote for the same key; None where there is nothing, or nothing that can be read."""
    try:
        found = read_json_object(_file(topic, key))
    except (OSError, InvalidValueError):
        return None
    return found if found.get("key") == dict(key) else None


def remember(topic: str, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Writes down what was found out; where nothing can be written it is found out again next time.

    A file for each key, put in place whole: two processes at once write two files, or the same one twice.

    Args:
        topic: name of the folder.
        key: JSON values of what the finding depends on.
        values: JSON values of the finding.
    """
    file = _file(topic, key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"key": dict(key), **values}, indent=1) + "\n")
    except OSError:
        return


def _file(topic: str, key: Mapping[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]
    return cache_directory(topic) / f"{name}.json"
