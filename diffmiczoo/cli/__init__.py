"""Command line `diffmiczoo`: a file per command; `common` has the options they share, `output` what they write."""

from __future__ import annotations

import click

from diffmiczoo._version import __version__
from diffmiczoo.cli.audit import audit
from diffmiczoo.cli.benchmark import benchmark
from diffmiczoo.cli.compare import compare
from diffmiczoo.cli.convert import convert
from diffmiczoo.cli.evaluate import evaluate
from diffmiczoo.cli.export import export
from diffmiczoo.cli.fit import fit
from diffmiczoo.cli.group import CommandGroup
from diffmiczoo.cli.info import info
from diffmiczoo.cli.list import list_models
from diffmiczoo.cli.predict import predict
from diffmiczoo.cli.push import push
from diffmiczoo.cli.recalibrate import recalibrate
from diffmiczoo.cli.report import report
from diffmiczoo.cli.reproduce import reproduce
from diffmiczoo.cli.serve import serve


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffmiczoo")
def main() -> None:
    """DiffMIC-v2 diffusion classifiers for medical images. Not for clinical use.

    An error that you can set right is one line and exit status 2. DIFFMICZOO_DEBUG=1 shows where it comes from.
    """


for command in (
    list_models, info, predict, audit, fit, evaluate, compare, report, recalibrate, export, serve, benchmark, convert,
    push, reproduce,
):  # fmt: skip
    main.add_command(command)
