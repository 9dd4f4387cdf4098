"""Grad-CAM of any class through each encoder of DiffMIC-v2, beside the DCG's own saliency map (paper's fig. 3).

Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, ICCV 2017, eq. 1
and 2: the last feature map A of an encoder, each channel weighted by the mean gradient of a score with respect to it,
summed over the channels and cut off below 0. The score is the logit of one of the DCG's streams, or what the sampler
says: its mean ŷ_0 of the class, differentiated through all of its steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffmiczoo.errors import InvalidTypeError, InvalidValueError
from diffmiczoo.images.items import Item, as_items
from diffmiczoo.images.preprocessing import preprocess
from diffmiczoo.inference.explanation import Explanation
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.condition import Priors
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.progress import progress_bar


@dataclass(frozen=True)
class Method:
    """One way to ask where what speaks for a class lies.

    Attributes:
        title: for legends and tables.
        encoder: module whose last feature map is looked at; "" for the saliency map itself.
        of_rois: whether the encoder sees the ROIs, not the whole image.
        score: "global" or "local" prior, or "sampler".
    """

    title: str
    encoder: str = ""
    of_rois: bool = False
    score: str = ""


METHODS = {
    "saliency": Method("saliency"),
    "global": Method("Grad-CAM, global stream", "dcg.global_encoder", score="global"),
    "local": Method("Grad-CAM, local stream", "dcg.local_encoder", of_rois=True, score="local"),
    "guidance": Method("Grad-CAM, guidance map", "dcg.global_encoder", score="sampler"),
    "raw": Method("Grad-CAM, raw encoder of F", "feature_prior.raw_encoder", score="sampler"),
    "roi": Method("Grad-CAM, ROI encoder of F", "feature_prior.roi_encoder", of_rois=True, score="sampler"),
}


def methods_of(model: DiffMICv2) -> tuple[str, ...]:
    """Returns the methods that a model has the networks for."""
    return tuple(name for name, method in METHODS.items() if _can(model, method))


def check_method(model: DiffMICv2, method: str) -> None:
    """Raises ValueError for a method that is unknown, TypeError for one whose network a model lacks."""
    if not isinstance(method, str) or method not in METHODS:
        raise InvalidValueError(f"method={method!r} must be one of {', '.join(map(repr, METHODS))}")
    if not _can(model, METHODS[method]):
        have = ", ".join(map(repr, methods_of(model)))
        raise InvalidTypeError(f"method={method!r} needs a network that this model lacks; it has {have}")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InvalidValueError(
            "the model was made within torch.inference_mode(), so that torch differentiates nothing"
        )


def explain(
    model: DiffMICv2,
    images: Any,
    method: str = "global",
    classes: str | Sequence[str] | None = None,
    *,
    batch_size: int = 8,
    progress: bool | None = None,
) -> Explanation:
    """Shows where in images what speaks for a class lies.

    "saliency" is the DCG's own map, the class's share among all classes at each place (several labels: its sigmoid).
    The others are Grad-CAM: "global" and "local" through the DCG's encoders, of the logit of their own stream;
    "guidance", "raw" and "roi" of the sampler's score, through the guidance map, the raw encoder and the ROI encoder of
    F. They are 0 outside of the ROIs where the encoder sees ROIs alone, and each map's largest value is 1, unless
    nothing in it speaks for the class: then it is 0 everywhere.

    Args:
        model: whose answers are explained.
        images: as `DiffMICv2.predict` takes them.
        method: a name of `METHODS`.
        classes: a name for all images or one per image; by default the most probable class of each.
        batch_size: images computed at once; a backward pass needs several times the memory of a prediction.
        progress: show a bar; by default where the standard error is a terminal.

    Raises:
        ValueError: the method or a class is unknown, or there is not one class per image.
        TypeError: the model lacks the network.
        ImageError: an image cannot be read.
    """
    check_method(model, method)
    items = as_items(images)
    batch_size = PredictOptions(batch_size=batch_size).batch_size
    named = _classes(model, items, classes, batch_size)
    compute = _saliency if method == "saliency" else _gradcam
    found = []
    # What the caller's inference mode touches could not be differentiated.
    with torch.inference_mode(False), eval_mode(model), progress_bar(len(items), "explain", "img", progress) as bar:
        numbers = torch.tensor([model.config.labels.index(name) for name in named])
        for start in range(0, len(items), batch_size):
            part = items[start : start + batch_size]
            batch = preprocess(part, model.config).to(model.default_noise)
            found.append(compute(model, batch, numbers[start : start + batch_size], METHODS[method]).cpu())
            bar.update(len(part))
    names = tuple(item.name for item in items)
    return Explanation(torch.cat(found).float(), method, METHODS[method].title, names, tuple(named))


def _classes(model: DiffMICv2, items: list[Item], classes: str | Sequence[str] | None, batch_size: int) -> list[str]:
    known = model.config.labels
    if classes is None:
        found = model.predict(items, batch_size=batch_size, progress=False)
        return [known[int(row.argmax())] for row in found.probs]
    if not isinstance(classes, Iterable):
        raise InvalidTypeError(f"classes={classes!r} must be the name of a class, or a list of one for each image")
    named = [classes] * len(items) if isinstance(classes, str) else list(classes)
    if len(named) != len(items):
        raise InvalidValueError(f"classes holds {len(named)} names for {len(items)} images; give one, or one for each")
    unknown = [name for name in named if not isinstance(name, str) or name not in known]
    if unknown:
        once = [name for place, name in enumerate(unknown) if name not in unknown[:place]]
        raise InvalidValueError(f"classes: the model does not know {once[:3]}; it knows {', '.join(known)}")
    return list(map(str, named))


def _can(model: DiffMICv2, method: Method) -> bool:
    if method.score == "sampler" and model.config.predictor != "diffusion":
        return False
    return not method.encoder or _encoder(model, method) is not None


def _encoder(model: DiffMICv2, method: Method) -> nn.Module | None:
    parent, _, name = method.encoder.rpartition(".")
    return getattr(model.get_submodule(parent), name, None)


# ---------------------------------------------------------------------- maps of a batch


@torch.no_grad()
def _saliency(model: DiffMICv2, images: Tensor, classes: Tensor, method: Method) -> Tensor:
    logits = model.priors(images).saliency.float()
    values = logits.softmax(1) if model.config.task == "multiclass" else logits.sigmoid()
    return _enlarged(values[torch.arange(len(images)), classes][:, None], model.config.input_size)[:, 0]


def _gradcam(model: DiffMICv2, images: Tensor, classes: Tensor, method: Method) -> Tensor:
    with torch.enable_grad(), _feature_map(model, method) as seen:
        priors = model.priors(images)
        scores = _scores(model, images, priors, method.score)
        chosen = scores[torch.arange(len(images)), classes]
        (gradient,) = torch.autograd.grad(chosen.sum(), seen)
    features = seen[0].detach().float()
    weights = gradient.float().mean((2, 3), keepdim=True)  # eq. 1
    maps = (weights * features).sum(1, keepdim=True).clamp(min=0)  # eq. 2
    size = model.config.input_size
    whole = _of_whole(maps, priors, model) if method.of_rois else _enlarged(maps, size)[:, 0]
    highest = whole.flatten(1).amax(1)[:, None, None]
    return torch.where(highest > 0, whole / highest, torch.zeros_like(whole))


def _scores(model: DiffMICv2, images: Tensor, priors: Priors, score: str) -> Tensor:
    if score == "global":
        return priors.global_prior
    return priors.local_prior if score == "local" else model.answer(images, priors).scores


@contextmanager
def _feature_map(model: DiffMICv2, method: Method) -> Iterator[list[Tensor]]:
    """Collects an encoder's output, which is where differentiation ends: nothing before it needs a gradient."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        if output.ndim != 4 or getattr(getattr(module, "model", None), "output_fmt", "NCHW") != "NCHW":
            raise InvalidTypeError(f"Grad-CAM needs a map of features, which {type(module).__name__} does not give")
        seen[:] = [output.detach().requires_grad_()]
        return seen[0]

    encoder = _encoder(model, method)
    assert encoder is not None
    handle = encoder.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def _of_whole(maps: Tensor, priors: Priors, model: DiffMICv2) -> Tensor:
    """Puts maps of ROIs (B · K, 1, h, w) where they were cut, (B, S, S); where they overlap the higher value counts."""
    size, roi = model.config.input_size, model.config.roi_size
    parts = _enlarged(maps, roi)[:, 0].unflatten(0, (-1, model.config.num_rois))
    whole = parts.new_zeros(len(parts), size, size)
    for row, places in enumerate(priors.roi_top_left.tolist()):
        for part, (top, left) in zip(parts[row], places, strict=True):
            place = whole[row, top : top + roi, left : left + roi]
            # Of a ROI that leaves the square `crop_rois` fills the top and the left: the picture is at its other end.
            inside = part[roi - place.shape[0] :, roi - place.shape[1] :]
            torch.maximum(place, inside, out=place)
    return whole


def _enlarged(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
