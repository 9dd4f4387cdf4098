"""The page for people: pictures are dropped, and cards with answers come; for the server and for Spaces of the Hub."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffmiczoo.errors import DiffMICError, MissingExtraError
from diffmiczoo.serving.answers import ServedModel
from diffmiczoo.serving.cards import STYLE, cards_of, foot_of, head_of, refusal
from diffmiczoo.serving.worker import Answered, Upload

if TYPE_CHECKING:
    from fastapi import FastAPI

#: Answers pictures.
Answer = Callable[[list[Upload]], Awaitable[list[Answered]]]

# Gradio asks for news and counts its uses unless it is told not to before it is loaded.
_SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

#: Seconds after which what Gradio keeps of an upload is removed; the page itself removes it when it was read.
_KEPT = 600


def gradio() -> Any:
    """Returns Gradio, which then reaches no other host.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.update(_SILENT)
    try:
        import gradio
        import matplotlib  # noqa: F401 (what draws where the model looked)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f'the page needs {error.name}: pip install "diffmiczoo[demo]"') from error
    return gradio


def create_page(answer: Answer, model: ServedModel, most: int) -> Any:
    """Returns the page as Gradio's blocks.

    Args:
        answer: what answers pictures.
        model: what is known of the weights.
        most: pictures at once.
    """
    gr = gradio()

    async def answered(paths: list[str] | None) -> str:
        if not paths:
            return ""
        if len(paths) > most:
            _forget(paths)
            return refusal(f"{len(paths)} pictures; this page takes {most} at once")
        uploads = [Upload(name=Path(path).name, content=Path(path).read_bytes(), drawn=True) for path in paths]
        _forget(paths)
        try:
            return cards_of(await answer(uploads), model)
        except DiffMICError as error:
            return refusal(str(error).partition("\n")[0])

    with gr.Blocks(title=model.model, analytics_enabled=False, delete_cache=(_KEPT, _KEPT)) as page:
        gr.HTML(head_of(model))
        files = gr.File(
            label="Pictures (JPEG, PNG, TIFF, DICOM, …)", file_count="multiple", height=150, elem_id="pictures"
        )
        cards = gr.HTML(elem_id="cards")
        gr.HTML(foot_of(model))
        files.change(answered, files, cards, api_visibility="private", show_progress="minimal")
    return page


def looks() -> dict[str, Any]:
    """Returns arguments of Gradio's `launch` and `mount_gradio_app`: the system's fonts, and no links to elsewhere."""
    theme = gradio().themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return {"theme": theme, "css": STYLE, "footer_links": [], "ssr_mode": False, "enable_monitoring": False}


def mount_page(app: FastAPI, answer: Answer, model: ServedModel, most: int, max_bytes: int) -> FastAPI:
    """Adds the page to a server, at /page.

    Args:
        app: the server's routes.
        answer: what answers pictures.
        model: what is known of the weights.
        most: pictures at once.
        max_bytes: of a picture.
    """
    page = create_page(answer, model, most)
    found: FastAPI = gradio().mount_gradio_app(
        app, page, path="/page", max_file_size=max_bytes, pwa=False, mcp_server=False, show_error=False, **looks()
    )
    return found


def _forget(paths: list[str]) -> None:
    """Removes uploads from the disk: pictures of people stay nowhere longer than they are needed."""
    for path in paths:
        with suppress(OSError):
            Path(path).unlink()
