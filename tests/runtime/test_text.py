"""Names that people gave to classes and files, where a program reads more into a text than its letters."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from factories import ANIMALS, animal_prediction
from PIL import Image

from diffmiczoo.runtime.text import markdown_text, plain_text
from diffmiczoo.training.plots import confusion_figure, draw_confusion, draw_curves

#: A formula that never ends, one that is none, marks of Markdown and TeX, line ends, a long one, scripts that the font
#: lacks, signs of several code points, half a sign, a byte that is not UTF-8, nothing to see.
NAMES = {
    "formula": "cost $x",
    "broken formula": "$\\frac$",
    "two dollars": "5$ to 10$",
    "backslash": "a\\b_{c}^",
    "underscore": "_edge_ a_b",
    "percent": "100 % {x} #1 & ~",
    "bar": "a|b",
    "newline": "two\nlines\tand a tab",
    "long": "long " * 60,
    "chinese": "黑色素瘤",
    "arabic": "ورم",
    "emoji": "👩‍⚕️🩺",
    "surrogate": "half \ud83d",
    "bytes": "caf\udce9",
    "control": "bell\x07nul\x00",
    "spaces": " \u00a0 ",
}


def test_every_name_is_drawn_without_a_word(tmp_path: Path) -> None:
    names = tuple(NAMES.values())
    count = len(names)
    config = ANIMALS.replace(num_classes=count, class_names=names)
    scores = torch.eye(count)[[0, 1, 4, 7, 11, 12, 14]].sum(0)[None]
    prediction = animal_prediction(config, scores, names=[names[3] + names[13] + ".png"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(torch.eye(count), torch.arange(count), names, tmp_path / "confusion.png")
        prediction.save_overlay(tmp_path / "overlay.png")
    for picture in tmp_path.iterdir():
        with Image.open(picture) as image:
            assert image.convert("L").getextrema()[0] < 100


def test_a_users_settings_do_not_turn_names_into_tex(tmp_path: Path) -> None:
    rows = [{"stage": "dcg", "epoch": 1, "train_loss": 1.0, "auroc": 0.5, "best": True}]
    with mpl.rc_context({"text.usetex": True}):
        draw_confusion(torch.eye(2), torch.tensor([0, 1]), ("a_b", "50 %"), tmp_path / "confusion.png")
        draw_curves(rows, "auroc", tmp_path / "curves.png")
    assert (tmp_path / "confusion.png").is_file() and (tmp_path / "curves.png").is_file()


def test_hundreds_of_classes_fit_on_a_picture() -> None:
    count = 60
    figure = confusion_figure(torch.eye(count), torch.eye(count), [f"class {n}" for n in range(count)])
    assert max(figure.get_size_inches()) < 40


@pytest.mark.parametrize(
    ("text", "plain", "markdown"),
    [
        ("dark", "dark", "dark"),
        ("light_brown 5", "light_brown 5", "light_brown 5"),
        ("a|b", "a|b", "a\\|b"),
        ("two\nlines", "two lines", "two lines"),
        ("$x$ \\ *b* `c` <i>", "$x$ \\ *b* `c` <i>", "\\$x\\$ \\\\ \\*b\\* \\`c\\` \\<i\\>"),
        ("_edge_", "_edge_", "\\_edge\\_"),
        ("caf\udce9\x07", "caf��", "caf��"),
        ("黑 👩‍⚕️", "黑 👩‍⚕️", "黑 👩‍⚕️"),
    ],
)
def test_names_as_one_line_and_in_markdown(text: str, plain: str, markdown: str) -> None:
    assert plain_text(text) == plain and markdown_text(text) == markdown


def test_long_names_are_cut() -> None:
    assert plain_text("abcdef", 4) == "abc…" and plain_text("abcd", 4) == "abcd"
