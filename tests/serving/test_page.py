"""The page in a real browser: pictures go in, answers and messages come out, and nothing leaves this machine."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving.conftest import RunningServer, start_server

from diffmiczoo.serving.answers import PictureAnswer, Roi, ServedModel
from diffmiczoo.serving.cards import cards_of, foot_of, head_of
from diffmiczoo.serving.worker import Answered

MODEL = ServedModel(
    model="tiny<b>",
    weights_sha256="ab12",
    labels=["a", "b"],
    class_labels={"a": "first <i>class</i>"},
    trained=True,
    license="cc-by-4.0",
    limits=["None & all"],
)


def answer(**fields) -> Answered:
    given = {
        "name": "<script>alert(1)</script>.png",
        "label": "a",
        "probs": {"a": 0.75, "b": 0.25},
        "uncertainty": 0.5,
        "height": 1,
        "width": 2,
        "rois": [Roi(box=[0, 0, 1, 1], attention=1)],
    }
    return Answered(answer=PictureAnswer(**{**given, **fields}), drawing=b"png")


def test_a_card_says_what_is_known_and_shows_names_as_text() -> None:
    page = cards_of([answer(in_distribution=False, ood_score=2.5, set=["a", "b"])], MODEL)
    assert "<script" not in page and "&lt;script&gt;" in page and "<i>class" not in page
    assert "unlike the training images (score 2.50, above 1)" in page and 'role="alert"' in page
    assert "75.0%" in page and "first &lt;i&gt;class&lt;/i&gt;, b</strong>" in page
    assert "not calibrated" in page
    assert "unlike" not in cards_of([answer(in_distribution=True, ood_score=0.5)], MODEL)
    assert "ruled out" not in cards_of([answer()], MODEL)
    head, foot = head_of(MODEL), foot_of(MODEL)
    assert "tiny&lt;b&gt;" in head and "Not for clinical use" in head and "not trained" not in head
    assert "cc-by-4.0" in foot and "None &amp; all" in foot and "sha256 ab12" in foot
    assert "not trained" in head_of(ServedModel(model="x", weights_sha256=""))


def test_several_labels_have_their_thresholds_and_may_be_none() -> None:
    model = ServedModel(model="x", weights_sha256="", task="multilabel", thresholds={"a": 0.5, "b": 0.2})
    page = cards_of([answer(label=[])], model)
    assert "no finding above its threshold" in page and 'style="left: 20.0%" title="threshold 0.20"' in page
    many = {f"c{number}": number / 100 for number in range(12)}
    page = cards_of([answer(label="c3", probs=many)], MODEL)
    assert "4 more classes, at most 4.0% each" in page or "4 more classes, at most 3.0% each" in page


def test_what_cannot_be_used_is_a_message() -> None:
    broken = PictureAnswer(name="a.png", status=422, error="a.png: is empty <0 bytes>")
    page = cards_of([Answered(answer=broken)], MODEL)
    assert "a.png: is empty &lt;0 bytes&gt;" in page and "<img" not in page


# ---------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium of this system; nothing is downloaded."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("DIFFMICZOO_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no chromium here; DIFFMICZOO_CHROMIUM names one")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_server(weights: str, browser) -> Iterator[RunningServer]:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    running = start_server(weights, "--page", "--max-images", "3")
    yield running
    running.end()


def choose_by_keyboard(page, paths: list[str]) -> None:
    """Goes to the place for pictures by Tab, and opens the choice of files by Enter."""
    page.wait_for_selector("#pictures button", timeout=20_000)
    page.on("filechooser", lambda chooser: chooser.set_files(paths))
    for _ in range(20):  # on a busy machine the page may not listen yet
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#pictures button')"):
            page.keyboard.press("Enter")
            page.wait_for_timeout(300)
        if page.query_selector("#pictures .file-preview, .dz .card"):
            return
    raise AssertionError("the choice of files does not open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_answered_on_the_page(
    browser, page_server, contents, tmp_path: Path, make_dicom, scheme: str
) -> None:
    good, broken, dicom = tmp_path / "good.png", tmp_path / "broken.png", tmp_path / "scan.dcm"
    good.write_bytes(contents[0])
    broken.write_bytes(contents[0][:70])
    make_dicom(dicom, np.random.default_rng(0).integers(0, 256, (60, 70), dtype=np.uint8))
    context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme=scheme)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_server.address)
    assert "Not for clinical use" in page.wait_for_selector(".dz .notice", timeout=20_000).inner_text()
    choose_by_keyboard(page, [str(good), str(broken), str(dicom)])
    page.wait_for_selector(".dz .card", timeout=20_000)
    cards = [html.unescape(card.inner_text()) for card in page.query_selector_all(".dz .card")]
    assert len(cards) == 3
    assert "good.png" in cards[0] and "class_" in cards[0] and "%" in cards[0] and "80 pixels" in cards[0]
    assert cards[1].startswith("broken.png: cannot be read")
    assert "scan.dcm" in cards[2] and "70 × 60 pixels" in cards[2]
    # The drawing is a picture that the browser could read, and nothing is wider than a phone.
    assert page.evaluate("document.querySelector('.dz img').naturalHeight") == 720
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.set_input_files("#pictures input[type=file]", [str(good)] * 4)
    page.wait_for_selector("text=this page takes 3 at once", timeout=20_000)
    context.close()
    others = [url for url in asked if not url.startswith((page_server.address, "data:", "blob:"))]
    assert len(asked) > 5 and others == []
