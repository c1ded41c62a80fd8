"""NAD: the student is fine-tuned towards the attention maps of a fine-tuned teacher.

Li et al., "Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural Networks", ICLR 2021.

A teacher is the backdoored model, fine-tuned on the clean budget. The student, the backdoored model, is fine-tuned with
the cross-entropy and, at the last stages of the net, the distance of its attention map to the teacher's (section 3.2): A
= sum over channels of |F|^2, flattened, divided by its L2 norm; weights 500, 1000, 1000. Maps are taken before the pool.

Steps are those of the public code (bboylyg/NAD): SGD with Nesterov momentum and weight decay 1e-4, learning rate 0.1 in the
first 2 of 20 epochs and 0.01 in the others, the rate that its backdoored models are trained with; crop, flip and a hole of
2x2 pixels (Cutout with `length` 3, of which its halves make 2).

Deviations: that code loads its teacher from a file; here it makes the 10 epochs of the publication, 2 of them at 0.1 as the
student. Its default is one map with weight 5000; the weights here are those of the publication.

The distance is a mean over the pixels of a map, as in that code, and its net (WRN-16-1) has maps of 32, 16 and 8 pixels a
side: on a net with smaller ones the same weight counts for more. Only the family `cpu` allows for it so far.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext, feature_maps
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.schema import number
from ntml_bench.training import SteppedRecipe, fit


@dataclass(frozen=True, kw_only=True)
class NADConfig(DefenseConfig):
    """`attention_weights`: one for each of as many last stages of the net; `cutout`: side of the hole in an image in pixels;
    `teacher`: recipe of the teacher's fine-tuning; `student`: of the student's."""

    attention_weights: list[float]
    cutout: int = number(at_least=0)
    teacher: SteppedRecipe
    student: SteppedRecipe


@DEFENSES.register("nad")
class NAD(Defense[NADConfig]):
    Config = NADConfig
    family = "distillation and mutual learning"
    version = 2

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        count = len(self.config.attention_weights)
        if count == 0:
            raise UserError("defense.attention_weights is []; allowed: one for each of the last stages, at least one")
        smallest = min(image_shape[1:])
        if self.config.cutout > smallest:
            raise UserError(f"defense.cutout is {self.config.cutout}; allowed: 0 to {smallest}, the smaller side of the images")
        stages = model.stages(count)
        channels = [stage["num_chs"] for stage in list(cast(Any, model.net).feature_info)[-count:]]
        try:
            with torch.no_grad():
                _, maps = feature_maps(model.eval(), stages, torch.zeros(1, *image_shape))
        except KeyError:  # a stage that the forward pass does not call
            maps = []
        if [(features.dim(), features.shape[1]) for features in maps] != [(4, width) for width in channels]:
            raise UserError(f"defense nad needs feature maps [N, C, H, W]; the stages of {type(model.net).__name__} give none")

    def purify(self, context: DefenseContext) -> Classifier:
        config = self.config
        student = context.model

        def fine_tuned() -> Classifier:
            teacher = deepcopy(student)
            context.fine_tune(teacher, config.teacher, "teacher", config.cutout)
            return teacher.requires_grad_(False)

        teacher = context.once(f"teacher {config.teacher!r}, cutout {config.cutout}", fine_tuned)
        context.observe("teacher", teacher)
        count = len(config.attention_weights)
        student_stages, teacher_stages = student.stages(count), teacher.stages(count)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                _, teacher_maps = feature_maps(teacher, teacher_stages, images)
            logits, student_maps = feature_maps(student, student_stages, images)
            total = functional.cross_entropy(logits, labels)
            for weight, ours, theirs in zip(config.attention_weights, student_maps, teacher_maps, strict=True):
                total = total + weight * functional.mse_loss(attention(ours), attention(theirs))
            return total

        fit(
            context.engine,
            context.clean_budget,
            config.student,
            models=[student],
            loss=loss,
            augmentation=context.augmentation,
            seed=context.seed,
            purpose="defense/student",
            log=lambda values: context.log("student", values),
            cutout=config.cutout,
        )
        return student


def attention(features: Tensor) -> Tensor:
    """Feature maps [N, C, H, W] to attention maps [N, H * W] of L2 norm 1, in float32."""
    return functional.normalize(features.float().pow(2).sum(dim=1).flatten(1), dim=1)
