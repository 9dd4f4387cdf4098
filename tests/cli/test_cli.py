"""The command line as a whole."""

from __future__ import annotations

from factories import run_command

import diffmiczoo


def test_help_lists_the_commands() -> None:
    result = run_command("--help")
    assert result.exit_code == 0 and all(command in result.output for command in ("list", "info", "predict", "fit"))
    assert diffmiczoo.__version__ in run_command("--version").output
