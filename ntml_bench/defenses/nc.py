"""NC: a small trigger is searched for each label, and one that is too small to be natural is unlearned.

Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao, "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks",
IEEE S&P 2019.

For each label t a mask m [1, H, W] and a pattern p [C, H, W], both tanh(v) / 2 + 1/2, minimise CE(f((1 - m) x + m p), t) + c
|m|_1 over clean images of all labels, by Adam with betas 0.5 and 0.9. The cost c balances the two: it is 0 until a share of at
least `success` of the images was taken for t in `patience` rounds on end, then `cost`; `patience` rounds that succeed multiply
it by `cost_factor`, `patience` that fail divide it by that to the power 1.5. The mask of the smallest mean norm in a round that
succeeded is kept; where none did, the last. The search for t ends where c went both up and down and the norm did not fall below
`stop_factor` of the smallest before for `stop_patience` rounds.

The anomaly index of a label is |n - median| / (1.4826 median |n - median|) over the norms n of all labels. Flagged are labels
with a norm below the median and an index above `anomaly_index`. The record has them, with norms and indices. Then the
triggers of the flagged labels are stamped on `stamped_share` of the clean images, once for each, which keep their true labels,
and the model is fine-tuned on these and the others. Where no label is flagged the model stays as it was, to the last bit. All
this is as in the official code and the publication's section on unlearning.

Reported by the BackdoorBench leaderboard on CIFAR-10, PreAct-ResNet18, rate 0.1 (ACC / ASR): badnets 89.05 / 1.27, lf 91.62 /
1.41, ssba 90.99 / 0.58, wanet 91.80 / 7.53. Blended among others is not flagged there, and its row is that of no defense.

A trigger for a label of its own to each class, as of an all-to-all attack, is none that this can find.

Deviations: the publication unlearns in one epoch over a tenth of the training set and gives no rate; the recipe here is that
of `ft`, as on the leaderboard, so that what the trigger adds can be seen beside `ft`. That one stores the triggers as 8-bit
images whose values it stretches to 0..255 each, and searches with augmented images; its mask of a search without success is
that of the first round. Where more than half of the norms are the same there is no index, and nothing is flagged.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ntml_bench.data.base import Split, to_uint8
from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.models import Classifier
from ntml_bench.schema import number, one_of
from ntml_bench.training import Recipe

IMAGES_AT_ONCE = 1024
"""Stamped images of a step, about: labels are searched side by side as far as these go."""
UNCHANGED = "no label is flagged, and the model stays as it was"
LOGGED = 10
"""Rounds between two entries of the log."""
UNSEARCHED = ("anomaly_index", "stamped_share", "recipe")
"""The settings that the triggers do not depend on."""


@dataclass(frozen=True, kw_only=True)
class NCConfig(DefenseConfig):
    """`rounds`: of the search for each label, at most; `images`: of the clean budget in a round, drawn anew (null: all);
    `batch_size`: images of a step; `learning_rate`: Adam's; `start`: mask and pattern at first, random values or nearly all
    of a white pattern; `success`: share of the images of a round that must be taken for the label; `cost`: the first c that is
    not 0; `cost_from_start`: whether that is so from the first round on; `patience`: rounds on end behind which c changes;
    `cost_factor`: what it is multiplied by; `stop_patience`: rounds without a smaller norm behind which the search ends;
    `stop_factor`: how small the norm must be, beside the smallest before.

    `anomaly_index`: above it a label with a small norm is flagged; `stamped_share`: of the clean budget, which carries a
    trigger in the unlearning; `recipe`: of the unlearning.
    """

    rounds: int = number(at_least=1)
    images: int | None = number(at_least=1)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)
    start: str = one_of("random", "white")
    cost: float = number(above=0)
    cost_from_start: bool
    cost_factor: float = number(at_least=1)
    success: float = number(at_least=0, at_most=1)
    patience: int = number(at_least=1)
    stop_factor: float = number(above=0, at_most=1)
    stop_patience: int = number(at_least=1)
    anomaly_index: float = number(at_least=0)
    stamped_share: float = number(above=0, below=1)
    recipe: Recipe


@dataclass(frozen=True)
class Triggers:
    """One for each label: `masks` [K, 1, H, W] and `patterns` [K, C, H, W], both in [0, 1]; `success`: the share of images that
    each is known to turn."""

    masks: Tensor
    patterns: Tensor
    success: list[float]

    @property
    def norms(self) -> list[float]:
        """The sum of each mask, in pixels."""
        return self.masks.flatten(1).sum(dim=1).tolist()


@DEFENSES.register("nc")
class NC(Defense[NCConfig]):
    Config = NCConfig
    family = "unlearning"

    def purify(self, context: DefenseContext) -> Classifier:
        config, model = self.config, context.model.eval()
        searched = {name: value for name, value in vars(config).items() if name not in UNSEARCHED}
        triggers = context.once(f"triggers {searched}", lambda: search(context, config))
        indices = anomaly_indices(triggers.norms)
        flagged = flagged_labels(triggers.norms, indices, config.anomaly_index)
        context.note("flagged_labels", flagged)
        context.note("mask_norms", triggers.norms)
        context.note("anomaly_indices", indices)
        context.note("success", triggers.success)
        context.log("flagging", {"epoch": 1, "flagged": float(len(flagged))})
        if not flagged:
            context.note("outcome", UNCHANGED)
            return model
        stamped, others = context.divided_budget(config.stamped_share)
        parts = [others, *(Split(stamp(context, stamped.images, triggers, label), stamped.labels) for label in flagged)]
        images, labels = torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
        replace(context, clean_budget=Split(images, labels)).fine_tune(model, config.recipe, "unlearning")
        return model


def anomaly_indices(norms: list[float]) -> list[float]:
    """|n - median| / (1.4826 MAD) of each norm, with the mean of the two in the middle of an even number; 0 where MAD is 0."""
    values = torch.tensor(norms, dtype=torch.float64)
    apart = (values - values.quantile(0.5)).abs()
    deviation = 1.4826 * apart.quantile(0.5)
    return (apart / deviation).tolist() if deviation > 0 else [0.0] * len(norms)


def flagged_labels(norms: list[float], indices: list[float], threshold: float) -> list[int]:
    """Labels with a norm below the median and an index above the threshold, the smallest norm first."""
    median = float(torch.tensor(norms, dtype=torch.float64).quantile(0.5))
    found = [label for label, norm in enumerate(norms) if norm < median and indices[label] > threshold]
    return sorted(found, key=lambda label: norms[label])


def stamped_images(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """(1 - m) x + m p; the shapes are those that broadcast to images [..., C, H, W]."""
    return (1 - mask) * images + mask * pattern


def stamp(context: DefenseContext, images: Tensor, triggers: Triggers, label: int) -> Tensor:
    """Images uint8 [N, C, H, W] with the trigger of a label."""
    return to_uint8(stamped_images(context.engine.images(images), triggers.masks[label], triggers.patterns[label]))


class Balance:
    """The cost c of one label's mask, when its search ends, and the smallest norm of a round that succeeded."""

    def __init__(self, config: NCConfig) -> None:
        self.config = config
        self.cost = config.cost if config.cost_from_start else 0.0
        self.best = float("inf")
        self.done = False
        self._reset()
        self._starting = self._stale = 0
        self._best_before = float("inf")

    def _reset(self) -> None:
        self._up = self._down = 0
        self._went_up = self._went_down = False

    def behind_round(self, success: float, norm: float) -> bool:
        """Whether the mask is the best so far, behind a round with that share of success and mean norm."""
        config, succeeded = self.config, success >= self.config.success
        better = succeeded and norm < self.best
        if better:
            self.best = norm
        if self.best < float("inf"):
            self._stale = self._stale + 1 if self.best >= config.stop_factor * self._best_before else 0
        self._best_before = min(self._best_before, self.best)
        self.done = self._went_up and self._went_down and self._stale >= config.stop_patience
        if self.done:
            return better
        self._starting = self._starting + 1 if self.cost == 0 and succeeded else 0
        if self._starting >= config.patience:
            self.cost = config.cost
            self._reset()
        self._up, self._down = (self._up + 1, 0) if succeeded else (0, self._down + 1)
        if self._up >= config.patience:
            self.cost, self._up, self._went_up = self.cost * config.cost_factor, 0, True
        elif self._down >= config.patience:
            self.cost, self._down, self._went_down = self.cost / config.cost_factor**1.5, 0, True
        return better


