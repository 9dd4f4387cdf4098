"""Tables and figures as files: Markdown for people, CSV and JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffmiczoo.files import write_text
from diffmiczoo.reporting.reproduction.planning import Target
from diffmiczoo.reporting.reproduction.variants import Budget, Run
from diffmiczoo.reporting.reproduction.workspace import Workspace


def write_target(
    target: Target, budget: Budget, runs: Sequence[Run], methods: Sequence[str], space: Workspace
) -> tuple[tuple[Path, ...], str]:
    path = space.output / f"{target.name}.md"
    write_text(path, "")
    return (path,), ""
