"""`ExportableModel`: `model.export`, whose work is done above the models and handed in by the package's face."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffmiczoo.inference.certificate import Certificate, ExportSettings

#: (model, path, settings) → certificate.
Exporter = Callable[[Any, "str | os.PathLike[str]", "ExportSettings"], "Certificate"]

_handed_in: list[Callable[[], Exporter]] = []


def hand_in(load: Callable[[], Exporter]) -> None:
    """Tells models how to get what exports them; it is loaded when it is first needed."""
    _handed_in[:] = [load]


class ExportableModel:
    """A model that can be written as a file for other programs."""

    def export(
        self,
        path: str | os.PathLike[str],
        format: str = "onnx",
        *,
        precision: str = "fp32",
        steps: int | None = None,
        num_samples: int | None = None,
        defer_error: float | None = None,
        verify: Any = None,
        with_runner: bool = False,
        force: bool = False,
        allow_labels: int = 0,
    ) -> Certificate:
        """Writes the whole model as a file for other programs, after comparing the file's answers with `predict`.

        Beside it lies `FILE.certificate.json`. Where the file answers otherwise nothing is written.

        Args:
            path: of the file; OpenVINO's ends in .xml, and its weights lie beside it in a .bin.
            format: "onnx", "openvino" or "pt2" (`torch.export`).
            precision: "fp32"; "fp16" and "int8" are of what `predict` computes in it: the DCG stays in fp32.
            steps: of the sampler; the config's by default, for which probabilities and limits were calibrated.
            num_samples: runs of the sampler that are averaged; the config's by default.
            defer_error: adds the output "deferred", see `predict`.
            verify: pictures to compare on, as `predict` takes them; pictures made from a seed by default.
            with_runner: write `runner.py` beside it, which runs the file with numpy, Pillow and onnxruntime alone.
            force: replace files that are there.
            allow_labels: how many pictures of `verify` may get another label in fp16 or int8.

        Returns:
            What was measured.

        Raises:
            CertificateError: the file answers otherwise than `predict`, a `ValueError`.
            ValueError: an argument is out of range, the file is there already, or the model is not in float32.
            ImportError: the extra "onnx" (or "openvino") is not installed.
            ImageError: a picture of `verify` cannot be read.
        """
        from diffmiczoo.inference.certificate import ExportSettings

        settings = ExportSettings(
            format, precision, steps, num_samples, defer_error, verify, with_runner, force, allow_labels
        )
        exporter = _handed_in[0]()
        return exporter(self, path, settings)
