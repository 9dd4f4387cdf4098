"""Command line `diffmiczoo`."""

from __future__ import annotations

import click

from diffmiczoo._version import __version__
from diffmiczoo.cli.benchmark import benchmark
from diffmiczoo.cli.evaluate import compare, evaluate
from diffmiczoo.cli.fit import fit
from diffmiczoo.cli.predict import predict
from diffmiczoo.cli.zoo import convert, info, list_command, push


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffmiczoo")
def main() -> None:
    """DiffMIC-v2 diffusion classifiers for medical images. Not for clinical use."""


for command in (list_command, info, predict, fit, evaluate, compare, benchmark, convert, push):
    main.add_command(command)
