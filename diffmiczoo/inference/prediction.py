"""`Prediction`: what a model says of a list of images."""

from __future__ import annotations

import dataclasses
import difflib
import operator
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffmiczoo.errors import InvalidTypeError, InvalidValueError, MissingExtraError
from diffmiczoo.files import replaced, write_text
from diffmiczoo.images.reading import DRAWN
from diffmiczoo.inference.decisions import decide
from diffmiczoo.inference.limits import LimitedPrediction
from diffmiczoo.inference.records import html_of, original_boxes, record_of, table_rows
from diffmiczoo.inference.table import csv_text, table_columns
from diffmiczoo.inference.tensors import selected
from diffmiczoo.runtime.text import drawn_as_written

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from diffmiczoo.inference.explanation import Explained


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Prediction(LimitedPrediction):
    """What a model says of B images; behaves as a list of them.

    Attributes:
        names: B names: the path, or "images[3]" where an image has none.
        scores: (B, C) means of the sampler's ŷ_0 map, about 0..1; logits where the DCG predicts alone.
        global_logits: (B, C) ŷ_g, the prior of the whole image.
        feature_logits: (B, C) ŷ_F, of the classifier on F; (B, 0) where there is none.
        local_logits: (B, C) ŷ_l, the prior of the ROIs; ŷ_g without a local stream. `dcg_logits` is the mean of both.
        probs: (B, C) in [0, 1], see `diffmiczoo.inference.probabilities.scores_to_probs`.
        uncertainty: (B,) in [0, 1], 0 = sure, 1 = knows nothing, see `inference.probabilities.uncertainty`.
        rois: (B, K, 4) left, top, right, bottom in pixels of the model's S×S input; right and bottom are exclusive.
            `rois_original` has them in pixels of the picture.
        roi_attention: (B, K) in [0, 1], rows sum to 1.
        saliency: (B, C, h, w) logits.
        items: B objects with `.name` and `.source`: what was given for each row, kept alive for `plot`.
        errors: name → message of what was skipped; the same for every selection of rows.
        config: of the model.
        steps, seed, num_samples, precision: of the sampler and of products; with "auto" the one that was chosen.
        tta: the views of each picture that scores and logits are the means of, see `inference.views`.
        trained: whether the model's weights come from training.
        model_name: the name of the weights, or where they were loaded from; empty where they have neither.
        sizes: B pairs (height, width) of the pictures in pixels, upright; empty where nobody knows.
        class_labels: class name → what it means in words ("mel": "melanoma"), of classes where that is known.
        ood_score: (B,) distance from the training pictures, above 1 unlike them; None where the weights have no gate.
        spread: (B, C) standard deviation of the scores over the runs of the sampler; None with one run or
            without a sampler. It does not rank errors: take `uncertainty` for that.
        trust, defer_error: what the weights know about their limits, and what was asked, see `LimitedPrediction`.

    All tensors are float32 on the CPU.

    Raises:
        ValueError: lengths or shapes do not belong together, or scores, probabilities or uncertainty are not finite.
        TypeError: a tensor is not float32 on the CPU.
    """

    items: list[Any]
    errors: dict[str, str]
    seed: int
    trained: bool
    model_name: str = ""
    class_labels: dict[str, str] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        classes, rois = self.config.num_classes, self.config.num_rois
        spread = [] if self.spread is None else ["spread"]
        for name in ("scores", "global_logits", "local_logits", "probs", *spread):
            self._check_shape(name, classes)
        self._check_shape("feature_logits", classes if self.config.feature_loss_weight else 0)
        self._check_shape("uncertainty")
        self._check_shape("rois", rois, 4)
        self._check_shape("roi_attention", rois)
        self._check_shape("saliency", classes, *self.saliency.shape[2:4])
        if len(self.items) != len(self.names):
            raise InvalidValueError(f"items has {len(self.items)} entries for {len(self.names)} names")
        numbers = [self.scores, self.members.flatten(1), self.probs, self.uncertainty[:, None]]
        finite = torch.cat(numbers, dim=1).isfinite().all(1)
        broken = [name for name, good in zip(self.names, finite.tolist(), strict=True) if not good]
        if broken:
            shown = ", ".join(broken[:5]) + (", …" if len(broken) > 5 else "")
            raise InvalidValueError(
                f"the model's prediction is not finite for {shown}; its weights or their precision are at fault"
            )

    def _check_shape(self, field: str, *sizes: int) -> None:
        tensor, expected = getattr(self, field), (len(self.names), *sizes)
        if tuple(tensor.shape) != expected or (field == "saliency" and tensor.ndim != 4):
            shape = "(B, C, h, w)" if field == "saliency" else str(expected)
            raise InvalidValueError(
                f"{field} has shape {tuple(tensor.shape)}; expected {shape} for {len(self.names)} names"
            )
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise InvalidTypeError(f"{field} is {tensor.dtype} on {tensor.device}; expected torch.float32 on cpu")

    # ------------------------------------------------------------------ a list of predictions

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names, in the order of the columns of `scores` and `probs`."""
        return self.config.labels

    @property
    def calibrated(self) -> bool:
        """Whether temperature and prior weight were fitted on data; if not, take probabilities for a ranking only.

        They were fitted with the config's own `sampling_steps` and `num_samples`.
        """
        return self.config.temperature is not None

    @property
    def labels(self) -> list[str] | list[list[str]]:
        """The class of each image, see `decisions.decide`; for "multilabel" all that reach their threshold."""
        if self.config.task == "multiclass":
            return [pairs[0][0] for pairs in self.top(1)]
        rows = self._reached().tolist()
        return [[name for name, on in zip(self.class_names, row, strict=True) if on] for row in rows]

    @property
    def thresholds(self) -> dict[str, float] | None:
        """Class name → the probability from which "multilabel" gives the label, by default 0.5; None for one label."""
        if self.config.task == "multiclass":
            return None
        values = self.config.thresholds or [0.5] * len(self.class_names)
        return dict(zip(self.class_names, values, strict=True))

    @property
    def label_adjustment(self) -> dict[str, float] | None:
        """Class name → what is added to log p where the one label is chosen; None where it is the most probable."""
        values = self.config.label_adjustment
        return dict(zip(self.class_names, values, strict=True)) if values else None

    def _reached(self) -> Tensor:
        """Returns (B, C) bool: which labels are given."""
        return decide(self.probs, self.config.task, self.config.thresholds, self.config.label_adjustment)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | slice | str) -> Prediction:
        """Returns the predictions of some images: of one by its place or name, of several by a slice.

        Raises:
            IndexError: there is no such place.
            KeyError: there is no such name.
        """
        rows = list(range(len(self))[key]) if isinstance(key, slice) else [self._row(key)]
        names, items = [self.names[row] for row in rows], [self.items[row] for row in rows]
        sizes = [self.sizes[row] for row in rows] if self.sizes else []
        return dataclasses.replace(self, names=names, items=items, sizes=sizes, **selected(self, rows))

    def _row(self, key: int | str) -> int:
        if not isinstance(key, str):
            if not -len(self) <= operator.index(key) < len(self):
                raise IndexError(f"there is no image {key}; the prediction has {len(self)}")
            return operator.index(key) % len(self)
        if key not in self.names:
            near = difflib.get_close_matches(key, self.names, n=3)
            hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
            raise KeyError(f"{key!r} is not among the {len(self)} images{hint}")
        return self.names.index(key)

    def __repr__(self) -> str:
        shown = [f"{os.path.basename(name)} → {self.summary(row, 1)}" for row, name in enumerate(self.names[:3])]
        more = ["…"] if len(self) > 3 else []
        state = "" if self.calibrated else ", not calibrated"
        return f"Prediction({len(self)} images, {len(self.class_names)} classes{state}: {', '.join(shown + more)})"

    def summary(self, row: int, most: int = 3) -> str:
        """Returns in a few words what is predicted for an image: its labels, or its most probable classes.

        Args:
            row: place of the image.
            most: classes that are named; of more labels only the number.
        """
        one = self[row]
        pairs = one.top(len(self.class_names))[0]
        if self.thresholds is None:
            return "  ".join(f"{name} {value:.3f}" for name, value in pairs[:most])
        count = int(one._reached().sum())
        if not count:
            return f"no finding above its threshold (highest: {pairs[0][0]} {pairs[0][1]:.3f})"
        named = "  ".join(f"{name} {value:.3f}" for name, value in pairs[: min(count, most)])
        return named + (f"  + {count - most}" if count > most else "")

    def _repr_html_(self) -> str:
        """Returns the table that notebooks show."""
        return html_of(self)

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """Returns the k most probable classes of each image as (name, probability), the most probable first.

        What is predicted comes before the others: thresholds of "multilabel" and a `label_adjustment` differ by class,
        so that a class that is less probable than another may be predicted where that one is not.

        Args:
            k: at least 1; more than there are classes gives all.

        Raises:
            ValueError: `k` is less than 1.
        """
        if k < 1:
            raise InvalidValueError(f"k={k} must be at least 1")
        order = torch.sort(self.probs.double() + self._reached(), stable=True, dim=-1, descending=True).indices
        rows = zip(self.probs.gather(1, order)[:, :k].tolist(), order[:, :k].tolist(), strict=True)
        return [[(self.class_names[index], value) for value, index in zip(*row, strict=True)] for row in rows]

    # ------------------------------------------------------------------ for other programs

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values: a record per image under "images", then what holds for all of them.

        "thresholds" are those of "multilabel" by class name, else None; "label_adjustment" is that of "multiclass".

        A record has "name", "label" (or the list "labels" for "multilabel"), "uncertainty", "probs", "scores",
        "spread", "global_logits", "local_logits", "feature_logits" and "dcg_logits" by class name, "size" (height and
        width of the upright picture), "ood_score", "in_distribution", "set" (at the level .1) and "deferred", each None
        where that is not known, and "rois": box (left, top, right, bottom in pixels of the square of "image_size"),
        box_original (in pixels of the picture) and attention.
        """
        labels: list[Any] = list(zip(self.labels, self.limits_of(), strict=True))
        return {
            "images": [record_of(self, row, label, limits) for row, (label, limits) in enumerate(labels)],
            "errors": dict(self.errors),
            "task": self.config.task,
            "class_names": list(self.class_names),
            "thresholds": self.thresholds,
            "label_adjustment": self.label_adjustment,
            "image_size": self.config.input_size,
            "steps": self.steps,
            "seed": self.seed,
            "num_samples": self.num_samples,
            "precision": self.precision,
            "tta": self.tta,
            "defer_error": self.defer_error,
            "calibrated": self.calibrated,
            "trained": self.trained,
        }

    @property
    def rois_original(self) -> Tensor:
        """(B, K, 4) left, top, right, bottom of `rois` in pixels of the pictures, upright as their EXIF data say.

        What is in the square but not in the picture, such as a border, is cut off.

        Raises:
            ValueError: the sizes of the pictures are not known.
        """
        boxes = [original_boxes(self, row) for row in range(len(self))]
        return torch.stack(boxes) if boxes else self.rois

    def to_frame(self, *, rois: bool = False) -> DataFrame:
        """Returns a pandas table: name, label (several joined by "|"), uncertainty, and prob_<class> per class.

        Its `attrs["thresholds"]` are those that labels had to reach.

        Args:
            rois: add height and width of the picture and, in its pixels, its ROIs with their attention.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise MissingExtraError('to_frame needs pandas: pip install "diffmiczoo[pandas]"') from error
        frame = DataFrame(table_rows(self, rois), columns=table_columns(self.config, rois, self.limit_columns))
        frame.attrs["thresholds"] = self.thresholds
        return frame

    def to_csv(self, path: str | os.PathLike[str] | None = None, *, header: bool = True, rois: bool = False) -> str:
        """Returns the table of `to_frame` as CSV text, with 6 decimals, and writes it to a file if one is given.

        Args:
            path: of the file; names that are not UTF-8 keep their bytes.
            header: begin with the names of the columns.
            rois: as for `to_frame`.

        Raises:
            OSError: the file cannot be written.
        """
        text = csv_text(table_columns(self.config, rois, self.limit_columns), table_rows(self, rois), header=header)
        if path is not None:
            write_text(Path(path), text)
        return text

    # ------------------------------------------------------------------ for people

    def plot(
        self, index: int | str = 0, images: Any = None, show_saliency: bool = True, explanation: Explained = None
    ) -> Figure:
        """Draws one image as it is, once more with where the model looked, and how probable it finds the classes.

        Boxes are the ROIs, numbered by attention: the more attention, the bolder. Wash and lines are the saliency of
        the first class that is named, from 0 to 1 on the same scale for every image: the softmax over the classes of
        `saliency` at each place, for "multilabel" its sigmoid. What was cropped is pale. Bars show the 8 most probable
        classes, with the threshold of each label for "multilabel".

        Args:
            index: place or name of the image.
            images: where to take the images from instead of `items`, one per row, as `DiffMICv2.predict` takes them.
            show_saliency: draw the saliency.
            explanation: whose map is drawn instead, from `diffmiczoo.reporting.gradcam.explain`.

        Returns:
            A figure 1200 pixels wide that pyplot knows nothing of; `figure.savefig(path)` writes it.

        Raises:
            ImportError: matplotlib is not installed.
            ImageError: the image cannot be read any more.
            IndexError, KeyError: there is no such image.
            ValueError: `images` are not one per row, or the explanation does not hold the image.
        """
        try:
            from diffmiczoo.inference.overlay import draw_overlay, overlay_of
        except ImportError as error:
            raise MissingExtraError('plot needs matplotlib: pip install "diffmiczoo[plot]"') from error
        row = self._row(index)
        return draw_overlay(overlay_of(self, row, self._item(row, images), show_saliency, explanation))

    def save_overlay(self, path: str | os.PathLike[str], index: int | str = 0, explanation: Explained = None) -> None:
        """Writes the figure of `plot` as a PNG file 1200 pixels wide; raises as `plot` does."""
        figure = self.plot(index, explanation=explanation)
        with replaced(Path(path)) as file, drawn_as_written():
            # Half the time of the usual level, for a tenth more bytes.
            figure.savefig(file, format="png", dpi="figure", metadata=DRAWN, pil_kwargs={"compress_level": 3})

    def _item(self, row: int, images: Any) -> Any:
        """Returns where the image of a row comes from."""
        from diffmiczoo.images.items import as_items

        items = self.items if images is None else as_items(images)
        if len(items) != len(self):
            raise InvalidValueError(
                f"images holds {len(items)} images; expected {len(self)}, one per row of the prediction"
            )
        return items[row]
