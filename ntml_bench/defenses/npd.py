"""NPD: a linear layer is inserted into the frozen model and learns to filter what adversarial perturbations put in.

Zhu, Wei, Zha, Wu, "Neural Polarizer: A Lightweight and Effective Backdoor Defense via Purifying Poisoned Features", NeurIPS
2023 (arXiv 2306.16697).

In front of the first convolution of the last block stands the polarizer, a 1x1 convolution of C channels to C without a bias,
at first the identity, and a BatchNorm layer. It alone learns. In a short warm-up by the cross-entropy alone its BatchNorm finds
its statistics; from then on they stay, and so do those of the net.

A step on clean images x with labels y: t is the most probable class beside y. From 0, delta takes up to `steps` steps against
the sign of the gradient of CE(f(x + delta), t), put back to an L2 norm of `radius`, x + delta to [0, 1], until more than
`success` of the batch are taken for t. With p the probabilities of x + delta, n their largest class, or the second where that
is y, the loss is CE(f(x), y) + a CE(f(x + delta), the label that f gives x) - b log(1.0001 - p_n) - c log(1.0001 - p_t). SGD,
without augmentation, at a constant rate. All this is as in the official code.

The result is another net: the polarizer is saved within it, measured with it, and loaded with it. The official code saves the
bare net and the polarizer as two files; who loads the first one alone has the undefended model.

Deviations: y cannot be t, where the official code sets its logit to -10, which the others may fall below; a last batch that is
not full is left out of a pass. Its code knows one net, PreAct-ResNet18, and the layer layer4.1.conv1, which is what is chosen
there. On Tiny ImageNet it trains without a warm-up, with BatchNorm in training mode, and its search steps by the gradient
itself, not by its sign.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.data.base import AugmentationConfig
from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.convolutions import convolutions
from ntml_bench.errors import UserError, unknown
from ntml_bench.models import Classifier, polarize
from ntml_bench.schema import number
from ntml_bench.training import Loss, Recipe, cross_entropy_of


@dataclass(frozen=True, kw_only=True)
class NPDConfig(DefenseConfig):
    """`layer`: the name of the convolution that the polarizer stands in front of (null: the first of the last block, or of the
    last stage where that is no plain sequence of blocks). `warmup_epochs`, `warmup_learning_rate`: of the warm-up, by SGD
    without momentum and weight decay; `recipe`: of the training behind it, its batches those of both.

    `radius`: L2 bound of a perturbation, pixels from 0 to 1; `step_size`: of a step in each pixel; `steps`: of the search, at
    most; `success`: share of a batch behind which it ends. `consistency_weight`: a, for the label that the image gets without
    the perturbation; `answer_weight`: b, against the likeliest wrong one; `target_weight`: c, against the one searched for."""

    layer: str | None
    warmup_epochs: int = number(at_least=0)
    warmup_learning_rate: float = number(above=0)
    recipe: Recipe
    radius: float = number(above=0)
    step_size: float = number(above=0)
    steps: int = number(at_least=1)
    success: float = number(at_least=0, at_most=1)
    consistency_weight: float = number(at_least=0)
    answer_weight: float = number(at_least=0)
    target_weight: float = number(at_least=0)


@DEFENSES.register("npd")
class NPD(Defense[NPDConfig]):
    Config = NPDConfig
    family = "unlearning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        place_of(model, self.config.layer, image_shape)

    def purify(self, context: DefenseContext) -> Classifier:
        config, model = self.config, context.model.eval()
        polarizer = polarize(model, *place_of(model, config.layer, context.image_shape)).polarizer
        model.requires_grad_(False)
        polarizer.requires_grad_(True)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            polarizer.eval()
            return polarizing_loss(model, images, labels, config)

        if config.warmup_epochs > 0:
            warmup = replace(
                config.recipe,
                epochs=config.warmup_epochs,
                learning_rate=config.warmup_learning_rate,
                momentum=0.0,
                nesterov=False,
                weight_decay=0.0,
                schedule="constant",
            )
            self._learn(context, polarizer, warmup, cross_entropy_of(model), "warm-up")
        self._learn(context, polarizer, config.recipe, loss, "polarizing")
        return model.requires_grad_(True)

    def _learn(self, context: DefenseContext, polarizer: nn.Module, recipe: Recipe, loss: Loss, stage: str) -> None:
        plain = replace(context, augmentation=AugmentationConfig(crop_padding=0, horizontal_flip=False))
        plain.fine_tune(polarizer, recipe, stage, loss=loss)


def place_of(model: Classifier, layer: str | None, image_shape: tuple[int, int, int]) -> tuple[str, int]:
    """The name of the convolution that a polarizer is to stand in front of, and how many channels the convolution reads.

    `layer`: its name; None: it is chosen. The model is run in eval mode on one image of noise. UserError where there is no such
    layer, or where it does not read feature maps [N, C, H, W] once in a pass.
    """
    net, found = type(model.net).__name__, convolutions(model.net)
    if layer is None:
        layer = _first_of_last_block(model)
    elif layer not in found:
        raise unknown(f"convolution of {net} in defense.layer", layer, found)
    seen: list[torch.Size] = []
    hook = found[layer].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    image = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0)).to(model.mean.device)
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        hook.remove()
    if len(seen) != 1 or len(seen[0]) != 4:
        raise UserError(
            f"defense npd inserts a layer in front of {layer} of {net}, which reads {len(seen)} inputs in a pass; "
            "defense.layer must name a convolution that reads feature maps [N, C, H, W] once"
        )
    return layer, seen[0][1]


def _first_of_last_block(model: Classifier) -> str:
    block = model.stages(1)[0]
    while isinstance(block, nn.Sequential):
        inner = [child for child in block if convolutions(child)]
        if not inner:
            break
        block = inner[-1]
    first = next(iter(convolutions(block).values()), None)
    for name, layer in convolutions(model.net).items():
        if layer is first:
            return name
    raise UserError(
        f"defense npd needs a convolution in the last stage; that of {type(model.net).__name__} has none, and defense.layer "
        "names none either"
    )


def polarizing_loss(model: nn.Module, images: Tensor, labels: Tensor, config: NPDConfig) -> Tensor:
    """The loss of a batch of clean images [N, C, H, W] with labels [N], a scalar."""
    logits = model(images).float()
    answers, targets = logits.detach().argmax(dim=1), likeliest_others(logits.detach(), labels)
    perturbed = perturbed_towards(model, images, targets, config)
    perturbed_logits = model(perturbed).float()
    probabilities = perturbed_logits.softmax(dim=1)
    return (
        functional.cross_entropy(logits, labels)
        + config.consistency_weight * functional.cross_entropy(perturbed_logits, answers)
        + config.answer_weight * unlikelihood(probabilities, likeliest_others(probabilities.detach(), labels))
        + config.target_weight * unlikelihood(probabilities, targets)
    )


def likeliest_others(scores: Tensor, labels: Tensor) -> Tensor:
    """The class of the largest score [N, K] that is not the label [N], int64 [N]."""
    return scores.scatter(1, labels[:, None], float("-inf")).argmax(dim=1)


def unlikelihood(probabilities: Tensor, classes: Tensor) -> Tensor:
    """The mean of -log(1.0001 - p) over the images, p the probability [N, K] of the class [N]."""
    return -(1.0001 - probabilities.gather(1, classes[:, None])).log().mean()


def perturbed_towards(model: nn.Module, images: Tensor, targets: Tensor, config: NPDConfig) -> Tensor:
    """Images [N, C, H, W] in [0, 1] that are perturbed, within the radius, so that they are taken for the targets [N]."""
    delta = torch.zeros_like(images)
    for step in range(1, config.steps + 1):
        delta.requires_grad_()
        value = functional.cross_entropy(model((images + delta).clamp(0, 1)).float(), targets)
        (gradient,) = torch.autograd.grad(value, delta)
        delta = delta.detach() - config.step_size * gradient.sign()
        norms = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
        delta = delta * (config.radius / norms).clamp_max(1)[:, None, None, None]
        if step < config.steps:
            with torch.no_grad():
                taken = model((images + delta).clamp(0, 1)).argmax(dim=1) == targets
            if bool(taken.double().mean() > config.success):
                break
    return (images + delta).clamp(0, 1)
