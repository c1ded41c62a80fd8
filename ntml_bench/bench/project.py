"""The project's own training and inference as works to be timed: really `training.fit` and `evaluation.accuracy`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from ntml_bench.bench.timing import passes
from ntml_bench.data.base import AugmentationConfig, Split
from ntml_bench.engine import Engine
from ntml_bench.evaluation import BATCH, accuracy
from ntml_bench.models import Classifier
from ntml_bench.training import Recipe, cross_entropy_of, fit

AUGMENTATION = AugmentationConfig(crop_padding=4, horizontal_flip=True)
RECIPE: dict[str, Any] = {
    "learning_rate": 0.01,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-4,
    "schedule": "constant",
    "warmup": 0.0,
}


class ProjectTraining:
    """One call of `fit` over a resident split, augmentation included."""

    def __init__(self, engine: Engine, model: Classifier, split: Split, batch_size: int) -> None:
        self.engine = engine
        self.model = model
        self.everything = split
        self.split = split
        self.batch_size = batch_size
        self.loss = engine.compiled(cross_entropy_of(model))
        self.recipe = Recipe(epochs=1, batch_size=batch_size, **RECIPE)

    def prepare(self, images: int) -> int:
        size, epochs = passes(images, self.batch_size, len(self.everything))
        self.split = Split(self.everything.images[:size], self.everything.labels[:size])
        self.recipe = Recipe(epochs=epochs, batch_size=self.batch_size, **RECIPE)
        return size * epochs

    def run(self) -> None:
        fit(
            self.engine,
            self.split,
            self.recipe,
            models=[self.model],
            loss=self.loss,
            augmentation=AUGMENTATION,
            seed=0,
            purpose="bench",
            log=lambda _: None,
        )


class ProjectInference:
    """Calls of `accuracy`, which the evaluator and the defenses use."""

    batch_size = BATCH

    def __init__(self, engine: Engine, model: Classifier, split: Split) -> None:
        self.engine = engine
        self.model = model
        self.everything = split
        self.split = split
        self.passes = 1

    def prepare(self, images: int) -> int:
        size, self.passes = passes(images, self.batch_size, len(self.everything))
        self.split = Split(self.everything.images[:size], self.everything.labels[:size])
        return size * self.passes

    def run(self) -> None:
        for _ in range(self.passes):
            accuracy(self.engine, self.model, self.split)


class CellsAtATime:
    """Several trainings at once, in threads, as a sweep runs its cells on a CPU; each computes with `threads` threads.

    Each has a model of its own: two threads that train one model free each other's gradients.
    """

    def __init__(self, trainings: Sequence[ProjectTraining], threads: int) -> None:
        self.trainings = trainings
        self.threads = threads
        self.batch_size = len(trainings) * trainings[0].batch_size

    def prepare(self, images: int) -> int:
        return sum(training.prepare(images // len(self.trainings)) for training in self.trainings)

    def run(self) -> None:
        pool = ThreadPoolExecutor(len(self.trainings), initializer=torch.set_num_threads, initargs=(self.threads,))
        with pool:
            for future in [pool.submit(training.run) for training in self.trainings]:
                future.result()
