"""Runs the command line: `python -m diffmiczoo.cli`."""

from diffmiczoo.cli import main

main()
