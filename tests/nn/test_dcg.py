"""The dual-granularity conditional guidance against its formulas (eq. 1-3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.dcg import DCG, GatedAttention
from diffmiczoo.nn.encoders import create_encoder


def test_gated_attention_is_the_formula() -> None:
    attention, features = GatedAttention(5, 3), torch.randn(2, 4, 5)
    V, U, w = attention.V.weight, attention.U.weight, attention.w.weight[0]
    for weights, rows in zip(attention(features), features, strict=True):
        logits = torch.stack([w @ (torch.tanh(V @ row) * torch.sigmoid(U @ row)) for row in rows])
        torch.testing.assert_close(weights, logits.softmax(0))


def _dcg(**fields) -> DCG:
    encoder = lambda size: create_encoder("test_resnet", size)
    return DCG(encoder(64), encoder(32), DiffMICConfig(num_classes=3, attention_dim=4, **fields)).eval()


def test_global_prior_averages_the_strongest_responses() -> None:
    dcg, images = _dcg(saliency_top=0.5), torch.randn(2, 3, 64, 64)
    saliency, prior = dcg.global_stream(images)
    ordered = saliency.flatten(2).sort(-1, descending=True).values
    count = -(-ordered.shape[-1] // 2)
    torch.testing.assert_close(prior, ordered[..., :count].mean(-1))
    saliency, prior = _dcg().global_stream(images)
    torch.testing.assert_close(prior, saliency.mean((2, 3)))


def test_local_prior_pools_the_rois_by_attention() -> None:
    dcg, rois = _dcg(), torch.randn(2, 4, 3, 32, 32)
    prior, attention = dcg.local_stream(rois)
    features = torch.stack([dcg.local_encoder(image).mean((2, 3)) for image in rois])
    pooled = torch.stack([weights @ rows for weights, rows in zip(attention, features, strict=True)])
    torch.testing.assert_close(prior, F.linear(pooled, dcg.local_classifier.weight), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2))
