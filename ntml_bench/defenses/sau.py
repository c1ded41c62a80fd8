"""SAU: the model unlearns adversarial examples that fool it and the backdoored model towards the same class.

Wei, Zhang, Zha, Wu, "Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared Adversarial Examples", NeurIPS
2023.

f is the model, r a frozen copy of the backdoored one; BatchNorm keeps its running statistics in both (eval mode). For each
batch of N clean images a perturbation of each image, at most `bound` in each pixel, begins at +`bound` everywhere and takes up
to `steps` steps of the sign of the gradient, down the loss `adversarial_weight` L_adv + `shared_weight` L_share. L_adv is -1 /
(2 N) times the cross-entropy with the true labels, of f over the images whose label by f the perturbation did not change yet,
and of r likewise. L_share is 1 / N times the Jensen-Shannon divergence of the answers of f and r, over the images that are not
shared yet: whose label both changed, to the same class. It ends where all are shared.

The step on f: the cross-entropy of the clean images, plus 1 / N times the sum of -log(1 - p) over the images that r, perturbed,
gives a label that is neither the true one nor that without the perturbation; p is the probability that f gives that label under
the perturbation, at least 0.001. Adam with amsgrad, without augmentation. Perturbed images are not clipped to [0, 1]. All this
is as in the official code.

At the start f is r, so that L_share and its gradient are 0, and L_adv alone leads the first search.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.models import Classifier
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class SAUConfig(DefenseConfig):
    """`rounds`: passes over the clean budget; `batch_size`: images of a step; `learning_rate`: Adam's, on the weights.
    `bound`: of a perturbation in each pixel; `steps`: of the search for it; `step_size`: of each; `adversarial_weight`,
    `shared_weight`: of the two losses of the search."""

    rounds: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)
    bound: float = number(at_least=0)
    steps: int = number(at_least=1)
    step_size: float = number(above=0)
    adversarial_weight: float = number(at_least=0)
    shared_weight: float = number(at_least=0)


@DEFENSES.register("sau")
class SAU(Defense[SAUConfig]):
    Config = SAUConfig
    family = "unlearning"

    def purify(self, context: DefenseContext) -> Classifier:
        config, engine, budget, model = self.config, context.engine, context.clean_budget, context.model.eval()
        backdoored = deepcopy(model).requires_grad_(False)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, amsgrad=True)
        order_rng = context.generator("order")
        for round_number in range(1, config.rounds + 1):
            order = torch.randperm(len(budget), generator=order_rng, device=engine.device)
            total, shared = torch.zeros(2, device=engine.device)
            for index in order.split(config.batch_size):
                images, labels = engine.images(budget.images[index]), budget.labels[index]
                with engine.autocast():
                    perturbed = images + self._perturbation(model, backdoored, images, labels)
                    with torch.no_grad():
                        before, after = backdoored(images).argmax(dim=1), backdoored(perturbed).argmax(dim=1)
                    logits, perturbed_logits = model(torch.cat([images, perturbed])).float().chunk(2)
                misled = (after != labels) & (after != before)
                value = functional.cross_entropy(logits, labels) + unlearning_loss(perturbed_logits, after, misled)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                optimizer.step()
                total += value.detach() * len(index)
                shared += (misled & (perturbed_logits.detach().argmax(dim=1) == after)).sum()
            values = {"loss": float(total) / len(budget), "shared": float(shared) / len(budget)}
            context.log("unlearning", {"epoch": round_number, **values})
        return model

    def _perturbation(self, model: Classifier, backdoored: Classifier, images: Tensor, labels: Tensor) -> Tensor:
        """What is added to images [N, C, H, W] so that both models err alike, within the bound."""
        config = self.config
        with torch.no_grad():
            answers, backdoored_answers = model(images).argmax(dim=1), backdoored(images).argmax(dim=1)
        delta = torch.full_like(images, config.bound)
        for _ in range(config.steps):
            delta.requires_grad_()
            logits, backdoored_logits = model(images + delta), backdoored(images + delta)
            found, backdoored_found = logits.argmax(dim=1), backdoored_logits.argmax(dim=1)
            changed, backdoored_changed = found != answers, backdoored_found != backdoored_answers
            shared = changed & backdoored_changed & (found == backdoored_found)
            adversarial = _over(functional.cross_entropy(logits, labels, reduction="none"), ~changed)
            adversarial = adversarial + _over(
                functional.cross_entropy(backdoored_logits, labels, reduction="none"), ~backdoored_changed
            )
            apart = _over(divergence(logits, backdoored_logits), ~shared)
            value = -config.adversarial_weight * adversarial / 2 + config.shared_weight * apart
            (gradient,) = torch.autograd.grad(value, delta)
            delta = (delta.detach() - config.step_size * gradient.sign()).clamp(-config.bound, config.bound)
            if bool(shared.all()):
                break
        return delta


def _over(values: Tensor, chosen: Tensor) -> Tensor:
    """The sum of the chosen values [N], divided by N."""
    return (values * chosen).sum() / len(values)


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """The Jensen-Shannon divergence [N] of two models' answers, logits [N, K], in nats; of probabilities of at least 1e-8."""
    one, two = logits.softmax(dim=1).clamp_min(1e-8), other.softmax(dim=1).clamp_min(1e-8)
    middle = (one + two) / 2
    return (one * (one / middle).log() + two * (two / middle).log()).sum(dim=1) / 2


def unlearning_loss(logits: Tensor, classes: Tensor, chosen: Tensor) -> Tensor:
    """1 / N times the sum over the chosen of N images of -log(1 - p), p the probability of the class [N] that is unlearned."""
    probability = logits.softmax(dim=1).gather(1, classes[:, None])[:, 0].clamp_min(0.001)
    return _over(-(1 + 1e-6 - probability).log(), chosen)
