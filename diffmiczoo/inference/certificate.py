"""`Certificate`: how far the answers of an exported file are from the model's, and what was asked of the export."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from diffmiczoo.errors import DiffMICError, InvalidTypeError, InvalidValueError

#: Kinds of file that can be written.
FORMATS = ("onnx", "openvino", "pt2")

#: Precision → largest difference of a probability that a file may have.
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-2}


class CertificateError(DiffMICError, ValueError):
    """An exported file answers otherwise than its model, so that it was not written.

    Attributes:
        certificate: what was measured.
    """

    def __init__(self, message: str, certificate: Certificate) -> None:
        super().__init__(message)
        self.certificate = certificate


@dataclass(frozen=True)
class ExportSettings:
    """What is asked of an export; see `ExportableModel.export`.

    Raises:
        ValueError: a value is not among those that are known, or out of range.
        TypeError: a number is none.
    """

    format: str = "onnx"
    precision: str = "fp32"
    steps: int | None = None
    num_samples: int | None = None
    defer_error: float | None = None
    verify: Any = None
    with_runner: bool = False
    force: bool = False
    allow_labels: int = 0

    def __post_init__(self) -> None:
        for name, known in (("format", FORMATS), ("precision", tuple(TOLERANCES))):
            if getattr(self, name) not in known:
                raise InvalidValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.precision != "fp32" and self.format == "pt2":
            raise InvalidValueError(
                f"precision={self.precision!r} is for ONNX and OpenVINO; format='pt2' is fp32 alone"
            )
        for name in ("steps", "num_samples", "allow_labels"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise InvalidTypeError(f"{name}={value!r} must be a whole number")
        if self.allow_labels < 0 or (self.allow_labels and self.precision == "fp32"):
            raise InvalidValueError(
                f"allow_labels={self.allow_labels} must be at least 0, and is for fp16 and int8 alone"
            )
        if self.with_runner and self.format != "onnx":
            raise InvalidValueError(f"with_runner is for format='onnx', which the runner reads; found {self.format!r}")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far the answers of an exported file are from the model's, over all batch sizes.

    Attributes:
        differences: name of an output → largest absolute difference from `predict`, over all pictures but those of
            `roi_ties_split`.
        labels_differ: pictures whose label is another one, of those that are no tie.
        label_ties: pictures whose two best classes, or whose label and its threshold, lie so close that rounding may
            turn them round, whatever the file's precision (`TOLERANCES["fp32"]`).
        label_ties_differ: how many of these have another label.
        others_differ: entries of prediction sets, of "in_distribution" and of "deferred" that differ and lie further
            from their limit than the tolerance.
        other_ties_differ: those that differ and lie nearer.
        rois_differ: pictures whose ROIs are others, of those where the choice is no tie.
        roi_ties: pictures where two windows tie within rounding (`diffmiczoo.nn.dcg.ROI_TIE_TOLERANCE`), so that
            another order of sums may choose another one.
        roi_ties_split: how many of these the file decided otherwise, for any batch size.
        split_difference: largest difference of a probability among these.
    """

    differences: dict[str, float]
    labels_differ: int
    label_ties: int
    label_ties_differ: int
    others_differ: int
    other_ties_differ: int
    rois_differ: int
    roi_ties: int
    roi_ties_split: int
    split_difference: float


@dataclass(frozen=True, kw_only=True)
class Certificate(Comparison):
    """What an exported file answered beside its model, on the same pictures.

    Attributes:
        file, sha256: the file's name and its content's hash; of OpenVINO that of its weights.
        size: of the file in bytes, with its weights where they lie beside it.
        model: name of the weights.
        weights_sha256: of tensors, start noise and limits, see `diffmiczoo.hub.companions.weights_digest`.
        format, precision, steps, num_samples: of the file.
        pictures: where they come from.
        images: how many.
        batch_sizes: in which the file was run, each over all pictures.
        tolerance: the largest difference of a probability that is allowed.
        allowed_labels: how many pictures may have another label.
        notes: sentences on what the file does not hold, and why.
        versions: of the programs.
        created: date and time, UTC.
    """

    file: str
    sha256: str
    size: int
    model: str
    weights_sha256: str
    format: str
    precision: str
    steps: int
    num_samples: int
    pictures: str
    images: int
    batch_sizes: tuple[int, ...]
    tolerance: float
    allowed_labels: int = 0
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def passed(self) -> bool:
        """Whether the file answers as the model does, as far as was allowed."""
        near = self.differences["probs"] <= self.tolerance and self.labels_differ <= self.allowed_labels
        return near and not (self.others_differ or self.rois_differ)

    def summary(self) -> str:
        """Returns the certificate in a line."""
        word = "answers as the model does" if self.passed else "does NOT answer as the model does"
        if self.passed and self.labels_differ:
            word = "gives OTHER LABELS than the model, as was allowed"
        sizes = ", ".join(map(str, self.batch_sizes))
        return (
            f"{self.file} {word}: {self.images} pictures ({self.pictures}) in batches of {sizes}; largest |Δp| "
            f"{self.differences['probs']:.1e} (allowed {self.tolerance:g}), labels that differ {self.labels_differ}, "
            f"label ties {self.label_ties} ({self.label_ties_differ} decided otherwise), other decisions within the "
            f"tolerance that differ {self.other_ties_differ}, ROI ties {self.roi_ties} ({self.roi_ties_split} decided "
            "otherwise)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values."""
        return {"passed": self.passed, **dataclasses.asdict(self)}


def certificate_path(path: str | os.PathLike[str]) -> str:
    """Returns where the certificate of an exported file lies."""
    return f"{os.fspath(path)}.certificate.json"
