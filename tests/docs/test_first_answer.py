"""README's first answer is what its command prints, and its table says of it what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from factories import run_command

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")

#: A probability or uncertainty with three decimals.
NUMBER = re.compile(r"\d\.\d{3}")


def test_it_is_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = re.search(r"<!-- output: try -->\n+```\n(.*?)```", README, re.DOTALL).group(1).rstrip().splitlines()
    printed = run_command("predict", "examples/ham10000", "--model", "diffmicv2_ham10000").stdout.rstrip().splitlines()
    for line, said in zip(printed, shown, strict=True):
        assert NUMBER.sub("", line) == NUMBER.sub("", said)
        numbers = [[float(found) for found in NUMBER.findall(text)] for text in (line, said)]
        # Rounding on another machine may move the last digit.
        assert numbers[0] == pytest.approx(numbers[1], abs=0.0011), said


def test_the_table_has_the_same_answers_and_says_which_are_wrong() -> None:
    said = dict(re.findall(r"^examples/ham10000/(ISIC_\d+)\.jpg +\S+  (\w+ \d\.\d{3})", README, re.MULTILINE))
    rows = re.findall(r"^\| (ISIC_\d+) \| (\w+), [^|]+ \| (\w+ \d\.\d{3}) \| ([^|]+) \|", README, re.MULTILINE)
    assert {name: answer for name, _, answer, _ in rows} == said and len(rows) == 7
    for name, truth, answer, verdict in rows:
        assert verdict.startswith("right" if answer.split()[0] == truth else "**wrong**"), name
