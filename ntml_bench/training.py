"""The one training loop: attacks' surrogates, victims and defenses all go through `fit`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.checkpoint import Checkpoint
from ntml_bench.data.augmentation import augment, cut_out
from ntml_bench.data.base import AugmentationConfig, Split
from ntml_bench.engine import Engine
from ntml_bench.schema import number, one_of
from ntml_bench.seeding import generator

SCHEDULES = ("constant", "cosine", "half_cosine", "one_cycle")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD over a number of passes.

    `epochs`: the passes; `batch_size`: images of a step; `learning_rate`: the highest; `momentum`, `nesterov`, `weight_decay`:
    as torch's SGD has them; `schedule`: how the learning rate goes over all steps: `one_cycle` rises to it over a first share
    of the steps and falls to 0 after (cosine both ways), `cosine` falls from it to 0, `half_cosine` goes the first half of that
    way (to half of the rate), as a training that ends early, `constant` stays; `warmup`: that first share, of `one_cycle`
    alone.
    """

    epochs: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)
    momentum: float = number(at_least=0, at_most=1)
    nesterov: bool
    weight_decay: float = number(at_least=0)
    schedule: str = one_of(*SCHEDULES)
    warmup: float = number(at_least=0, at_most=0.9)


@dataclass(frozen=True, kw_only=True)
class SteppedRecipe(Recipe):
    """A recipe that knows one schedule more: `step` keeps the learning rate over a first share of all steps and goes on at a
    tenth of it. `full_rate`: that share, of `step` alone."""

    schedule: str = one_of(*SCHEDULES, "step")
    full_rate: float = number(at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Recipe):
    """The recipe that a victim is trained with; `name` is that of its YAML file."""

    name: str


class TrainingDivergedError(RuntimeError):
    """The loss is not a finite number any more."""


Loss = Callable[[Tensor, Tensor], Tensor]
Log = Callable[[dict[str, float]], None]
Step = Callable[[torch.optim.Optimizer, Callable[[], object]], None]
"""A step, which calls `optimizer.step()` once. The gradient of the batch is there; the function makes that of the same batch at
the weights as they then are, in its place."""


