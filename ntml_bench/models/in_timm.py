"""timm's registry of nets, with ours in it. Importing this imports timm."""

from timm.models import create_model, list_models, model_entrypoint, register_model

from ntml_bench.models.own import OWN

__all__ = ["create_model", "list_models", "model_entrypoint"]

for _make in OWN.values():
    register_model(_make)
