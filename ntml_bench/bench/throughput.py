"""Images a second of the project's training and inference, beside the ordinary loop and the device's measured ceiling."""

import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ntml_bench.bench.ceiling import TRAINING_OVER_FORWARD, forward_flop, matrix_product_rate, matrix_size
from ntml_bench.bench.project import CellsAtATime, ProjectInference, ProjectTraining
from ntml_bench.bench.reference import Reference, ReferenceInference, ReferenceTraining
from ntml_bench.bench.results import (
    Ceiling,
    CellsAtATimeRow,
    LargeBatch,
    LoaderWorkers,
    ModelThroughput,
    Row,
    Throughput,
)
from ntml_bench.bench.timing import Comparison, Spread, Work, alternate, fitted, seconds_of
from ntml_bench.data.base import Split
from ntml_bench.engine import Engine
from ntml_bench.machine import has_bfloat16
from ntml_bench.models import Classifier, ModelConfig, make_classifier

IMAGE_SHAPE = (3, 32, 32)
CLASSES = 10
IMAGES = 50_000
"""As many as CIFAR-10 has; a measurement that wants more goes through them several times."""
STATISTICS = (torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616]))
BATCH_SIZE = 128
LARGE_BATCH_SIZE = 1024
CELLS = 2
"""What a sweep runs at a time on a CPU."""
LEAST_BATCHES = 2
"""Of a training: a single batch could not be loaded while another one is computed with."""


@dataclass(frozen=True)
class Plan:
    """`seconds` of one measurement (about), how many `rounds` of them; `say` is told what is measured."""

    engine: Engine
    seconds: float
    rounds: int
    say: Callable[[str], None]


def measure_throughput(plan: Plan, models: Sequence[str]) -> Throughput:
    """Each of the `models` beside the reference. Raises UserError for an unknown one, before anything is measured."""
    classifiers = {name: make_classifier(ModelConfig(name), CLASSES, IMAGE_SHAPE, STATISTICS, seed=0) for name in models}
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, *IMAGE_SHAPE), dtype=torch.uint8, generator=rng)
    split = Split(images, torch.randint(CLASSES, (IMAGES,), generator=rng))
    ceiling = _ceiling(plan)
    timed = []
    for name, classifier in classifiers.items():
        timed.append(_Model(plan, name, classifier, split))
        timed[-1].measure()
        ceiling = ceiling.best(_ceiling(plan))
    return Throughput(ceiling, {model.name: model.result(ceiling) for model in timed})


def _ceiling(plan: Plan) -> Ceiling:
    plan.say("matrix products")
    device = plan.engine.device
    size = matrix_size(device)
    dtypes = (torch.float32, torch.bfloat16) if worth_half(plan.engine) else (torch.float32,)
    return Ceiling(size, *(matrix_product_rate(device, dtype, size, plan.seconds) for dtype in dtypes))


def worth_half(engine: Engine) -> bool:
    """Whether bfloat16 is timed: without instructions for it it takes minutes for what float32 takes seconds for."""
    return engine.half or has_bfloat16(engine.device)