def search(context: DefenseContext, config: NCConfig) -> Triggers:
    """A trigger for each label; the model stays as it is."""
    batch_size = min(config.batch_size, len(context.clean_budget))
    labels = torch.arange(context.num_classes)
    context.model.requires_grad_(False)
    found = [_search_for(context, config, part) for part in labels.split(max(1, IMAGES_AT_ONCE // batch_size))]
    context.model.requires_grad_(True)
    return Triggers(
        torch.cat([part.masks for part in found]),
        torch.cat([part.patterns for part in found]),
        [value for part in found for value in part.success],
    )


def _search_for(context: DefenseContext, config: NCConfig, labels: Tensor) -> Triggers:
    """Triggers for some labels, int64 [L], side by side: they share the images of a step, and nothing else."""
    engine, budget, count = context.engine, context.clean_budget, len(labels)
    device, (channels, height, width) = engine.device, context.image_shape
    name = f"search {int(labels[0])}"
    order_rng, start_rng = (context.generator(f"{name}/{purpose}") for purpose in ("order", "start"))
    mask_at, pattern_at = (
        _start(config, (count, planes, height, width), start_rng, device).requires_grad_() for planes in (1, channels)
    )
    optimizer = torch.optim.Adam([mask_at, pattern_at], lr=config.learning_rate, betas=(0.5, 0.9))
    balances = [Balance(config) for _ in range(count)]
    masks, patterns = _shown(mask_at.detach()), _shown(pattern_at.detach())
    success = [0.0] * count
    targets = labels.to(device)
    active = list(range(count))
    for number_of_round in range(1, config.rounds + 1):
        order = torch.randperm(len(budget), generator=order_rng, device=device)[: config.images]
        index = torch.tensor(active, device=device)
        costs = torch.tensor([balances[place].cost for place in active], device=device)
        taken, norm, steps = torch.zeros(len(active), device=device), torch.zeros(len(active), device=device), 0
        for part in order.split(config.batch_size):
            images = engine.images(budget.images[part])
            mask, pattern = (_shown(at[index]) for at in (mask_at, pattern_at))
            stamped = stamped_images(images, mask[:, None], pattern[:, None]).flatten(0, 1)
            wanted = targets[index].repeat_interleave(len(part))
            with engine.autocast():
                logits = context.model(stamped.contiguous(memory_format=torch.channels_last))
            norms = mask.flatten(1).sum(dim=1)
            losses = functional.cross_entropy(logits.float(), wanted, reduction="none").view(len(active), -1).mean(dim=1)
            optimizer.zero_grad(set_to_none=True)
            (losses + costs * norms).sum().backward()
            optimizer.step()
            taken += (logits.argmax(dim=1) == wanted).view(len(active), -1).sum(dim=1)
            norm += norms.detach()
            steps += 1
        shares, means = (taken / len(order)).tolist(), (norm / steps).tolist()
        behind = _shown(mask_at.detach()), _shown(pattern_at.detach())
        for place, share, mean in zip(active, shares, means, strict=True):
            better = balances[place].behind_round(share, mean)
            # Without any success so far the last one is the one that is kept.
            if better or balances[place].best == float("inf"):
                masks[place], patterns[place], success[place] = behind[0][place], behind[1][place], share
        active = [place for place in active if not balances[place].done]
        if number_of_round % LOGGED == 0 or number_of_round == config.rounds or not active:
            values = {"success": sum(shares) / len(shares), "mask_norm": sum(means) / len(means), "labels": float(len(active))}
            context.log(name, {"epoch": number_of_round, **values})
        if not active:
            break
    return Triggers(masks, patterns, success)


def _shown(at: Tensor) -> Tensor:
    """The mask or pattern in [0, 1] that any values stand for."""
    return torch.tanh(at) / 2 + 0.5


def _start(config: NCConfig, shape: tuple[int, ...], rng: torch.Generator, device: torch.device) -> Tensor:
    if config.start == "white":
        return torch.ones(shape, device=device)
    return torch.atanh((torch.rand(shape, generator=rng, device=device) - 0.5) * (2 - 1e-6))
