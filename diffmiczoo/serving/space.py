"""Files that make weights on the Hub a page (a Space) or an inference endpoint, and what those files run."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from diffmiczoo._version import __version__
from diffmiczoo.serving.worker import Answered, Upload

#: What a Space starts and an endpoint imports; the rest is the package's, so that its versions mend both.
_APP = '''"""A page that classifies pictures with {name}. Research only, not for clinical use."""

from diffmiczoo.serving.space import launch_space

if __name__ == "__main__":
    launch_space({name!r})
'''
_HANDLER = '''"""Answers {"inputs": pictures} with the weights beside this file. Research only, not for clinical use."""

from diffmiczoo.serving.endpoint import EndpointHandler

__all__ = ["EndpointHandler"]
'''

#: Of Gradio where it is not installed here: a Space has to name one.
_GRADIO = "6.31.0"

#: Pictures at once on a Space, whose machines are small and shared.
_MOST = 8


def handler_files() -> dict[str, str]:
    """Returns file → text of what an inference endpoint needs beside weights."""
    return {"handler.py": _HANDLER, "requirements.txt": f"diffmiczoo[dicom]=={__version__}\n"}


def space_files(weights: str, title: str, license: str) -> dict[str, str]:
    """Returns file → text of a Space.

    Args:
        weights: "organisation/name" of the weights on the Hub.
        title: of the page.
        license: of the weights, an identifier of the Hub; "" where that is not known.
    """
    head: dict[str, Any] = {
        "title": title,
        "emoji": "🔬",
        "colorFrom": "blue",
        "colorTo": "gray",
        "sdk": "gradio",
        "sdk_version": _gradio_version(),
        "app_file": "app.py",
        "models": [weights],
        "short_description": "Research only. Not for clinical use.",
    }
    if license:
        head["license"] = license
    # JSON is YAML, and quotes what a title may hold.
    lines = "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items())
    link = f"[{weights}](https://huggingface.co/{weights})"
    about = f"Pictures in, classes out, by {link} and diffmiczoo {__version__}. Research only. Not for clinical use."
    return {
        "app.py": _APP.format(name=f"hf-hub:{weights}"),
        "requirements.txt": f"diffmiczoo[demo,dicom]=={__version__}\n",
        "README.md": f"---\n{lines}\n---\n\n# {title}\n\n{about}\n",
    }


def _gradio_version() -> str:
    try:
        return importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        return _GRADIO


def launch_space(name: str) -> None:
    """Loads weights and shows their page until the process ends.

    Args:
        name: of the weights, as `create_model` takes it.

    Raises:
        ImportError: Gradio is not installed.
    """
    from diffmiczoo.engines.predictor import BatchPredictor
    from diffmiczoo.serving.answers import served_model
    from diffmiczoo.serving.page import create_page, looks
    from diffmiczoo.serving.worker import answered

    predictor = BatchPredictor(name, batch_size=_MOST, exact=False)

    async def answer(uploads: list[Upload]) -> list[Answered]:
        return answered(predictor, uploads)

    page = create_page(answer, served_model(predictor, name), _MOST)
    page.launch(max_file_size="64mb", **looks())
