"""The body of a request → its pictures: a form with files, or JSON with base64."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.serving.answers import PictureAnswer, unusable
from diffmiczoo.serving.encoded import upload_of_base64
from diffmiczoo.serving.worker import Upload

_FORMS = (
    'expected files as multipart/form-data (curl --form "files=@scan.png"), or application/json: '
    '{"images": [{"name": "scan.png", "base64": "…"}]}'
)


@dataclass(frozen=True)
class Uploads:
    """The pictures of a request in their order; what was no picture already has its answer."""

    entries: list[Upload | PictureAnswer]

    @property
    def pictures(self) -> list[Upload]:
        """Those that are to be read."""
        return [entry for entry in self.entries if isinstance(entry, Upload)]


class TooManyError(InvalidValueError):
    """A request has more pictures than the server takes."""


async def uploads_of(request: Request, most: int) -> Uploads:
    """Returns the pictures of a request.

    Args:
        request: whose body was not read yet.
        most: pictures that are taken.

    Raises:
        TooManyError: there are more.
        ValueError: there are none, or the body is of another kind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        entries = await _of_form(request, most)
    elif kind == "application/json":
        entries = _of_json(await request.body())
    else:
        raise InvalidValueError(f"the request is {kind or 'of no named kind'}; {_FORMS}")
    if len(entries) > most:
        raise TooManyError(f"the request has {len(entries)} pictures; this server takes {most} at once")
    if not entries:
        raise InvalidValueError(f"the request has no picture; {_FORMS}")
    return Uploads(entries)


async def _of_form(request: Request, most: int) -> list[Upload | PictureAnswer]:
    try:
        form = await request.form(max_files=most + 1, max_fields=16)
    except HTTPException as error:
        if "Too many files" in str(error.detail):
            raise TooManyError(f"the request has more pictures than the {most} that this server takes") from error
        raise InvalidValueError(f"the form cannot be read ({error.detail}); {_FORMS}") from error
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        named = [(file.filename or f"images[{row}]", await file.read()) for row, file in enumerate(files)]
    finally:
        await form.close()
    return [Upload(name=name, content=content) for name, content in named]


def _of_json(body: bytes) -> list[Upload | PictureAnswer]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"the request is no JSON ({error}); {_FORMS}") from error
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, list):
        raise InvalidValueError(f'the request has no list "images"; {_FORMS}')
    return [_of_entry(entry, row) for row, entry in enumerate(images)]


def _of_entry(entry: Any, row: int) -> Upload | PictureAnswer:
    fields = entry if isinstance(entry, dict) else {"base64": entry}
    name = fields.get("name")
    # JSON can name half of a character, which no answer can carry.
    name = name.encode("utf-8", "replace").decode() if isinstance(name, str) and name else f"images[{row}]"
    text = fields.get("base64")
    if not isinstance(text, str):
        return unusable(name, 'has no text "base64"; send the content of the file, paths and addresses are not opened')
    return upload_of_base64(name, text)
