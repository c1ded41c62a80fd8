"""The models: any of timm's by name, and nets for small images."""

from ntml_bench.models.classifier import Classifier, ModelConfig, make_classifier, module_of

__all__ = ["Classifier", "ModelConfig", "make_classifier", "module_of"]
