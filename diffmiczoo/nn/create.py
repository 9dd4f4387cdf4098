"""The networks of a config, with their encoders: the DCG or what stands in its place, and the image feature prior."""

from __future__ import annotations

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.dcg import DCG
from diffmiczoo.nn.encoders import Pretrained, Trunk, create_encoder
from diffmiczoo.nn.feature_prior import FeaturePrior
from diffmiczoo.nn.plain import PlainClassifier


def create_dcg(config: DiffMICConfig, pretrained: Pretrained = False) -> DCG:
    """Builds the DCG, its global stream alone, or the plain classifier in its place, as `config.predictor` says.

    Raises:
        ValueError: an encoder is unknown, or cannot take its image size.
    """
    if config.predictor == "classifier":
        return PlainClassifier(config, pretrained)
    name, local = config.dcg_encoder, None
    global_encoder = (
        Trunk(name, config.image_size, pretrained)
        if config.dcg_trunk
        else create_encoder(name, config.image_size, config.dcg_out_index, pretrained)
    )
    if config.predictor != "global":
        local = create_encoder(name, config.roi_size, config.local_out_index, pretrained)
    return DCG(global_encoder, local, config)


def create_feature_prior(config: DiffMICConfig, pretrained: Pretrained = False) -> FeaturePrior:
    """Builds the image feature prior with its encoders (eq. 6).

    Raises:
        ValueError: an encoder is unknown, or cannot take its image size.
    """
    raw = create_encoder(config.raw_encoder, config.image_size, config.raw_out_index, pretrained)
    roi = None
    if config.roi_features:
        roi = create_encoder(config.roi_encoder, config.roi_size, config.roi_out_index, pretrained)
    return FeaturePrior(raw, roi, config)
