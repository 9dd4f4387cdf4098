"""The command line as a whole: names, shared options, errors, and what `--help` loads."""

from __future__ import annotations

import errno
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from factories import run_command

import diffmiczoo
from diffmiczoo.cli import common, main
from diffmiczoo.cli.group import CommandGroup
from diffmiczoo.errors import InvalidValueError, MissingFileError
from diffmiczoo.runtime.precision import PRECISIONS

COMMANDS = (
    "list info predict audit fit evaluate compare report recalibrate export serve benchmark convert push "
    "reproduce".split()
)


def test_help_lists_the_commands() -> None:
    result = run_command("--help")
    assert result.exit_code == 0 and all(f"\n  {command} " in result.output for command in COMMANDS)
    assert sorted(main.commands) == sorted(COMMANDS)
    assert diffmiczoo.__version__ in run_command("--version").output


def test_train_is_another_name_of_fit() -> None:
    train, fit = (run_command(name, "--help").output.split("\n", 1) for name in ("train", "fit"))
    assert train[1] == fit[1]


@pytest.mark.parametrize("command", ["--help", *(f"{name} --help" for name in COMMANDS)])
def test_help_loads_no_torch(command: str) -> None:
    program = (
        "import sys\nfrom diffmiczoo.cli import main\n"
        f"main({command.split()}, standalone_mode=False)\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'numpy', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL).returncode == 0


def test_options_of_one_name_mean_the_same_everywhere() -> None:
    shared: dict[str, set[tuple]] = {}
    for command in main.commands.values():
        for option in command.params:
            if option.opts[0] in ("--batch-size", "--device", "--split", "--format", "--precision"):
                help_text = (option.help or "").removesuffix("; may be repeated.").rstrip(".")
                shared.setdefault(option.opts[0], set()).add((type(option.type), help_text))
        assert not {"--json", "--batch"} & {name for option in command.params for name in option.opts}
    assert {name: len(meanings) for name, meanings in shared.items()} == dict.fromkeys(shared, 1)
    assert len(shared) == 5
    assert tuple(PRECISIONS) == common.PRECISIONS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "a.png"], "Missing option '--model' (env var: 'DIFFMICZOO_MODEL'); see diffmiczoo predict --help"),
        (["predict", "a.png", "--model", "x", "--precision", "fp8"], "'fp8' is not one of 'fp32'"),
        (["nothing"], "No such command 'nothing'"),
        (["fit", "--colour"], "No such option"),
        (["compare", "here.csv", "there.csv"], "'here.csv' does not exist"),
        (["info", "diffmicv2_ham1000"], "did you mean diffmicv2_ham10000"),
    ],
)
def test_what_is_typed_wrong_is_told_in_one_line(arguments: list[str], message: str) -> None:
    result = run_command(*arguments)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ")


def failing(error: BaseException) -> click.Group:
    def command() -> None:
        raise error

    return CommandGroup("program", commands=[click.Command("run", callback=command)])


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InvalidValueError("size=3 is odd"), 2, "Error: size=3 is odd"),
        (MissingFileError("no weights"), 2, "Error: no weights"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), 2, "Error: /a/b: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "c"), 2, "Error: c: No such file or directory"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), 2, "Error: d: Is a directory"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "Error: [Errno 28] No space left on device"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), 2, "Error: [Errno 111] refused"),
        (KeyboardInterrupt("stopped in epoch 1"), 130, "stopped in epoch 1"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_of_users_are_one_line(monkeypatch, error: BaseException, status: int, line: str) -> None:
    result = CliRunner().invoke(failing(error), ["run"])
    assert (result.exit_code, result.stderr) == (status, line + "\n")
    monkeypatch.setenv("DIFFMICZOO_DEBUG", "1")
    result = CliRunner().invoke(failing(error), ["run"])
    assert result.exit_code == status and result.stderr.endswith(line + "\n")
    assert result.stderr.startswith("Traceback") and "in command" in result.stderr


@pytest.mark.parametrize(
    "error",
    [kind("bug") for kind in (ValueError, TypeError, ImportError, OSError, RuntimeError, KeyError, AssertionError)],
)
def test_faults_of_the_program_keep_their_traceback(error: Exception) -> None:
    result = CliRunner().invoke(failing(error), ["run"])
    assert result.exit_code == 1 and result.exception is error and result.stderr == ""


@pytest.mark.parametrize(
    ("device", "message"),
    [("foo", "'--device': foo is not known"), ("cuda", "there is no cuda device"), ("cuda:99", "cuda")],
)
@pytest.mark.parametrize("command", ["predict", "evaluate", "fit", "benchmark"])
def test_devices_that_are_not_there(tmp_path, command: str, device: str, message: str) -> None:
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one here")
    needed = {"predict": [tmp_path], "evaluate": [tmp_path], "fit": ["--train", tmp_path, "--output", tmp_path]}
    model = ["--model", "diffmicv2_nano"]
    result = run_command(command, *needed.get(command, []), *model, "--device", device)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_assignments_are_json_or_text() -> None:
    texts = ("seed=3", "loss=focal", "mean=[0.5, 0.5, 0.5]", "vflip = 0.5")
    assert common.assignments(texts) == {"seed": 3, "loss": "focal", "mean": [0.5, 0.5, 0.5], "vflip": 0.5}
