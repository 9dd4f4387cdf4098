"""Command line `diffmiczoo`."""

from __future__ import annotations

import click

from diffmiczoo._version import __version__
from diffmiczoo.commands.benchmark import benchmark
from diffmiczoo.commands.evaluation import compare, evaluate
from diffmiczoo.commands.predict import predict
from diffmiczoo.commands.training import fit
from diffmiczoo.commands.zoo import convert, info, list_command, push


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffmiczoo")
def main() -> None:
    """DiffMIC-v2 diffusion classifiers for medical images. Not for clinical use."""


for command in (list_command, info, predict, fit, evaluate, compare, benchmark, convert, push):
    main.add_command(command)


if __name__ == "__main__":
    main()
