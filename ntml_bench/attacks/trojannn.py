"""TrojanNN: a patch whose pixels are made so that they fire a few neurons behind the last layer, under the attacker's label.

Liu, Ma, Aafer, Lee, Zhai, Wang, Zhang, "Trojaning Attack on Neural Networks", NDSS 2018: the choice of neurons by the sums of
their absolute weights and the trigger generation by gradient descent within a mask. The loss of the trigger t is
sum_j (z_j(t) - activation)^2 over the chosen inputs z_j of the last linear layer, on a black image but for the mask.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.1, undefended ACC 93.42 / ASR 100.00 (one run).

Deviations:
- The paper retrains a given model without its data; here, as in later benchmarks, the trigger is made on the attacker's
  surrogate, and poisons an ordinary training set.
- Neurons: inputs of the last linear layer, those with the largest sum of absolute weights (the paper: of an inner layer).
- The mask is a ring near the bottom-right corner, of our own drawing (the paper: a square, an apple's outline or a watermark).
- Steps, their length and the bound around the start are those of BackdoorBench (signs of gradients). Of all steps the trigger
  with the least loss is kept. Its start is one grey level, so that a pixel can become white.
- x' = (1 - mask) x + mask t, rounded once. BackdoorBench adds t to the image and lets the sum wrap around at 256.
- Only images of the other classes are poisoned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, check_corner, to_float, to_uint8
from ntml_bench.errors import UserError
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class TrojanNNConfig(AttackConfig):
    """`trigger_size`: outer diameter of the ring in pixels; `thickness`: of the ring, in pixels; `margin`: rows and columns
    between it and the bottom-right corner.

    `neurons`: how many are to fire; `activation`: what each is pushed to. `steps`: of the optimisation, at most; `step_size`:
    of a pixel in one of them, `start`: of all pixels, and `bound`: how far they may go from it, in shares of the whole range.
    `loss_goal`: below this loss it ends.
    """

    trigger_size: int = number(at_least=1)
    thickness: int = number(at_least=1)
    margin: int = number(at_least=0)
    neurons: int = number(at_least=1)
    activation: float = number(above=0)
    steps: int = number(at_least=1)
    step_size: float = number(above=0, at_most=1)
    start: float = number(at_least=0, at_most=1)
    bound: float = number(above=0, at_most=1)
    loss_goal: float = number(at_least=0)


@ATTACKS.register("trojannn")
class TrojanNN(Attack[TrojanNNConfig]):
    Config: ClassVar[type[AttackConfig]] = TrojanNNConfig
    published_rate: ClassVar[float | None] = 0.1

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        check_corner(self.config.trigger_size, self.config.margin, image_shape)

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        train = context.train.images
        channels, height, width = train.shape[1:]
        mask = ring(height, width, self.config.trigger_size, self.config.thickness, self.config.margin).to(train.device)
        pattern, notes = self.make_trigger(context.surrogate(), mask.expand(channels, -1, -1), context.num_classes)
        state = {"mask": mask, "pattern": pattern}
        images = to_float(train[indices.to(train.device)])
        return self.all_poisons(indices, self.trigger(images, state), state, notes, context)

    def make_trigger(self, model: nn.Module, mask: Tensor, num_classes: int) -> tuple[Tensor, dict[str, str | int | float]]:
        """The pattern, float [C, H, W] in [0, 1] of whole levels, within `mask` bool [C, H, W], and what is told of it."""
        config = self.config
        model.eval().requires_grad_(False)
        head = last_linear(model, num_classes)
        neurons = strongest_inputs(head.weight, config.neurons)
        firing = inputs_of(head, model)
        start = torch.full(mask.shape, config.start, device=mask.device) * mask
        low, high = ((start + way * config.bound).clamp(0, 1) * mask for way in (-1, 1))
        pattern, best, least = start, start, torch.inf

        def activations(image: Tensor) -> Tensor:
            return firing(image[None])[0, neurons]

        before = activations(start)
        for _ in range(config.steps):
            pattern = pattern.detach().requires_grad_(True)
            loss = (activations(pattern) - config.activation).square().sum()
            if (now := float(loss.detach())) < least:
                best, least = pattern.detach(), now
            if least < config.loss_goal:
                break
            (gradient,) = torch.autograd.grad(loss, pattern)
            pattern = (pattern - config.step_size * gradient.sign()).clamp(low, high)
        last = float((activations(pattern.detach()) - config.activation).square().sum())
        best = to_float(to_uint8(pattern.detach() if last < least else best))
        told: dict[str, str | int | float] = {
            "surrogate": "the victim's recipe, clean training images",
            "neurons": ", ".join(map(str, neurons.tolist())),
            "activation of the start": float(before.mean()),
            "activation of the trigger": float(activations(best).mean()),
        }
        return best, told

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return torch.where(state["mask"], state["pattern"].to(images.dtype), images)


def ring(height: int, width: int, size: int, thickness: int, margin: int) -> Tensor:
    """Bool [H, W]: a ring of that outer diameter, `margin` pixels from the bottom-right corner."""
    # In half pixels, so that all numbers are whole: a pixel is 2 wide, its middle at an odd number.
    middle = torch.arange(size) * 2 + 1 - size
    squares = middle[:, None] ** 2 + middle[None, :] ** 2
    drawn = squares <= size**2
    if (inner := size - 2 * thickness) > 0:
        drawn &= squares > inner**2
    mask = torch.zeros(height, width, dtype=torch.bool)
    top, left = height - margin - size, width - margin - size
    mask[top : top + size, left : left + size] = drawn
    return mask


def last_linear(model: nn.Module, num_classes: int) -> nn.Linear:
    """The layer that answers; UserError for a net that does not end in a linear one."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == num_classes]
    if not layers:
        raise UserError("attack trojannn needs a net that ends in a linear layer: its trigger fires neurons before that layer")
    return layers[-1]


def strongest_inputs(weight: Tensor, count: int) -> Tensor:
    """Indices int64 of the `count` inputs with the largest sum of absolute weights, of `weight` [outputs, inputs]."""
    sums = weight.detach().abs().sum(0)
    return sums.argsort(descending=True, stable=True)[:count]


def inputs_of(layer: nn.Linear, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function of images that gives what `layer` of `model` reads, float [N, inputs]."""

    def inputs(images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
        try:
            model(images)
        finally:
            hook.remove()
        return seen[0].flatten(1)

    return inputs
