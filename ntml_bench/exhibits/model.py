"""What one model makes of clean and of triggered test images: where its features lie, and whether it sees the true class."""

import torch
from torch import Tensor, nn

from ntml_bench.data.base import Split
from ntml_bench.engine import Engine
from ntml_bench.errors import UserError
from ntml_bench.evaluation import TriggeredTest, batches
from ntml_bench.exhibits.choice import sample
from ntml_bench.exhibits.plane import plane_of
from ntml_bench.models import Classifier
from ntml_bench.store import Artifact

SHOWN = 300


def exhibit(engine: Engine, model: Classifier, test: Split, triggered: TriggeredTest) -> Artifact:
    """Places of clean and of triggered images on the plane of the clean ones; the same images for every model.

    The model is put into eval mode. One that answers with something else than numbers has all its places at the origin.
    """
    clean, poisoned = (_some(split, purpose) for split, purpose in ((test, "clean"), (triggered.split, "triggered")))
    features, _ = features_and_logits(engine, model, clean.images)
    other_features, logits = features_and_logits(engine, model, poisoned.images)
    labels, other_labels = clean.labels.cpu(), poisoned.labels.cpu()
    features, other_features = features.nan_to_num(0, 0, 0), other_features.nan_to_num(0, 0, 0)
    plane = plane_of(features, labels, triggered.target_class)
    probabilities = logits.softmax(1).gather(1, other_labels[:, None]).flatten().nan_to_num(0)
    return Artifact(
        {"target_class": triggered.target_class},
        {
            "clean_map": plane.places(features),
            "clean_labels": labels,
            "triggered_map": plane.places(other_features),
            "triggered_labels": other_labels,
            "true_class_probability": 100 * probabilities,
        },
    )


def features_and_logits(engine: Engine, model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the last linear layer reads, float32 [N, D], and what it answers, float32 [N, classes], on the CPU; images uint8.

    Of a net that ends in something else the logits are the features.
    """
    seen: list[Tensor] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].float().flatten(1).cpu())

    try:
        hook = model.head.register_forward_pre_hook(look)
    except UserError:
        hook = None
    model.eval()
    try:
        with torch.inference_mode(), engine.autocast():
            logits = torch.cat([model(engine.images(images[part])).float().cpu() for part in batches(images)])
    finally:
        if hook is not None:
            hook.remove()
    features = torch.cat(seen) if seen else logits
    return (features if len(features) == len(logits) else logits), logits


def _some(split: Split, purpose: str) -> Split:
    return split[sample(split.labels, SHOWN, purpose).to(split.labels.device)]
