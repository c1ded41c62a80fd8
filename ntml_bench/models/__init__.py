"""The models: any of timm's by name, and nets for small images."""

from ntml_bench.models.classifier import Classifier, ModelConfig, make_classifier, module_of, read_model
from ntml_bench.models.inserted import load_weights, polarize
from ntml_bench.models.trial import check_net

__all__ = [
    "Classifier",
    "ModelConfig",
    "check_net",
    "load_weights",
    "make_classifier",
    "module_of",
    "polarize",
    "read_model",
]
