"""The Dockerfile, as far as it can be checked without Docker: what it copies, installs and starts exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from diffmiczoo.cli import main
from diffmiczoo.cli.common import MODEL_VARIABLE
from diffmiczoo.zoo.registry import weights_state

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")


def steps() -> list[tuple[str, str]]:
    """Instructions with their arguments, without comments and with continued lines joined."""
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def of(kind: str) -> list[str]:
    return [argument for name, argument in steps() if name == kind]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    sources = [source for line in of("COPY") for source in line.split()[:-1]]
    assert {"diffmiczoo", "pyproject.toml", "LICENSE"} <= set(sources)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists() and f"!{source}" in ignored
    # What pyproject.toml needs of files is there to be installed from.
    named = re.findall(r'(?:readme = |license-files = \[)"([^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert named and set(named) <= set(sources)


def test_the_command_and_its_options_exist() -> None:
    words = [*json.loads(of("ENTRYPOINT")[0]), *json.loads(of("CMD")[0])]
    assert words[:2] == ["diffmiczoo", "serve"]
    arguments = dict(line.partition("=")[::2] for line in of("ARG"))
    variables = dict(pair.partition("=")[::2] for line in of("ENV") for pair in line.split())
    assert variables[MODEL_VARIABLE] == "${MODEL}"
    command = main.get_command(click.Context(main), "serve")
    context = command.make_context("serve", [*words[2:], arguments["MODEL"]])
    assert context.params["host"] == "0.0.0.0" and str(context.params["port"]) == of("EXPOSE")[0]
    assert f":{of('EXPOSE')[0]}/health" in of("HEALTHCHECK")[0]
    assert weights_state(arguments["MODEL"]) == "shipped"


def test_it_does_not_run_as_root_and_arguments_are_those_that_it_names() -> None:
    order = [name for name, _ in steps()]
    made = next(place for place, (name, argument) in enumerate(steps()) if name == "RUN" and "useradd" in argument)
    assert made < order.index("USER") < order.index("ENTRYPOINT") and of("USER") == ["serve"]
    declared = {line.partition("=")[0] for line in of("ARG")}
    used = set(re.findall(r"\$\{(\w+)\}", "\n".join(argument for _, argument in steps())))
    assert used == declared
    assert set(re.findall(r"--build-arg (\w+)=", TEXT)) <= declared
    assert steps()[0] == ("ARG", "BASE=python:3.12-slim") and steps()[1] == ("FROM", "${BASE}")


def test_its_extras_exist() -> None:
    extras = next(line for line in of("ARG") if line.startswith("EXTRAS=")).partition("=")[2].split(",")
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", pyproject, re.M) for extra in extras)
