"""What a model is: `DiffMICConfig`, and the checked dataclasses that all settings are made of."""

from diffmiczoo.config.diffmic import CALIBRATION_FIELDS, LARGEST_OFFSET, MOST_NOISE, DiffMICConfig
from diffmiczoo.config.settings import LATER, Between, Settings, bounds, choices, field_kinds

__all__ = [
    "CALIBRATION_FIELDS",
    "LARGEST_OFFSET",
    "LATER",
    "MOST_NOISE",
    "Between",
    "DiffMICConfig",
    "Settings",
    "bounds",
    "choices",
    "field_kinds",
]
