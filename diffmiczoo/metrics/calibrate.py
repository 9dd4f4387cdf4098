"""`CalibratedModel`: calibration of a model that was trained in a loop of one's own."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from diffmiczoo.data.classes import match_classes
from diffmiczoo.data.known_pictures import count_known
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.inference.classifier import ImageClassifier
from diffmiczoo.inference.probabilities import scores_to_probs
from diffmiczoo.metrics.calibration import ENOUGH_IMAGES, calibration_sentence, fit_calibration
from diffmiczoo.metrics.decisions import check_balance, fit_decision
from diffmiczoo.metrics.recalibration import Recalibration

Self = TypeVar("Self", bound="CalibratedModel")


class CalibratedModel(ImageClassifier):
    """A classifier whose probabilities can be fitted to labelled images.

    Attributes:
        training_pictures: what the weights were trained on; None where that is not known.
        recalibration: how it was recalibrated, see `RecalibratedModel`; None where it was not.
    """

    training_pictures: PictureSet | None = None
    recalibration: Recalibration | None = None

    def calibrate(
        self: Self,
        data: Any,
        *,
        split: str | None = None,
        class_names: Any = None,
        batch_size: int = 32,
        progress: bool | None = None,
        balance_labels: float = 0.0,
    ) -> Self:
        """Fits temperature, prior weight and thresholds to labelled images, as `fit` does, and marks the model trained.

        For models from a training loop of one's own: the weights stay, `config` changes. Use images that the model has
        not learned from.

        Args:
            data: anything that `fit` and `evaluate` take.
            split: which images; by default "val" where the data have splits, else all.
            class_names: what class numbers stand for, as for `evaluate`.
            batch_size: images computed at once.
            progress: show a bar; by default where the standard error is a terminal.
            balance_labels: accuracy on these images that one label out of several may give up for balanced accuracy,
                see `fit_label_adjustment`; 0 for the most probable class.

        Returns:
            The model itself.

        Warns:
            UserWarning: there are few images; the message tells how many calibrate how many classes. The weights were
                trained on some of them.

        Raises:
            ValueError: the data's classes are not among the model's, no image belongs to the split, or
                `balance_labels` is not for this model.
            ImageError: an image cannot be read.
        """
        check_balance(balance_labels, self.config.task)
        manifest = self.calibration_images(data, split, class_names)
        before, self.trained = self.trained, True  # or predict would warn of what is just being settled
        try:
            items = [record.item() for record in manifest.records]
            found = self.predict(items, batch_size=batch_size, progress=progress)
            targets = torch.from_numpy(manifest.targets())
            config = self.config.uncalibrated()
            config = config.replace(**fit_calibration(found.scores, found.members, targets, config))
            probs = scores_to_probs(found.scores, config, found.members)
            self.config, self.recalibration = fit_decision(probs, targets, config, balance_labels), None
        except BaseException:
            self.trained = before
            raise
        if len(manifest.records) < ENOUGH_IMAGES:
            warn(calibration_sentence(manifest.counts, len(manifest.records)))
        self._tell_learned(manifest, progress)
        return self

    def _tell_learned(self, manifest: Manifest, progress: bool | None) -> None:
        pictures = self.training_pictures
        learned = 0 if pictures is None else count_known(pictures, manifest, self.config, progress)
        if learned:
            warn(
                f"{learned:,} of {len(manifest):,} images were used to train these weights: a model is surer of them "
                "than of new ones, so that its probabilities will be too; calibrate on images that no training has seen"
            )

    def calibration_images(self, data: Any, split: str | None, class_names: Any) -> Manifest:
        """Returns the images that `calibrate` takes, with the model's classes; see there for arguments and errors."""
        config = self.config
        manifest = as_manifest(data, class_names=class_names, task=config.task, known=config.labels)
        if manifest.task != config.task:
            raise InvalidValueError(f"{manifest.name} is {manifest.task}, the model {config.task}")
        manifest = match_classes(manifest, config)
        return manifest.split(split or "val") if split is not None or manifest.has_splits else manifest
