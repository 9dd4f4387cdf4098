"""What a model is: `DiffMICConfig`, and the checked dataclasses that all settings are made of."""

from diffmiczoo.config.diffmic import MOST_NOISE, DiffMICConfig
from diffmiczoo.config.settings import LATER, Between, Settings, bounds, choices, field_kinds

__all__ = ["LATER", "MOST_NOISE", "Between", "DiffMICConfig", "Settings", "bounds", "choices", "field_kinds"]
