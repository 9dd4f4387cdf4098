"""`EndpointHandler`: weights as an inference endpoint of the Hub runs them, behind its own server."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

from diffmiczoo.engines.predictor import BatchPredictor
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.serving.answers import PictureAnswer, response_of, served_model, unusable
from diffmiczoo.serving.encoded import upload_of_base64
from diffmiczoo.serving.worker import Upload, answered

_EXPECTED = 'expected {"inputs": picture} or a list of pictures, each base64 of a file, its bytes or a PIL image'


class EndpointHandler:
    """Answers what the Hub's inference toolkit hands over.

    Args:
        path: the directory with the weights.
        device: "auto" takes a GPU where there is one.

    Raises:
        FileNotFoundError, ValueError: there are no weights, or they are broken.
    """

    def __init__(self, path: str = "", device: str = "auto") -> None:
        name = f"local-dir:{path or '.'}"
        self._predictor = BatchPredictor(name, device=device, batch_size=8, exact=False)
        self._model = served_model(self._predictor, name)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Answers pictures.

        Args:
            data: {"inputs": …}: a picture or a list of pictures. A picture is base64 of a file, {"name": …,
                "base64": …}, the file's bytes, or a PIL image.

        Returns:
            What `POST /predict` of `diffmiczoo serve` does; pictures that cannot be used have an error.

        Raises:
            ValueError: there are no inputs.
        """
        inputs = data.get("inputs") if isinstance(data, dict) else None
        entries = inputs if isinstance(inputs, list) else [] if inputs is None else [inputs]
        if not entries:
            raise InvalidValueError(f"there is no picture; {_EXPECTED}")
        uploads = [_upload(entry, row) for row, entry in enumerate(entries)]
        found = iter(answered(self._predictor, [each for each in uploads if isinstance(each, Upload)]))
        images = [next(found).answer if isinstance(each, Upload) else each for each in uploads]
        return dataclasses.asdict(response_of(self._model, images))


def _upload(entry: Any, row: int) -> Upload | PictureAnswer:
    fields = entry if isinstance(entry, dict) else {"base64": entry}
    name, content = str(fields.get("name") or f"images[{row}]"), fields.get("base64")
    if isinstance(content, str):
        return upload_of_base64(name, content)
    if isinstance(content, bytes | bytearray):
        return Upload(name=name, content=bytes(content))
    if hasattr(content, "getexif"):
        return Upload(name=name, content=_file_of(content))
    return unusable(name, f"is a {type(content).__name__}; {_EXPECTED}")


def _file_of(image: Any) -> bytes:
    """Returns the file that a PIL image was opened from, where that is still open; else one with the same pixels.

    The file itself, because the answer and its sha256 are then those of the picture that was sent.
    """
    file = getattr(image, "fp", None)
    if file is not None and getattr(image, "tile", None):
        file.seek(0)
        content: bytes = file.read()
        return content
    buffer = io.BytesIO()
    image.save(
        buffer, format="TIFF" if image.mode in ("CMYK", "F", "LAB", "YCbCr", "HSV") else "PNG", exif=image.getexif()
    )
    return buffer.getvalue()