def fit(
    engine: Engine,
    split: Split,
    recipe: Recipe,
    *,
    models: Iterable[nn.Module],
    loss: Loss,
    augmentation: AugmentationConfig,
    seed: int,
    purpose: str,
    log: Log,
    learning_rates: Iterable[float] | None = None,
    before_augmentation: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None = None,
    cutout: int = 0,
    after_augmentation: Callable[[Tensor, Tensor, torch.Generator], Tensor] | None = None,
    checkpoint: Checkpoint | None = None,
    take_step: Step | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Train `models` in place on `split` (on the engine's device) and leave them in eval mode.

    `loss`: augmented float images [B, C, H, W] in [0, 1] and labels [B] to a scalar. `learning_rates`: one for each
    model where they differ. `before_augmentation`: a change of each batch (images float, labels, random stream);
    `after_augmentation`: of its images, once they are augmented. `cutout`: the side of a square, in pixels, that is blacked
    out in each augmented image (0: none). `take_step`: takes the place of `optimizer.step()`. `stop`: asked behind each epoch
    and its `log` whether the training ends there.
    Every draw depends on `seed` and `purpose` alone. `log` gets epoch and mean loss after each epoch: the only
    synchronisation with the device. Where `checkpoint` holds the state of an interrupted training it goes on from there, to the
    same weights as without the interruption; `log` gets the epochs behind it again. Raises TrainingDivergedError.
    """
    models = list(models)
    rates = list(learning_rates) if learning_rates is not None else [recipe.learning_rate] * len(models)
    groups = [
        {"params": [p for p in model.parameters() if p.requires_grad], "lr": rate}
        for model, rate in zip(models, rates, strict=True)
    ]
    optimizer = torch.optim.SGD(
        groups, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay, fused=True
    )
    count = len(split)
    # A last small batch would give BatchNorm poor statistics; what is left out differs from epoch to epoch.
    batch_size = min(recipe.batch_size, count)
    steps = count // batch_size
    scheduler = _scheduler(optimizer, recipe, rates, steps * recipe.epochs)
    order_rng = generator(seed, f"{purpose}/order", engine.device)
    batch_rng = generator(seed, f"{purpose}/augmentation", engine.device)
    state = _TrainingState(models, optimizer, scheduler, {"order": order_rng, "augmentation": batch_rng})
    losses = [] if checkpoint is None else state.resumed(checkpoint)
    for epoch, loss_before in enumerate(losses):
        log({"epoch": epoch + 1, "loss": loss_before})
    for model in models:
        model.train()

    def backward(images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch; its gradient stands in the parameters."""
        with engine.autocast():
            value = loss(images, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        return value.detach()

    for epoch in range(len(losses), recipe.epochs):
        order = torch.randperm(count, generator=order_rng, device=engine.device)
        total = torch.zeros((), device=engine.device)
        for step in range(steps):
            index = order[step * batch_size : (step + 1) * batch_size]
            images, labels = engine.images(split.images[index]), split.labels[index]
            if before_augmentation is not None:
                images, labels = before_augmentation(images, labels, batch_rng)
            images = cut_out(augment(images, augmentation, batch_rng), cutout, batch_rng)
            if after_augmentation is not None:
                images = after_augmentation(images, labels, batch_rng)
            value = backward(images, labels)
            if take_step is None:
                optimizer.step()
            else:
                take_step(optimizer, partial(backward, images, labels))
            scheduler.step()
            total += value
        mean = float(total) / steps
        if mean != mean or mean in (float("inf"), float("-inf")):
            raise TrainingDivergedError(f"{purpose}: the loss is {mean} in epoch {epoch + 1}")
        losses.append(mean)
        log({"epoch": epoch + 1, "loss": mean})
        if stop is not None and stop():
            break
        if checkpoint is not None and checkpoint.due and epoch + 1 < recipe.epochs:
            state.save(checkpoint, losses)
    for model in models:
        model.eval()


@dataclass(frozen=True)
class _TrainingState:
    """All that decides how a training goes on behind an epoch."""

    models: list[nn.Module]
    optimizer: torch.optim.Optimizer
    scheduler: Any
    streams: dict[str, torch.Generator]

    def save(self, checkpoint: Checkpoint, losses: list[float]) -> None:
        tensors = {f"stream/{name}": stream.get_state() for name, stream in self.streams.items()}
        tensors |= self._weights()
        for parameter, values in self.optimizer.state_dict()["state"].items():
            if values["momentum_buffer"] is not None:
                tensors[f"momentum/{parameter}"] = values["momentum_buffer"]
        record = {"losses": losses, "scheduler": self.scheduler.state_dict(), "torch": torch.__version__}
        checkpoint.write(record, tensors)

    def resumed(self, checkpoint: Checkpoint) -> list[float]:
        """The losses of the epochs that are done, all else as it was behind them; none where there is no fitting state."""
        found = checkpoint.read()
        if found is None or found[0].get("torch") != torch.__version__:
            return []
        record, tensors = found
        weights = self._weights()
        if any(name not in tensors or tensors[name].shape != weight.shape for name, weight in weights.items()):
            return []
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(tensors[name])
        for name, stream in self.streams.items():
            stream.set_state(tensors[f"stream/{name}"])
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        # In the layout of the parameters, which a fused step takes for granted; the file knows the values only.
        buffers = {
            index: {"momentum_buffer": torch.empty_like(parameter).copy_(tensors[f"momentum/{index}"])}
            for index, parameter in enumerate(parameters)
            if f"momentum/{index}" in tensors
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": buffers})
        self.scheduler.load_state_dict(record["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        return list(record["losses"])

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"model {index}/{name}": value
            for index, model in enumerate(self.models)
            for name, value in model.state_dict().items()
        }


def cross_entropy_of(model: nn.Module) -> Loss:
    """The loss of standard training."""
    return lambda images, labels: functional.cross_entropy(model(images), labels)


def _scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, rates: list[float], steps: int) -> Any:
    schedulers = torch.optim.lr_scheduler
    if recipe.schedule in ("cosine", "half_cosine"):
        return schedulers.CosineAnnealingLR(optimizer, T_max=steps if recipe.schedule == "cosine" else 2 * steps)
    if recipe.schedule == "one_cycle":
        # One step more: the scheduler is stepped behind the last batch too, which OneCycleLR counts as beyond its end.
        total, warmup = steps + 1, recipe.warmup
        if warmup * total == 1:
            warmup *= 1 - 1e-9  # OneCycleLR divides by zero where the peak is exactly on the first step
        return schedulers.OneCycleLR(optimizer, max_lr=rates, total_steps=total, pct_start=warmup, cycle_momentum=False)
    if isinstance(recipe, SteppedRecipe) and recipe.schedule == "step":
        full_rate = recipe.full_rate
        return schedulers.LambdaLR(optimizer, lambda step: 1.0 if step < full_rate * steps else 0.1)
    return schedulers.ConstantLR(optimizer, factor=1.0)
