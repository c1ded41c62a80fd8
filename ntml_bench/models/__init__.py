"""The models: any of timm's by name, and nets for small images."""

from ntml_bench.models.classifier import Classifier, ModelConfig, channel_statistics, make_classifier

__all__ = ["Classifier", "ModelConfig", "channel_statistics", "make_classifier"]
