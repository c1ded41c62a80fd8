"""Prints a checksum of a small net's weights behind 30 steps in bfloat16: run in several vector code paths of torch."""

from pathlib import Path

import torch
from builders import make_dataset, recipe
from machine_bits import checksum

from ntml_bench.data.base import AugmentationConfig, channel_statistics
from ntml_bench.engine import Engine
from ntml_bench.models import ModelConfig, make_classifier
from ntml_bench.training import cross_entropy_of, fit

if __name__ == "__main__":
    torch.set_num_threads(1)
    train, _, _ = make_dataset("digit_scenes", train_size=1280, test_size=10).raw(Path())
    engine = Engine.create("cpu", "bfloat16", deterministic=True)
    model = engine.model(make_classifier(ModelConfig("resnet_tiny"), 10, (3, 32, 32), channel_statistics(train), 0))
    fit(
        engine,
        train,
        recipe(epochs=3, batch_size=128, momentum=0.9, nesterov=True, weight_decay=5e-4),
        models=[model],
        loss=cross_entropy_of(model),
        augmentation=AugmentationConfig(crop_padding=2, horizontal_flip=False),
        seed=0,
        purpose="victim",
        log=lambda _: None,
    )
    print(checksum(*model.state_dict().values()))
