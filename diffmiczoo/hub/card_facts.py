"""What a card says of weights: texts that people give, and measurements; `diffmiczoo.hub.card` writes it down."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import read_json_object
from diffmiczoo.hub.checklist_items import ITEMS
from diffmiczoo.hub.licenses import license_problems
from diffmiczoo.hub.opponent import Opponent
from diffmiczoo.metrics.ablation import Ablation
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.robustness import Robustness
from diffmiczoo.metrics.subgroups import SubgroupTable
from diffmiczoo.metrics.trust import TrustReport

#: What nobody but the person who trained the weights knows; a card without one of these is refused.
REQUIRED = ("license", "data_license", "training_data", "split", "intended_use", "limits")

#: What else `card.json` may hold: for the Hub's search, for a reader, and for those who have to report a study.
OPTIONAL = (
    "description",
    "dataset",
    "commands",
    "commit",
    "counts",
    "citation",
    "comparison",
    "license_name",
    "license_link",
    "datasets",
    "base_model",
    "source",
    "population",
    "users",
    "out_of_scope",
    "fairness",
    "safety",
    "clinical_risk",
    "funding",
    "contact",
    "checklist",
)

#: Which of them are lists of texts, and which name → value; the others are texts.
_LISTS = ("limits", "commands", "datasets", "base_model", "out_of_scope")
_TABLES = ("counts", "checklist")

CARD_FILE = "card.json"
METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.json"


class IncompleteCardError(InvalidValueError):
    """Weights lack what has to be known before anybody else may use them; the message lists it."""

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([message + ":" * bool(missing), *missing]))


@dataclass(frozen=True)
class CardFacts:
    """What a card says beyond the config; measured or given, nothing of it is made up.

    Attributes:
        license: of the weights, an identifier of the Hub ("apache-2.0", "cc-by-nc-4.0", "other", …).
        data_license: of the images that they were trained on.
        training_data: where images and labels come from, with citation.
        split: how training, validation and test images were kept apart.
        intended_use: what the weights are good for.
        limits: sentences about what the model cannot do.
        metrics: of the whole model on the test split.
        dcg: of its DCG alone on the same images.
        differences: metric → (model - dcg, and its 95 % interval low and high), on the same resamples.
        seeds: "model" or "dcg" → seed → metric → value on the test split, of runs that differ in nothing else; the
            published weights are of one of them.
        seeds_note: in what else than the seed the runs differ from the published weights; empty where in nothing.
        description: one sentence.
        dataset: name of the data set.
        counts: images per split.
        commands: what trained, released and checked the weights.
        commit: of the code that trained them.
        recipe: fields of the `Recipe` in which training differed from the defaults.
        pictures: file names beside the card.
        citation: what to cite besides the method.
        comparison: a sentence on what other methods reach on the same images.
        ablation: what each member of the pool is worth on the test split.
        opponent: a plain classifier on the same images.
        trust: how what the weights know about their limits holds.
        subgroups: metrics on parts of the test images, a table for each column.
        robustness: on corrupted test images.
        license_name, license_link: of a licence that is not among the Hub's ("other").
        datasets, base_model: identifiers of the Hub: of the images, and of the weights that training started from.
        source: address of the code that trained them.
        population: whom the pictures are of: region, age, sex, skin, devices, years.
        users: who may use the weights.
        out_of_scope: sentences about what they must not be used for.
        fairness: what is known of groups for which they are better or worse, and who is missing among the pictures.
        safety: what may go wrong, and what lessens it.
        clinical_risk: what a wrong answer does to a person.
        funding: who paid for it.
        contact: who answers questions.
        checklist: item of a checklist ("CLAIM 13") → what is reported on it, see `diffmiczoo.hub.checklist`.
    """

    license: str
    data_license: str
    training_data: str
    split: str
    intended_use: str
    limits: tuple[str, ...]
    metrics: Metrics
    dcg: Metrics | None = None
    differences: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    seeds: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    seeds_note: str = ""
    description: str = ""
    dataset: str = "private"
    counts: dict[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    commit: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    citation: str = ""
    comparison: str = ""
    ablation: Ablation | None = None
    opponent: Opponent | None = None
    trust: TrustReport | None = None
    subgroups: tuple[SubgroupTable, ...] = ()
    robustness: Robustness | None = None
    license_name: str = ""
    license_link: str = ""
    datasets: tuple[str, ...] = ()
    base_model: tuple[str, ...] = ()
    source: str = ""
    population: str = ""
    users: str = ""
    out_of_scope: tuple[str, ...] = ()
    fairness: str = ""
    safety: str = ""
    clinical_risk: str = ""
    funding: str = ""
    contact: str = ""
    checklist: dict[str, str] = field(default_factory=dict)


def missing_facts(directory: str | os.PathLike[str] | None) -> list[str]:
    """Returns what `card.json` and `metrics.json` of a directory lack, a line each; of None all that a card needs."""
    texts, measured = ({}, {}) if directory is None else _read(Path(directory))
    problems = [f"{CARD_FILE}: {name!r} is missing or empty" for name in REQUIRED if _is_empty(texts.get(name))]
    unknown = sorted(texts.keys() - {*REQUIRED, *OPTIONAL})
    problems += [f"{CARD_FILE}: {name!r} is unknown; known are {', '.join((*REQUIRED, *OPTIONAL))}" for name in unknown]
    problems += [f"{CARD_FILE}: {name!r} {problem}" for name, problem in _misshapen(texts).items()]
    problems += license_problems(texts)
    test = measured.get("test")
    if not isinstance(test, dict) or not test.get("model"):
        return [*problems, f"{METRICS_FILE}: the metrics of the model on the test split are missing"]
    try:
        _measurements(measured)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problems.append(f"{METRICS_FILE}: not what `diffmiczoo evaluate --output` writes ({error!r})")
    return problems


def _measurements(metrics: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of `CardFacts` that `metrics.json` holds.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it has another form.
    """
    test = metrics["test"]
    seeds = metrics.get("seeds", {})
    if unknown := sorted(seeds.keys() - {"model", "dcg"}):
        raise InvalidValueError(f"seeds has the parts {unknown}; known are model and dcg")
    runs = [run for part in seeds.values() for run in part.values()]
    for values in (*runs, test["model"]["values"], test.get("dcg", test["model"])["values"]):
        if wrong := [name for name, value in values.items() if not isinstance(value, int | float | None)]:
            raise InvalidValueError(f"{wrong[0]}={values[wrong[0]]!r} is no number")
    return {
        "metrics": Metrics.from_dict(test["model"]),
        "dcg": Metrics.from_dict(test["dcg"]) if "dcg" in test else None,
        "differences": {name: _difference(values) for name, values in test.get("difference", {}).items()},
        "ablation": Ablation.from_dict(test["ablation"]) if "ablation" in test else None,
        "opponent": Opponent.from_dict(metrics["opponent"]) if "opponent" in metrics else None,
        "trust": TrustReport.from_dict(metrics["trust"]) if "trust" in metrics else None,
        "subgroups": tuple(map(SubgroupTable.from_dict, test.get("subgroups", ()))),
        "robustness": Robustness.from_dict(test["robustness"]) if "robustness" in test else None,
        "seeds": seeds,
        "seeds_note": metrics.get("seeds_note", ""),
    }


