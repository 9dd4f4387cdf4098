"""`RunRecord`: what the predictions of a file depend on, in a JSON file beside it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffmiczoo._version import __version__
from diffmiczoo.files import beside, read_json_object, write_text

if TYPE_CHECKING:
    from diffmiczoo.inference.predictor import Predictor
    from diffmiczoo.model import DiffMICv2

_COMPARED = (
    "weights", "steps", "num_samples", "seed", "precision", "tta", "defer_error", "on_foreign", "version",
)  # fmt: skip

#: What records meant that were written before there was such a field.
_LATER = {"on_foreign": "flag"}


@dataclass(frozen=True)
class RunRecord:
    """What the predictions of a file depend on.

    Attributes:
        model: the name that it was created by; another name for the same weights and config makes no difference.
        weights: sha256 of all parameters and buffers, and of the start noise.
        config: of the model, with calibration and thresholds.
        steps, num_samples, seed: of the sampler.
        precision: of products.
        tta: views of each picture.
        version: of this package.
        defer_error, on_foreign: what was asked of the weights' knowledge of their limits.
    """

    model: str
    weights: str
    config: dict[str, Any]
    steps: int
    num_samples: int
    seed: int
    precision: str
    tta: str
    version: str = __version__
    defer_error: float | None = None
    on_foreign: str = "flag"

    @classmethod
    def of(cls, name: str, model: DiffMICv2, predictor: Predictor) -> RunRecord:
        """Returns the record of what a predictor of a model is about to do."""
        from diffmiczoo.hub.companions import weights_digest

        options = predictor.options
        config = json.loads(json.dumps(model.config.to_dict()))
        steps, runs = predictor.steps, predictor.num_samples
        return cls(
            name,
            weights_digest(model),
            config,
            steps,
            runs,
            options.seed,
            options.precision,
            predictor.tta,
            defer_error=options.defer_error,
            on_foreign=options.on_foreign,
        )

    @staticmethod
    def path_for(file: Path) -> Path:
        """Returns where the record of a file lies."""
        return beside(file, ".run.json")

    def save_for(self, file: Path) -> None:
        """Writes the record of a file.

        Raises:
            OSError: it cannot be written.
        """
        write_text(self.path_for(file), json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    def differences(self, file: Path) -> list[str]:
        """Returns in what a file's predictions were made otherwise, a few words each; none where they go together."""
        try:
            theirs = read_json_object(self.path_for(file))
        except FileNotFoundError:
            return [f"there is no {self.path_for(file).name} beside it that says what made it"]
        mine = dataclasses.asdict(self)
        found = [
            f"{field} {_short(theirs.get(field))}, now {_short(mine[field])}"
            for field in _COMPARED
            if theirs.get(field, _LATER.get(field)) != mine[field]
        ]
        if found and theirs.get("model") != self.model:
            found.insert(0, f"model {theirs.get('model')}, now {self.model}")
        config = theirs.get("config")
        before = config if isinstance(config, dict) else {}
        changed = [field for field in self.config if before.get(field) != self.config[field]]
        return found + ([f"the model's {', '.join(changed)}"] if changed else [])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12]
