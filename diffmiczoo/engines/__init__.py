"""The one predictor that engines, the server and endpoints share: pictures in, columns or answers out."""

from diffmiczoo.engines.predictor import BatchPredictor

__all__ = ["BatchPredictor"]
