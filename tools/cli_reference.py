"""Writes docs/cli.md, the reference of the command line, from the commands themselves.

python tools/cli_reference.py           writes the page
python tools/cli_reference.py --check   says whether it is up to date, and exits with status 1 where it is not
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from diffmiczoo.cli import main
from diffmiczoo.cli.group import ALIASES

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"

INTRODUCTION = """\
# Command line

Made from the commands by `tools/cli_reference.py`; `diffmiczoo COMMAND --help` shows the same.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | `audit`: something is wrong with the data; `predict`: some files could not be read, the others are done; \
`list`: no name matches; else a fault of \
the program, with its traceback |
| 2 | something that you can set right, in one line; `DIFFMICZOO_DEBUG=1` shows where it comes from |
| 130 | stopped with Ctrl-C; `fit` goes on when it is started again |
"""


def reference() -> str:
    """Returns the page."""
    return "\n".join([INTRODUCTION, *(_section(name, command) for name, command in main.commands.items())])


def _section(name: str, command: click.Command) -> str:
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    options = [each for each in command.params if isinstance(each, click.Option)]
    usage = " ".join([f"diffmiczoo {name}", *map(_argument, arguments), *(["[OPTIONS]"] if options else [])])
    others = [alias for alias, own in ALIASES.items() if own == name]
    lines = [f"## {name}", "", *(f"Also `diffmiczoo {alias}`.\n" for alias in others)]
    lines += ["```", usage, "```", "", _paragraphs(command.help or "")]
    if options:
        lines += ["", "| option | meaning |", "|---|---|", *map(_row, options)]
    return "\n".join(lines) + "\n"


def _argument(argument: click.Argument) -> str:
    name = (argument.name or "").upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _row(option: click.Option) -> str:
    words = [option.help or ""]
    if isinstance(option.type, click.Choice):
        words.append(", ".join(f"`{choice}`" for choice in option.type.choices) + ".")
    if option.show_default is True and option.default is not None:
        words.append(f"Default: `{option.default}`.")
    variable = f" or `{option.envvar}` in the environment" if option.show_envvar else ""
    if option.required:
        words.append(f"Required, here{variable}." if variable else "Required.")
    elif variable:
        words.append(f"Also{variable.removeprefix(' or')}.")
    value = "" if option.is_flag else " " + _value(option)
    return f"| `{', '.join([*option.opts, *option.secondary_opts])}{value}` | {' '.join(filter(None, words))} |"


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Path):
        return "FILE" if not option.type.dir_okay else "DIR" if not option.type.file_okay else "PATH"
    known = {click.IntRange: "N", click.FloatRange: "X", click.Choice: "WORD"}
    return known.get(type(option.type), "TEXT")


def _paragraphs(text: str) -> str:
    """Returns help without line breaks within its paragraphs."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


if __name__ == "__main__":
    page = reference()
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
            sys.exit(f"{PAGE} is not what the commands say; run: python tools/cli_reference.py")
    else:
        PAGE.write_text(page, encoding="utf-8")
