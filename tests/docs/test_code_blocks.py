"""Code blocks of README.md, CONTRIBUTING.md and docs/ run, page by page, on stand-ins for a user's files.

A block that cannot run has `<!-- no-run: reason -->` above it; what it says to `diffmiczoo` is parsed all the same.
README's two `<!-- command: NAME -->` blocks are run by .ci/run in a fresh environment.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import diffmiczoo
from diffmiczoo.cli import main
from diffmiczoo.training import presets

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKER = re.compile(r"<!-- (no-run|command): (.+) -->")
CLASSES = ("benign", "malignant", "normal")

#: page → blocks that run and blocks that do not. A block more or less is a change here too.
COUNTS = {
    "README.md": (3, 3),
    "CONTRIBUTING.md": (0, 1),
    "docs/audit.md": (2, 1),
    "docs/conversion.md": (0, 3),
    "docs/deployment.md": (1, 5),
    "docs/evaluate.md": (5, 1),
    "docs/explanations.md": (2, 0),
    "docs/export.md": (0, 2),
    "docs/index.md": (1, 1),
    "docs/inputs.md": (1, 0),
    "docs/medmnist.md": (0, 2),
    "docs/performance.md": (0, 1),
    "docs/plain.md": (1, 1),
    "docs/predict.md": (4, 1),
    "docs/publish.md": (0, 3),
    "docs/recalibrate.md": (0, 2),
    "docs/reports.md": (1, 1),
    "docs/reproduction.md": (0, 1),
    "docs/scaling.md": (0, 7),
    "docs/timm.md": (2, 1),
    "docs/train.md": (4, 2),
    "docs/trust.md": (0, 2),
}


@dataclass
class Block:
    language: str
    text: str
    line: int
    marker: str = ""  # "no-run" or "command"

    @property
    def runs(self) -> bool:
        return self.language in ("python", "bash") and not self.marker


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page; a marker holds for the block that follows it."""
    blocks, inside, marker = [], None, ""
    for number, line in enumerate(text.splitlines(), 1):
        if inside is None:
            if found := MARKER.fullmatch(line.strip()):
                marker = found[1]
            elif line.startswith("```"):
                inside, marker = Block(line[3:].strip(), "", number, marker), ""
            elif line.strip():
                marker = ""
        elif line.startswith("```"):
            blocks.append(inside)
            inside = None
        else:
            inside.text += line + "\n"
    assert inside is None, "a block is never closed"
    return blocks


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command of a bash block, without comments."""
    joined = block.text.replace("\\\n", " ").replace("&&", "\n")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def diffmiczoo_arguments(words: list[str]) -> list[str] | None:
    """What a command hands to the command line of this package; None where it starts another program."""
    if Path(words[0]).name == "diffmiczoo":
        return words[1:]
    if "diffmiczoo.cli" in words:
        return words[words.index("diffmiczoo.cli") + 1 :]
    return None


def parse(arguments: list[str]) -> None:
    """Lets click read a command with its options, without running it."""
    name, *rest = arguments
    context = click.Context(main, info_name="diffmiczoo")
    command = main.get_command(context, name)
    if command is None:
        raise click.UsageError(f"no command {name}")
    command.make_context(name, rest, parent=context)


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_with_code(page: Path) -> list[Block]:
    return [block for block in blocks_of(page.read_text("utf-8")) if block.language]


def write_pictures(folder: Path, count: int, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages suppose a user to have."""
    place = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    for name in ("scans", "more", "new_images"):
        write_pictures(place / name, 2, rng)
    for name in CLASSES:
        write_pictures(place / "my_images" / name, 6, rng)
        for split, count in (("train", 3), ("val", 2), ("test", 2)):
            write_pictures(place / "data" / "busi" / split / name, count, rng)
    pictures = sorted((place / "data" / "busi" / "test").rglob("*.png"))
    rows = [f"{path.relative_to(place / 'data')},{path.parent.name},{'fm'[i % 2]},{i}" for i, path in enumerate(pictures)]
    (place / "data" / "visits.csv").write_text("\n".join(["file,label,sex,age", *rows]))
    Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(place / "a.jpg")
    (place / "last.ckpt").write_bytes(b"")
    (place / "examples").symlink_to(ROOT / "examples")
    return place


@pytest.fixture
def workplace(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with the stand-ins, as working directory; runs are of one epoch a stage."""
    for each in stand_ins.iterdir():
        (tmp_path / each.name).symlink_to(each)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(presets, "_NANO_SIZES", ((10**9, 8, 1, 1),))
    return tmp_path


def make_outputs_of_earlier_commands(arguments: list[str]) -> None:
    for path in [Path(each) for each in arguments if each.startswith("runs/")]:
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()


def run_block(block: Block, namespace: dict[str, Any], page: str) -> None:
    if block.language == "python":
        exec(compile("\n" * block.line + block.text, page, "exec"), namespace)
        return
    for words in commands_of(block):
        arguments = diffmiczoo_arguments(words)
        assert arguments is not None, f"{page}:{block.line}: {words[0]} is not run; mark the block with its reason"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{page}:{block.line}: {shlex.join(words)}\n{result.output}\n{result.exception!r}"


def test_no_page_has_more_or_fewer_blocks_than_are_known():
    counts = {}
    for page in PAGES:
        blocks = blocks_with_code(page)
        assert {block.language for block in blocks} <= {"python", "bash"}, page
        if blocks:
            running = sum(block.runs for block in blocks)
            counts[page_name(page)] = (running, len(blocks) - running)
    assert counts == COUNTS


def test_what_is_not_run_has_a_reason():
    for page in PAGES:
        for kind, reason in MARKER.findall(page.read_text("utf-8")):
            assert kind == "command" or len(reason) > 10, page


@pytest.mark.parametrize("page", [page for page in PAGES if page_name(page) in COUNTS], ids=page_name)
def test_every_diffmiczoo_command_is_understood(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # pages name GPUs, which this machine may lack
    for block in blocks_with_code(page):
        if block.language == "bash":
            for words in commands_of(block):
                arguments = diffmiczoo_arguments(words)
                if arguments is not None:
                    make_outputs_of_earlier_commands(arguments)
                    try:
                        parse(arguments)
                    except click.ClickException as error:
                        pytest.fail(f"{page_name(page)}:{block.line}: {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if COUNTS.get(page_name(page), (0, 0))[0]], ids=page_name
)
def test_blocks_run_in_their_order(page: Path, workplace: Path):
    if page.name in ("evaluate.md", "reports.md"):  # they go on from the run that train.md made
        model = diffmiczoo.create_model("diffmicv2_nano.busi", pretrained=True)
        model.save_pretrained("runs/busi/best")
    namespace: dict[str, Any] = {}
    for block in blocks_with_code(page):
        if block.runs:
            run_block(block, namespace, page_name(page))


def test_markers_comments_and_continued_lines_are_read():
    page = (
        "<!-- no-run: takes hours -->\n```bash\na b \\\n  c  # d\n```\n\n"
        "<!-- no-run: lost -->\ntext\n```python\n1 / 0\n```\n"
    )
    first, second = blocks_of(page)
    assert (first.marker, first.runs, commands_of(first)) == ("no-run", False, [["a", "b", "c"]])
    assert (second.marker, second.runs) == ("", True)
    with pytest.raises(ZeroDivisionError):
        run_block(second, {}, "page")


def test_a_wrong_option_is_noticed():
    with pytest.raises(click.ClickException):
        parse(["predict", "--no-such-option"])
