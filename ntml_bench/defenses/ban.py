"""BAN: the model is fine-tuned to keep its answers while noise on its neurons is made to raise the loss.

Xu, Liu, Koffas, Yu, Picek, "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise", NeurIPS 2024 (arXiv 2405.19928);
its mitigation, not its detection.

A neuron is a channel of a BatchNorm layer. Its weight is multiplied by 1 + d and its bias by 1 + e. For each batch (d, e) begin
at random in [-eps, eps] and take `steps` steps of the sign of the gradient, eps / `steps` each, up the cross-entropy. The step
on the weights is that of SGD down CE(w) + lambda CE(w with the noise), the noise a constant. BatchNorm normalises by the batch
in all passes, and its running statistics see them all. All this is as in the official code.

The noise is not put back into [-eps, eps]: a step away from a random start ends up to 2 eps from 0. The line that would do so
is commented out in the official code, as it is missing in that of `anp`.

Deviations: the images are shuffled; the official loop ends one pass earlier than it says.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.masks import Channels, require_batch_norms
from ntml_bench.models import Classifier
from ntml_bench.schema import number
from ntml_bench.training import Recipe


@dataclass(frozen=True, kw_only=True)
class BANConfig(DefenseConfig):
    """`eps`: size of the random start and of all steps together, relative to a channel's weight and bias; `steps`: of the
    search for the noise; `noise_weight`: lambda, of the loss under the noise; `recipe`: of the fine-tuning."""

    eps: float = number(at_least=0)
    steps: int = number(at_least=1)
    noise_weight: float = number(at_least=0)
    recipe: Recipe


@DEFENSES.register("ban")
class BAN(Defense[BANConfig]):
    Config = BANConfig
    family = "unlearning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        require_batch_norms("ban", model, does="perturbs")

    def purify(self, context: DefenseContext) -> Classifier:
        config, model = self.config, context.model
        channels, noise_rng = Channels(model), context.generator("noise")

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            start = torch.rand(2, len(channels.weight), generator=noise_rng, device=images.device)
            noise = adversarial_noise(channels, config.eps * (2 * start - 1), images, labels, config.eps, config.steps)
            under_noise = channels.loss(1 + noise[0], 1 + noise[1], images, labels)
            return functional.cross_entropy(model(images), labels) + config.noise_weight * under_noise

        context.fine_tune(model, config.recipe, "fine-tuning", loss=loss)
        return model


def adversarial_noise(channels: Channels, start: Tensor, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """The noise (d, e) [2, C] of a batch: `start` [2, C] and steps up the loss from there."""
    noise = start
    for _ in range(steps):
        at = noise.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(channels.loss(1 + at[0], 1 + at[1], images, labels), at)
        noise = at.detach() + eps / steps * gradient.sign()
    return noise
