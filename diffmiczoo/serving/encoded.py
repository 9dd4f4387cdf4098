"""A text in base64 → the picture of a client."""

from __future__ import annotations

import base64
import binascii

from diffmiczoo.serving.answers import PictureAnswer, unusable
from diffmiczoo.serving.worker import Upload


def upload_of_base64(name: str, text: str) -> Upload | PictureAnswer:
    """Returns the picture of a text in base64 or of a data URL; nothing else is opened."""
    body = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return Upload(name=name, content=base64.b64decode("".join(body.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        reason = f"is not base64 ({error}); send the content of the file, paths and addresses are not opened"
        return unusable(name, reason)
