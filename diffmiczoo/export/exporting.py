"""`export_model`: graph, file and proof, and nothing on the disk unless the proof holds."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from diffmiczoo._version import __version__
from diffmiczoo.errors import InvalidTypeError, InvalidValueError
from diffmiczoo.export import certify, formats
from diffmiczoo.export.graph import ExportedModel, graph_settings
from diffmiczoo.export.metadata import describe
from diffmiczoo.export.pictures import Pictures, squares_of
from diffmiczoo.files import check_file, replaced
from diffmiczoo.hub.companions import weights_digest
from diffmiczoo.inference.certificate import (
    TOLERANCES,
    Certificate,
    CertificateError,
    ExportSettings,
    certificate_path,
)
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import eval_mode

#: Name of the program that runs a file, beside it.
RUNNER = "runner.py"


@dataclass(frozen=True)
class _Written:
    """The content of an export's files by path, the first the one that is asked for, and what runs them."""

    contents: dict[Path, bytes]
    answers: formats.Answers


def export_model(model: DiffMICv2, path: str | os.PathLike[str], settings: ExportSettings) -> Certificate:
    """Does what `DiffMICv2.export` says."""
    target = Path(path)
    _check_target(target, settings)
    if settings.format != "pt2":
        formats.check_torch()
    if model.default_noise.dtype != torch.float32:
        raise InvalidTypeError(
            f"export needs weights in float32, the model's are {model.default_noise.dtype}; create it without dtype, "
            "precision= makes a smaller file"
        )
    model = model if model.default_noise.device.type == "cpu" else copy.deepcopy(model).cpu()
    graph = graph_settings(model, settings.steps, settings.num_samples, settings.defer_error)
    pictures = squares_of(settings.verify, model.config)
    with eval_mode(model):
        wrapped = ExportedModel(model, graph).eval()
        written = _written(wrapped, target, settings)
    known = certify.expected(model, pictures.squares, graph, settings.defer_error)
    found = [certify.run_in_batches(written.answers, pictures.squares, size) for size in certify.BATCH_SIZES]
    compared = certify.compare(known, found, TOLERANCES[settings.precision])
    certificate = _certificate(wrapped, written, settings, compared, pictures)
    if not certificate.passed:
        raise CertificateError(f"{target} was not written: it {_why_not(certificate)}", certificate)
    contents = dict(written.contents)
    if settings.with_runner:
        contents[target.with_name(RUNNER)] = Path(__file__).with_name(RUNNER).read_bytes()
    text = json.dumps(certificate.to_dict(), indent=1, ensure_ascii=False) + "\n"
    _write({**contents, Path(certificate_path(target)): text.encode()})
    return certificate


def _certificate(
    graph: ExportedModel, written: _Written, settings: ExportSettings, compared: certify.Comparison, pictures: Pictures
) -> Certificate:
    model, (file, content), *others = graph.model, *written.contents.items()
    return Certificate(
        file=file.name,
        sha256=hashlib.sha256(others[0][1] if others else content).hexdigest(),
        size=sum(map(len, written.contents.values())),
        model=model.display_name,
        weights_sha256=weights_digest(model),
        format=settings.format,
        precision=settings.precision,
        steps=graph.settings.steps,
        num_samples=graph.settings.num_samples,
        pictures=pictures.source,
        images=len(pictures.squares),
        batch_sizes=certify.BATCH_SIZES,
        tolerance=TOLERANCES[settings.precision],
        allowed_labels=settings.allow_labels,
        **dataclasses.asdict(compared),
        notes=graph.settings.notes,
        versions=_versions(settings.format),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _check_target(target: Path, settings: ExportSettings) -> None:
    """Refuses what could not be written in the end.

    Raises:
        ValueError: a file is there already, its name has the wrong ending, or it cannot be written.
    """
    check_file(target, "path")
    if settings.format == "openvino" and target.suffix != ".xml":
        raise InvalidValueError(f"{target}: OpenVINO's files end in .xml, with the weights in a .bin beside it")
    files = [target, Path(certificate_path(target))]
    files += [target.with_suffix(".bin")] if settings.format == "openvino" else []
    files += [target.with_name(RUNNER)] if settings.with_runner else []
    there = [str(file) for file in files if file.exists()]
    if there and not settings.force:
        raise InvalidValueError(f"{', '.join(there)} is there already; choose another name, or force to replace it")


def _written(graph: ExportedModel, target: Path, settings: ExportSettings) -> _Written:
    metadata = describe(graph.model, graph.settings, settings, graph.names)
    if settings.format == "pt2":
        content = formats.pt2_content(graph, metadata)
        return _Written({target: content}, formats.pt2_answers(content, graph.names))
    content = formats.onnx_content(graph, metadata, settings.precision)
    if settings.format == "onnx":
        return _Written({target: content}, formats.onnx_answers(content))
    xml, weights = formats.openvino_files(content)
    return _Written({target: xml, target.with_suffix(".bin"): weights}, formats.openvino_answers(xml, weights))


def _write(contents: dict[Path, bytes]) -> None:
    """Writes all files or none: each is whole before the first takes its place."""
    with ExitStack() as stack:
        for path, content in reversed(contents.items()):
            stack.enter_context(replaced(path)).write(content)


def _why_not(found: Certificate) -> str:
    reasons = []
    if found.differences["probs"] > found.tolerance:
        reasons.append(f"has a largest |Δp| of {found.differences['probs']:.1e} (allowed {found.tolerance:g})")
    counted: tuple[tuple[int, str], ...] = (
        (found.labels_differ * (found.labels_differ > found.allowed_labels), "pictures with another label"),
        (found.others_differ, "other entries of sets, of in_distribution or of deferred"),
        (found.rois_differ, "pictures with other ROIs"),
    )
    reasons += [f"has {count} {what}" for count, what in counted if count]
    return f"{', '.join(reasons)}, over {found.images} pictures"


def _versions(format: str) -> dict[str, str]:
    packages = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino"), "pt2": ()}[format]
    return {"diffmiczoo": __version__, "torch": torch.__version__, **{name: version(name) for name in packages}}
