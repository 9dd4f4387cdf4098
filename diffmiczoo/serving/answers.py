"""What is said of one picture and of the model, as JSON carries it; imports no torch, so that the front stays small."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from diffmiczoo._version import __version__

if TYPE_CHECKING:
    from diffmiczoo.engines.predictor import Answers, BatchPredictor
    from diffmiczoo.inference.prediction import Prediction

NOT_FOR_CLINICAL_USE = "Research only. Not for clinical use."

#: HTTP's words for a picture: it was answered, or cannot be.
ANSWERED, UNUSABLE = 200, 422


@dataclass(frozen=True, kw_only=True)
class Roi:
    """Where the model looked: left, top, right, bottom in pixels of the upright picture, and attention in [0, 1]."""

    box: list[float]
    attention: float


@dataclass(frozen=True, kw_only=True)
class PictureAnswer:
    """What is said of one picture.

    Attributes:
        name: as the client called it.
        status: 200, or 422 for a picture that cannot be used; `error` then says why, and the rest is null.
        error: one sentence.
        sha256: of the picture's bytes.
        label: the class; for several labels a list of those that reach their threshold.
        probs: class → probability in [0, 1].
        uncertainty: 0 = sure, 1 = knows nothing.
        spread: class → standard deviation of its score over the runs of the sampler; null with one run.
        set: classes that cannot be ruled out at the level .1; null where the weights have no sets.
        ood_score: above 1 unlike the training pictures; null where the weights have no gate, as `in_distribution`.
        height, width: of the upright picture in pixels.
        rois: where the model looked.
    """

    name: str
    status: int = ANSWERED
    error: str | None = None
    sha256: str | None = None
    label: str | list[str] | None = None
    probs: dict[str, float] | None = None
    uncertainty: float | None = None
    spread: dict[str, float] | None = None
    set: list[str] | None = None
    ood_score: float | None = None
    in_distribution: bool | None = None
    height: int | None = None
    width: int | None = None
    rois: list[Roi] | None = None


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What is served: `GET /info`.

    Attributes:
        model: name of the weights.
        weights_sha256: of their tensors, start noise and limits.
        version: of diffmiczoo.
        task: "multiclass" or "multilabel".
        labels: the classes in order; `class_labels` what they mean in words.
        thresholds: label → probability from which it is given, for several labels.
        calibrated, trained: whether probabilities were fitted to data, and weights trained at all.
        image_size: side of the square that the model looks at, pixels.
        steps: of the sampler.
        precision, device: what is computed in, and where.
        license, data_license, intended_use, limits, card: what is known of the weights; empty where nothing is.
        notice: what they are not for.
    """

    model: str
    weights_sha256: str
    version: str = __version__
    task: str = "multiclass"
    labels: list[str] = field(default_factory=list)
    class_labels: dict[str, str] = field(default_factory=dict)
    thresholds: dict[str, float] | None = None
    calibrated: bool = False
    trained: bool = False
    image_size: int = 0
    steps: int = 0
    precision: str = "fp32"
    device: str = "cpu"
    license: str = ""
    data_license: str = ""
    intended_use: str = ""
    limits: list[str] = field(default_factory=list)
    card: str = ""
    notice: str = NOT_FOR_CLINICAL_USE


@dataclass(frozen=True, kw_only=True)
class Response:
    """What `POST /predict` returns: which weights answered, and an entry per picture in the order of the request."""

    model: str
    weights_sha256: str
    version: str
    notice: str
    images: list[PictureAnswer]


def response_of(model: ServedModel, images: list[PictureAnswer]) -> Response:
    """Returns answers with the name and hash of the weights that gave them."""
    return Response(
        model=model.model,
        weights_sha256=model.weights_sha256,
        version=model.version,
        notice=model.notice,
        images=images,
    )


def unusable(name: str, reason: str, sha256: str | None = None) -> PictureAnswer:
    """Returns what is said of a picture that cannot be used."""
    return PictureAnswer(name=name, status=UNUSABLE, error=f"{name}: {reason}", sha256=sha256 or None)


def picture_answers(answers: Answers) -> list[PictureAnswer]:
    """Returns what is said of each picture, in their order."""
    good = iter([] if answers.prediction is None else _answered(answers.prediction))
    return [
        unusable(each.id, each.error, each.sha256) if each.square is None else replace(next(good), sha256=each.sha256)
        for each in answers.read
    ]


def _answered(prediction: Prediction) -> list[PictureAnswer]:
    names, limits, boxes = prediction.class_names, prediction.limits_of(), prediction.rois_original.tolist()
    columns = zip(
        prediction.names, prediction.labels, prediction.probs.tolist(), prediction.uncertainty.tolist(), strict=True
    )
    attention = prediction.roi_attention.tolist()
    spread = None if prediction.spread is None else prediction.spread.tolist()
    return [
        PictureAnswer(
            name=name,
            label=label if isinstance(label, str) else list(label),
            probs=dict(zip(names, probs, strict=True)),
            uncertainty=uncertainty,
            spread=None if spread is None else dict(zip(names, spread[row], strict=True)),
            set=limits[row]["set"],
            ood_score=limits[row]["ood_score"],
            in_distribution=limits[row]["in_distribution"],
            height=prediction.sizes[row][0],
            width=prediction.sizes[row][1],
            rois=[Roi(box=box, attention=value) for box, value in zip(boxes[row], attention[row], strict=True)],
        )
        for row, (name, label, probs, uncertainty) in enumerate(columns)
    ]


def served_model(predictor: BatchPredictor, name: str) -> ServedModel:
    """Returns what is known of the weights of a predictor.

    Args:
        predictor: that loaded them.
        name: as they were asked for.
    """
    from diffmiczoo.zoo.factory import weights_directory

    model, directory = predictor.model, weights_directory(name)
    facts = _facts(directory / "card.json")
    config, card = model.config, directory / "README.md"
    thresholds = config.thresholds or [0.5] * config.num_classes
    return ServedModel(
        model=model.display_name or name,
        weights_sha256=predictor.weights_sha256,
        task=config.task,
        labels=list(config.labels),
        class_labels=model.class_labels,
        thresholds=dict(zip(config.labels, thresholds, strict=True)) if config.task == "multilabel" else None,
        calibrated=config.temperature is not None,
        trained=model.trained,
        image_size=config.input_size,
        steps=predictor.steps,
        precision=predictor.precision,
        device=str(model.default_noise.device),
        license=str(facts.get("license_name") or facts.get("license") or ""),
        data_license=str(facts.get("data_license") or ""),
        intended_use=str(facts.get("intended_use") or ""),
        limits=list(facts.get("limits") or []),
        card=card.read_text("utf-8") if card.is_file() else "",
    )


def _facts(path: Any) -> dict[str, Any]:
    from diffmiczoo.files import read_json_object

    return read_json_object(path) if path.is_file() else {}