def _difference(values: list[float | None]) -> tuple[float, float, float]:
    value, low, high = (math.nan if value is None else float(value) for value in values)
    return value, low, high


def _is_empty(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) and not each.strip() for each in value)
    return not value or (isinstance(value, str) and not value.strip())


def _misshapen(texts: dict[str, Any]) -> dict[str, str]:
    """Returns what is wrong with values of `card.json`, by their names."""
    problems = {}
    for name, value in texts.items():
        listed = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if name in _LISTS and not listed:
            what = "one text" if isinstance(value, str) else f"{value!r}"
            problems[name] = f"is {what}; expected a list of {'sentences' if name == 'limits' else 'texts'}"
        elif name in _TABLES and not isinstance(value, dict):
            problems[name] = f"is {value!r}; expected name: value"
        elif name in (*REQUIRED, *OPTIONAL) and name not in (*_LISTS, *_TABLES) and not isinstance(value, str):
            problems[name] = f"is {value!r}; expected a text"
    counts = texts.get("counts")
    for split, count in counts.items() if isinstance(counts, dict) else ():
        if isinstance(count, bool) or not isinstance(count, int):
            problems["counts"] = f"has {split!r}: {count!r}; expected how many images the split has"
    checklist = texts.get("checklist")
    for item, text in checklist.items() if isinstance(checklist, dict) else ():
        if item not in ITEMS or not isinstance(text, str):
            problems["checklist"] = f"has {item!r}: {text!r}; expected items such as 'CLAIM 13', and texts"
    return problems


def read_facts(directory: str | os.PathLike[str]) -> CardFacts:
    """Reads the facts that lie beside weights: `card.json`, `metrics.json`, and any `recipe.json` and PNG pictures.

    `card.json` holds the texts of `REQUIRED` (limits is a list of sentences) and any of `OPTIONAL`. `metrics.json`
    holds under "test" the metrics of "model", and optionally those of "dcg", their "difference", "subgroups" and
    "robustness"; under "seeds" those of each of several runs, under "trust" a `TrustReport`.

    Raises:
        IncompleteCardError: something is missing, empty or unknown; the message lists all of it.
        ValueError: a file is not JSON.
    """
    directory = Path(directory)
    problems = missing_facts(directory)
    if problems:
        raise IncompleteCardError(f"{directory} is not ready to be published", problems)
    texts, metrics = _read(directory)
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in texts.items()}
    recipe = directory / RECIPE_FILE
    return CardFacts(
        **fields,
        **_measurements(metrics),
        recipe=read_json_object(recipe) if recipe.is_file() else {},
        pictures=tuple(sorted(path.name for path in directory.glob("*.png"))),
    )


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what `card.json` and `metrics.json` hold; nothing for a file that is not there."""
    card, metrics = (
        read_json_object(directory / name) if (directory / name).is_file() else {} for name in (CARD_FILE, METRICS_FILE)
    )
    return card, metrics
