"""The one predictor that engines, the server and endpoints share; pictures on many machines, and their results."""

from diffmiczoo.engines.predictor import BatchPredictor
from diffmiczoo.engines.ray_data import predict_with_ray
from diffmiczoo.engines.results import read_results

__all__ = ["BatchPredictor", "predict_with_ray", "read_results"]
