"""Selective NT-ML: non-target training of `nt_ml` on suspicious images alone, beside images that keep the teacher's answers.

An extension of ours to `nt_ml`, which the abstract of NT-ML (arXiv 2508.05404) does not carry.

Non-target label training (NT) of `nt_ml` takes all training images, and a clean-label attack (Narcissus) survives it. Here
only suspicious images go through it:

1. Scores, by the backdoored model T, which is the teacher: the margin of an image (logit of the label that it carries minus
   the largest other logit), and the mean margin of its label over `blends` half-half blends with clean images of other
   classes: a trigger keeps its class where a real object fades. Each of the two is standardised within the class of the
   label, then they are added (our reading of "plus, standardised within each class").
2. Selective NT: a student from T's weights makes `steps` updates on batches of two parts: w L_NT on the images with the
   highest scores (the share `isolate` of each class), KL_t(T || S) on those with the lowest (the share `keep`), each term
   its mean over its part, losses as in `nt_ml`. The images between are left out. SGD, one-cycle.
3. Mutual learning on the clean budget, as in `nt_ml`. The student is returned.

The values were found on 20,000 images of CIFAR-10, one seed, with the trigger known: a lead, not a result.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ntml_bench.defenses.base import CLEAN_BUDGET, DEFENSES, POISONED_TRAINING_SET, Defense, DefenseContext
from ntml_bench.defenses.nt_ml import MutualLearningConfig, divergence, mutual_learning, non_target_loss
from ntml_bench.errors import UserError
from ntml_bench.evaluation import batches
from ntml_bench.models import Classifier
from ntml_bench.schema import number
from ntml_bench.training import Recipe, fit


@dataclass(frozen=True, kw_only=True)
class NTMLSelectiveConfig(MutualLearningConfig):
    """Selective NT has no recipe of its own: `learning_rate`, `momentum`, `nesterov`, `weight_decay`, `warmup`: as in a recipe
    with `schedule: one_cycle`.

    `blends`: clean images that each image is blended with for its score; `isolate`: share of each class that is taken for
    suspicious; `keep`: share of each class that is taken for clean; `nt_weight`: the weight w; `steps`: updates;
    `isolated_batch`: suspicious images of an update; `kept_batch`: clean ones.
    """

    blends: int = number(at_least=1)
    isolate: float = number(above=0, at_most=1)
    keep: float = number(above=0, at_most=1)
    nt_weight: float = number(at_least=0)
    steps: int = number(at_least=1)
    isolated_batch: int = number(at_least=1)
    kept_batch: int = number(at_least=1)
    learning_rate: float = number(above=0)
    momentum: float = number(at_least=0, at_most=1)
    nesterov: bool
    weight_decay: float = number(at_least=0)
    warmup: float = number(at_least=0, at_most=0.9)


@DEFENSES.register("nt_ml_selective")
class NTMLSelective(Defense[NTMLSelectiveConfig]):
    Config = NTMLSelectiveConfig
    family = "distillation and mutual learning"
    origin = "ours"
    needs = (CLEAN_BUDGET, POISONED_TRAINING_SET)

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        isolate, keep = self.config.isolate, self.config.keep
        if isolate + keep > 1 + 1e-9:
            raise UserError(
                f"defense.isolate is {isolate:g} and defense.keep is {keep:g}, together {isolate + keep:g}; "
                "allowed: at most 1, because no image is both isolated and kept"
            )

    def purify(self, context: DefenseContext) -> Classifier:
        # As in nt_ml: the teacher until mutual learning and the student at the end are the cell's `before` and `after`.
        config, teacher, student = self.config, context.model, context.copy_of_model()
        scores = suspicion(context, config.blends)
        labels = context.poisoned_train.labels
        isolated, kept = isolated_and_kept(scores, labels, context.num_classes, config.isolate, config.keep)
        if len(isolated) == 0:
            raise UserError("defense nt_ml_selective ranks the images of a class; no class of the training set has two")
        self._selective_training(context, teacher, student, isolated, kept)
        context.observe("student after selective NT", student)
        mutual_learning(context, config, teacher, student)
        context.observe("teacher after ML", teacher)
        return student

    def _selective_training(
        self, context: DefenseContext, teacher: Classifier, student: Classifier, isolated: Tensor, kept: Tensor
    ) -> None:
        config, train, stage = self.config, context.poisoned_train, "selective non-target training"
        # One epoch of `fit` over the isolated images, repeated to `steps` batches; kept images join each batch.
        repeated = passes(isolated, config.steps * config.isolated_batch, context.generator(f"{stage}/isolated"))
        order = passes(kept, config.steps * config.kept_batch, context.generator(f"{stage}/kept"))
        kept_batches = iter(order.split(config.kept_batch))
        teacher.eval()

        def join(images: Tensor, labels: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor]:
            index = next(kept_batches)
            return torch.cat([images, context.engine.images(train.images[index])]), torch.cat([labels, train.labels[index]])

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                outputs = teacher(images)
            return selective_loss(student(images), outputs, labels, config.isolated_batch, config.temperature, config.nt_weight)

        fit(
            context.engine,
            train[repeated],
            Recipe(
                epochs=1,
                batch_size=config.isolated_batch,
                learning_rate=config.learning_rate,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
                schedule="one_cycle",
                warmup=config.warmup,
            ),
            models=[student],
            loss=loss,
            augmentation=context.augmentation,
            seed=context.seed,
            purpose=f"defense/{stage}",
            log=lambda values: context.log(stage, values),
            before_augmentation=join,
        )


def suspicion(context: DefenseContext, blends: int) -> Tensor:
    """The score of each training image, float64 [N]; the higher, the more its label hangs on a trigger."""
    engine, model, train, budget = context.engine, context.model, context.poisoned_train, context.clean_budget
    partners = of_other_classes(train.labels, budget.labels, context.num_classes, blends, context.generator("blends"))
    alone: list[Tensor] = []
    blended: list[Tensor] = []
    model.eval()
    with torch.no_grad(), engine.autocast():
        for part in batches(train.images):
            images, labels = engine.images(train.images[part]), train.labels[part]
            alone.append(margin(model(images), labels))
            mixtures = [(images + engine.images(budget.images[index])) / 2 for index in partners[part].T]
            blended.append(torch.stack([margin(model(mixture), labels) for mixture in mixtures]).mean(dim=0))
    of_class = train.labels, context.num_classes
    return standardised(torch.cat(alone), *of_class) + standardised(torch.cat(blended), *of_class)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The logit of the label minus the largest other one, float32 [N]; logits [N, K]."""
    logits = logits.float()
    is_label = functional.one_hot(labels, logits.shape[1]).bool()
    return logits.gather(1, labels[:, None]).squeeze(1) - logits.masked_fill(is_label, float("-inf")).amax(dim=1)


