"""`BatchPredictor`: loads a model once, then answers batch after batch; bad pictures are answers too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffmiczoo._version import __version__
from diffmiczoo.engines.columns import columns_of, pictures_of
from diffmiczoo.engines.pictures import Picture, ReadPicture, read_picture
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.hub.companions import weights_digest
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.zoo.factory import create_model


@dataclass(frozen=True, eq=False)
class Answers:
    """What became of some pictures.

    Attributes:
        read: each picture, in the order in which they were given.
        prediction: of those that could be read, in that order; None where none could.
    """

    read: list[ReadPicture]
    prediction: Prediction | None


class BatchPredictor:
    """Loads a model once, and answers batches of pictures for as long as it lives.

    It is a callable on columns, which `ray.data.Dataset.map_batches`, a pandas UDF of Spark or a loop of your own can
    use. A batch has a column `path` (local, or a URL that fsspec knows) or `bytes` (the content of a file), and may
    have a column `id`; ids are the paths without it. Each picture is read once, and never raises: a picture that cannot
    be used has an `error`.

    The answer for a picture is the same to the bit alone, in any batch and in any order, on the same machine with the
    same number of threads: see `exact`. It is that of `DiffMICv2.predict` in batches of `batch_size`.

    Columns of what it returns, a row per picture in the given order:

    - `id`; `label` (several joined by "|"; "" with an error); `error` ("" where there is none);
    - `probs` (B, C) float32, in the order of `class_names`; NaN with an error;
    - `uncertainty` (B,) float32 in [0, 1]; NaN with an error;
    - `spread` (B, C) float32, standard deviation of the scores over the runs of the sampler; NaN with one run;
    - `set`: the classes that cannot be ruled out at the level .1, joined by "|"; "" where the weights have no sets;
    - `ood_score` (B,) float32, above 1 unlike the training pictures; NaN where the weights have no gate;
    - `in_distribution` (B,) int8: 1 like the training pictures, 0 unlike them, -1 not known;
    - `sha256` of the picture's content; `model`, `weights_sha256` and `version` of this package.

    Args:
        name: of the weights, as `create_model` takes it.
        steps: of the sampler; the model's own by default.
        precision: "fp32", "bf16", "fp16", "int8" or "auto", see `DiffMICv2.predict`.
        device: "cpu", "cuda", …, or "auto" for a GPU of CUDA where there is one.
        batch_size: pictures computed at once, ≥ 1; larger batches are cut.
        num_samples: runs of the sampler to average; the model's own by default.
        seed: of the starting noise.
        tta: views of each picture; the model's own by default.
        threads: of torch in this process, the share of cores that an actor was given; as it is by default.
        exact: fill batches that are smaller than `batch_size`, so that no answer depends on how many pictures came
            with it. Without it, small batches take less time, and answers may differ in their last bits (about 1e-7).
        weights_sha256: refuse other weights than these; what another process found as `weights_sha256`.

    Attributes:
        model: the `DiffMICv2`.
        weights_sha256: of its tensors, start noise and limits, `diffmiczoo.hub.companions.weights_digest`.
        class_names: C names.

    Raises:
        ValueError, HubError, FileNotFoundError: as `create_model` does; an argument is out of range; or the weights
            are not those that were asked for.
    """

    def __init__(
        self,
        name: str,
        steps: int | None = None,
        *,
        precision: str = "fp32",
        device: str = "auto",
        batch_size: int = 32,
        num_samples: int | None = None,
        seed: int = 0,
        tta: str | None = None,
        threads: int | None = None,
        exact: bool = True,
        weights_sha256: str | None = None,
    ) -> None:
        options = PredictOptions(
            steps=steps,
            batch_size=batch_size,
            num_samples=num_samples,
            seed=seed,
            precision=precision,
            progress=False,
            tta=tta,
            fill_batches=exact,
        )
        if threads is not None:
            if threads < 1:
                raise InvalidValueError(f"threads={threads} must be at least 1")
            torch.set_num_threads(threads)
        self.model = create_model(name, pretrained=True, device=device)
        self.weights_sha256 = weights_digest(self.model)
        if weights_sha256 not in (None, self.weights_sha256):
            raise InvalidValueError(
                f"{name}: the weights here have sha256 {self.weights_sha256}, expected {weights_sha256}; give every "
                "machine the same weights and the same version of diffmiczoo"
            )
        self._predictor = self.model.predictor(options)
        # Everything that makes another one: what is sent to another process are these, and it loads by itself. Another
        # machine would choose another precision.
        given = (name, steps, self.precision, device, batch_size, num_samples, seed, tta, threads, exact)
        self._given = (*given, self.weights_sha256)
        self.class_names = self.model.config.labels

    @property
    def steps(self) -> int:
        """Of the sampler."""
        return self._predictor.steps

    @property
    def precision(self) -> str:
        """Of products."""
        return self._predictor.options.precision

    @property
    def settings(self) -> dict[str, Any]:
        """What answers depend on beside weights and version, by name."""
        own, options = self._predictor, self._predictor.options
        return {
            "steps": own.steps,
            "num_samples": own.num_samples,
            "seed": options.seed,
            "tta": own.tta,
            "precision": options.precision,
            "batch_size": options.batch_size,
            "exact": options.fill_batches,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, self._given

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers a batch of columns with columns.

        Raises:
            ValueError: there is no column `path` or `bytes`, or columns differ in length.
        """
        return self.columns(self.answer(pictures_of(batch)))

    def columns(self, answers: Answers) -> dict[str, np.ndarray]:
        """Returns answers as columns."""
        columns = columns_of(answers.read, answers.prediction, len(self.class_names))
        for name, value in (
            ("model", self.model.display_name),
            ("weights_sha256", self.weights_sha256),
            ("version", __version__),
        ):
            columns[name] = np.full(len(answers.read), value, dtype=object)
        return columns

    def answer(self, pictures: Sequence[Picture]) -> Answers:
        """Reads and predicts pictures."""
        return self.answer_read([read_picture(picture, self.model.config) for picture in pictures])

    def answer_read(self, read: Sequence[ReadPicture]) -> Answers:
        """Predicts pictures that were read already, as by another thread."""
        pairs = [(each.item, each.square) for each in read]
        good = [(item, square) for item, square in pairs if item is not None and square is not None]
        if not good:
            return Answers(list(read), None)
        items, squares = zip(*good, strict=True)
        return Answers(list(read), self._predictor.predict_squares_of(list(items), list(squares)))


def _loaded(
    name: str,
    steps: int | None,
    precision: str,
    device: str,
    batch_size: int,
    num_samples: int | None,
    seed: int,
    tta: str | None,
    threads: int | None,
    exact: bool,
    weights_sha256: str,
) -> BatchPredictor:
    """Returns what was pickled: the same weights, loaded here."""
    return BatchPredictor(
        name,
        steps,
        precision=precision,
        device=device,
        batch_size=batch_size,
        num_samples=num_samples,
        seed=seed,
        tta=tta,
        threads=threads,
        exact=exact,
        weights_sha256=weights_sha256,
    )