def loader_workers(cores: int) -> tuple[int, ...]:
    """The numbers of loader processes that are tried for the reference."""
    return (0, 2) if cores < 8 else (0, 2, 8)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Model:
    """The measurements of one model: `measure`, then `result`."""

    def __init__(self, plan: Plan, name: str, model: Classifier, split: Split) -> None:
        self.plan = plan
        self.engine = plan.engine
        self.device = plan.engine.device
        other = replace(plan.engine, half=not plan.engine.half)
        self.engines = [plan.engine, other] if worth_half(plan.engine) else [plan.engine]
        self.name = name
        self.model = model
        self.split = split
        self.resident = split.to(self.device)

    def measure(self) -> None:
        self.workers, self.training = self._training()
        self.inference = self._inference()
        self.cells = self._cells_at_a_time()
        self.large_batch = self._large_batch() if self.device.type == "cuda" else None

    def result(self, ceiling: Ceiling) -> ModelThroughput:
        forward = forward_flop(self.model.net, IMAGE_SHAPE)
        training = TRAINING_OVER_FORWARD * forward
        precision = precision_of(self.engine)
        training_rows = self._rows(self.training, BATCH_SIZE, training, ceiling)
        inference_rows = self._rows(self.inference, ProjectInference.batch_size, forward, ceiling)
        large_batch = None
        if self.large_batch is not None:
            share = self.large_batch.median * training / ceiling.of(precision)
            large_batch = LargeBatch(LARGE_BATCH_SIZE, self.large_batch, share)
        return ModelThroughput(
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            forward_flop_per_image=forward,
            training_flop_per_image=training,
            loader_workers=self.workers,
            training=training_rows[0],
            inference=inference_rows[0],
            other_training=training_rows[1] if len(training_rows) > 1 else None,
            other_inference=inference_rows[1] if len(inference_rows) > 1 else None,
            cells_at_a_time=self.cells,
            large_batch=large_batch,
        )

    def _rows(self, found: list[Comparison], batch_size: int, flop_per_image: int, ceiling: Ceiling) -> list[Row]:
        return [
            Row.of(comparison, batch_size, flop_per_image, precision_of(engine), ceiling)
            for engine, comparison in zip(self.engines, found, strict=True)
        ]

    def _training(self) -> tuple[LoaderWorkers, list[Comparison]]:
        self._say("loader of the reference")
        candidates: dict[int, tuple[Reference, int]] = {}
        for workers in loader_workers(cores()):
            candidate = self._reference(ReferenceTraining, BATCH_SIZE, workers)
            candidates[workers] = candidate, self._fitted(candidate, LEAST_BATCHES)
        rates = {workers: images / self._seconds(candidate) for workers, (candidate, images) in candidates.items()}
        chosen = max(rates, key=lambda workers: rates[workers])
        reference, images = candidates[chosen]
        # The loader processes of the others end here.
        candidates.clear()
        found = []
        for engine in self.engines:
            self._say(f"training in {precision_of(engine)}")
            project = self._project_training(BATCH_SIZE, engine)
            found.append(self._alternate(project, reference, (self._fitted(project, LEAST_BATCHES), images)))
        return LoaderWorkers(chosen, rates), found

    def _inference(self) -> list[Comparison]:
        reference = self._reference(ReferenceInference, ProjectInference.batch_size, self.workers.chosen)
        images = self._fitted(reference)
        found = []
        for engine in self.engines:
            self._say(f"inference in {precision_of(engine)}")
            project = ProjectInference(engine, self._project_model(), self.resident)
            found.append(self._alternate(project, reference, (self._fitted(project), images)))
        return found

    def _cells_at_a_time(self) -> CellsAtATimeRow | None:
        threads = torch.get_num_threads()
        if self.device.type != "cpu" or threads < CELLS:
            return None
        self._say(f"{CELLS} cells at a time")
        together = CellsAtATime([self._project_training(BATCH_SIZE) for _ in range(CELLS)], threads // CELLS)
        alone = CellsAtATime([self._project_training(BATCH_SIZE)], threads)
        found = self._alternate(together, alone, (self._fitted(together), self._fitted(alone, LEAST_BATCHES)))
        # A thread's number of threads is partly that of the process.
        torch.set_num_threads(threads)
        return CellsAtATimeRow(CELLS, threads // CELLS, threads, found.first, found.second, found.ratio)

    def _large_batch(self) -> Spread:
        self._say(f"training with batches of {LARGE_BATCH_SIZE}")
        work = self._project_training(LARGE_BATCH_SIZE)
        images = self._fitted(work)
        return Spread.of([images / self._seconds(work) for _ in range(self.plan.rounds)])

    # The works and their timing.

    def _project_model(self) -> Classifier:
        return self.engine.model(copy.deepcopy(self.model))

    def _project_training(self, batch_size: int, engine: Engine | None = None) -> ProjectTraining:
        return ProjectTraining(engine or self.engine, self._project_model(), self.resident, batch_size)

    def _reference(self, kind: type[Reference], batch_size: int, workers: int) -> Reference:
        net = plain_net(self.model).to(self.device)
        return kind(net, self.split.images, self.split.labels, STATISTICS, self.device, batch_size, workers)

    def _fitted(self, work: Work, least_batches: int = 1) -> int:
        return fitted(work, self.device, self.plan.seconds, least_batches)

    def _alternate(self, first: Work, second: Work, images: tuple[int, int]) -> Comparison:
        return alternate(first, second, images, self.device, self.plan.rounds)

    def _seconds(self, work: Work) -> float:
        return seconds_of(work.run, self.device, time.perf_counter)

    def _say(self, text: str) -> None:
        self.plan.say(f"{self.name}: {text}")


def precision_of(engine: Engine) -> str:
    return "bfloat16" if engine.half else "float32"


def plain_net(model: Classifier) -> nn.Module:
    """A copy of the net, same weights, without the normalisation that the reference does in its transforms."""
    return copy.deepcopy(model.net)