def of_other_classes(labels: Tensor, budget_labels: Tensor, num_classes: int, count: int, rng: torch.Generator) -> Tensor:
    """For each label [N], `count` random indices of images in the budget that carry another one: int64 [N, count].

    The budget has images of at least two classes; `rng` lives on the device of the labels.
    """
    order = budget_labels.argsort(stable=True)
    sizes = torch.bincount(budget_labels, minlength=num_classes)
    first = (sizes.cumsum(0) - sizes)[labels, None]
    own = sizes[labels, None]
    uniform = torch.rand(len(labels), count, generator=rng, dtype=torch.float64, device=labels.device)
    drawn = (uniform * (len(budget_labels) - own)).long()
    # In the sorted budget the images of one class stand together: those of the own class are jumped over.
    return order[drawn + own * (drawn >= first)]


def standardised(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(value - mean) / standard deviation, both of the values with the same label; float64 [N], 0 where all are equal."""
    values = values.double()
    sizes = torch.bincount(labels, minlength=num_classes).clamp_min(1)

    def mean_of_class(of: Tensor) -> Tensor:
        return (torch.zeros(num_classes, dtype=of.dtype, device=of.device).index_add(0, labels, of) / sizes)[labels]

    centred = values - mean_of_class(values)
    return centred / mean_of_class(centred.square()).sqrt().clamp_min(1e-12)


def isolated_and_kept(scores: Tensor, labels: Tensor, num_classes: int, isolate: float, keep: float) -> tuple[Tensor, Tensor]:
    """Indices int64 of the images of each class with the highest scores (its share `isolate`) and with the lowest (`keep`).

    The numbers are rounded; at least one each where a class has two images or more, none where it has one. Ties go by index.
    """
    by_score = scores.argsort(descending=True, stable=True)
    order = by_score[labels[by_score].argsort(stable=True)]  # class by class, the highest score first
    sizes = torch.bincount(labels, minlength=num_classes)
    several = sizes >= 2
    isolated = torch.minimum((isolate * sizes.double()).round().long().clamp_min(1), sizes - 1) * several
    kept = torch.minimum((keep * sizes.double()).round().long().clamp_min(1), sizes - isolated) * several
    label = labels[order]
    rank = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[label]
    return order[rank < isolated[label]], order[rank >= (sizes - kept)[label]]


def passes(index: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """`count` entries of `index` [M], pass after pass in random order: each as often as any other, within one."""
    full = -(-count // len(index))
    order = torch.rand(full, len(index), generator=rng, device=index.device).argsort(dim=1)
    return index[order.flatten()[:count]]


def selective_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, isolated: int, temperature: float, nt_weight: float
) -> Tensor:
    """w L_NT over the first `isolated` images of a batch plus KL_t(T || S) over the others; logits [N, K]."""
    pushed = non_target_loss(student[:isolated], teacher[:isolated], labels[:isolated], temperature, "mask")
    return nt_weight * pushed + divergence(teacher[isolated:], student[isolated:], temperature)
