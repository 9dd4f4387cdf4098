"""What several commands share: errors as one line, devices, FIELD=VALUE settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns the package's own errors into one line and exit status 2, without a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


def checked_device(device: str) -> str:
    """Returns the name of a device that is here.

    Raises:
        ValueError: it is not, or torch does not know the name.
    """
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"--device {device} is not known; take cpu, cuda, cuda:1, …, or mps") from None
    missing = (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.mps.is_available())
    if missing:
        raise ValueError(f"there is no {kind} device here; use --device cpu")
    return device


def assignments(texts: tuple[str, ...]) -> dict[str, Any]:
    """Returns field → value of texts FIELD=VALUE; a value is JSON, or a text.

    Raises:
        ValueError: a text has no "=".
    """
    values = {}
    for text in texts:
        field, sign, value = text.partition("=")
        if not sign:
            raise ValueError(f"{text!r}: expected FIELD=VALUE")
        try:
            values[field.strip()] = json.loads(value)
        except json.JSONDecodeError:
            values[field.strip()] = value
    return values
