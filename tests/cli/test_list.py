"""`diffmiczoo list`."""

from __future__ import annotations

from factories import run_command

import diffmiczoo


def test_list() -> None:
    lines = run_command("list").output.splitlines()
    assert [line.split()[0] for line in lines] == diffmiczoo.list_models()
    pretrained = run_command("list", "--pretrained").output.splitlines()
    assert [line.split()[0] for line in pretrained] == diffmiczoo.list_models(pretrained=True)
    nothing = run_command("list", "nothing")
    assert nothing.exit_code == 1 and "no name matches 'nothing'" in nothing.stderr and nothing.stdout == ""
