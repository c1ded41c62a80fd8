"""SSBA, sample-specific: an encoder hides one bit string in each image, by a faint residual of the image's own.

Li, Li, Wu, Li, He, Lyu, "Invisible Backdoor Attack with Sample-Specific Triggers", ICCV 2021 (arXiv 2012.03816): the trigger
x' = clip(x + r), r = E(x, s), with one secret s for the whole attack and a decoder that reads it back. The nets are smaller
ones of the kind of StegaStamp (Tancik, Mildenhall, Ng, CVPR 2020), which the paper takes: the secret becomes a small image by a
linear layer and stands beside the image as more channels of a U-net; the decoder is a stack of strided convolutions.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.1, undefended ACC 92.88 / ASR 97.86 (one run).

Deviations:
- Encoder and decoder are trained here, on the training images alone, with secrets drawn anew for each image. BackdoorBench
  takes images that were encoded elsewhere.
- The loss is the decoder's cross-entropy alone. How visible the residual may be is a bound instead of a second loss: one
  with a larger mean square than `psnr` allows is scaled down to it. No LPIPS, no critic, no print-and-scan noise.
- The nets have three levels, `width` to four times as many channels, and train for `steps` minibatches.
- The record says what share of the bits the decoder reads on 8-bit images, with and without the trigger, the mean PSNR, and how
  much alike the residuals of two images are (their mean cosine: 1 is one pattern for all).
- Only images of the other classes are poisoned.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, to_float, to_uint8
from ntml_bench.models.classifier import global_stream
from ntml_bench.schema import number
from ntml_bench.seeding import derive

ENCODER, SECRET = "encoder/", "secret"
CHECKED = 500
"""Training images on which encoder and decoder are looked at, and images that are encoded at a time."""


@dataclass(frozen=True, kw_only=True)
class SsbaConfig(AttackConfig):
    """`bits`: of the secret; `psnr`: the least that the residual alone may have, in decibels.

    `width`: channels of the first level of encoder and decoder. `steps`: minibatches that they are trained on; `batch_size`:
    images of one; `learning_rate`: Adam's.
    """

    bits: int = number(at_least=1)
    psnr: float = number(above=0)
    width: int = number(at_least=1)
    steps: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)


@ATTACKS.register("ssba")
class Ssba(Attack[SsbaConfig]):
    Config: ClassVar[type[AttackConfig]] = SsbaConfig
    published_rate: ClassVar[float | None] = 0.1

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        train = context.train.images
        secret = torch.randint(2, (self.config.bits,), generator=context.generator("ssba/secret")).float().to(train.device)
        encoder, decoder = self.trained(context)
        state = {SECRET: secret} | {ENCODER + name: value.detach() for name, value in encoder.state_dict().items()}
        notes = self.measured(train, state, decoder)
        images = to_float(train[indices.to(train.device)])
        return self.all_poisons(indices, self.trigger(images, state), state, notes, context)

    def trained(self, context: AttackContext) -> tuple[nn.Module, nn.Module]:
        """Encoder and decoder."""
        config, train = self.config, context.train.images
        shape = (int(train.shape[1]), int(train.shape[2]), int(train.shape[3]))
        with global_stream(derive(context.seed, "attack/ssba/initialisation")):
            encoder, decoder = Encoder(shape, config.bits, config.width), Decoder(shape, config.bits, config.width)
        encoder, decoder = encoder.to(train.device), decoder.to(train.device)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=config.learning_rate)
        rng = context.generator("ssba/minibatches")
        for _ in range(config.steps):
            index = torch.randint(len(train), (config.batch_size,), generator=rng).to(train.device)
            secrets = torch.randint(2, (config.batch_size, config.bits), generator=rng).float().to(train.device)
            images = to_float(train[index])
            read = decoder(encoded(images, encoder(images, secrets), config.psnr))
            loss = F.binary_cross_entropy_with_logits(read, secrets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return encoder.eval().requires_grad_(False), decoder.eval().requires_grad_(False)

    def measured(self, train: Tensor, state: dict[str, Tensor], decoder: nn.Module) -> dict[str, str | int | float]:
        """What the record says, of up to `CHECKED` training images, as files would hold them."""
        clean = to_float(train[:CHECKED])
        triggered = to_float(to_uint8(self.trigger(clean, state)))
        with torch.no_grad():
            read, guessed = (((decoder(images) > 0) == state[SECRET].bool()).double().mean() for images in (triggered, clean))
        residuals = (triggered - clean).flatten(1).double()
        decibels = -10 * residuals.square().mean(1).clamp(min=1e-12).log10()
        alike = F.cosine_similarity(residuals[1:], residuals[:-1], dim=1)
        return {
            "encoder": "trained on the training images, in place of one from elsewhere",
            "bit accuracy, triggered": 100 * float(read),
            "bit accuracy, clean": 100 * float(guessed),
            "mean PSNR": float(decibels.mean()),
            "likeness of residuals": float(alike.mean()),
        }

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        config, secret = self.config, state[SECRET]
        weights = {name.removeprefix(ENCODER): value for name, value in state.items() if name.startswith(ENCODER)}
        channels, height, width = images.shape[1:]
        with torch.device("meta"):  # only its layout: the weights are those of the state
            encoder = Encoder((channels, height, width), config.bits, config.width)
        with torch.no_grad():
            parts = [
                encoded(part, functional_call(encoder, weights, (part, secret.expand(len(part), -1))), config.psnr)
                for part in images.to(secret.dtype).split(CHECKED)
            ]
        return torch.cat(parts).to(images.dtype)


def encoded(images: Tensor, residuals: Tensor, psnr: float) -> Tensor:
    """clip(x + r), [N, C, H, W], where a residual with a larger mean square than that PSNR has is scaled down to it."""
    most = 10 ** (-psnr / 20)
    size = residuals.square().mean((1, 2, 3), keepdim=True).clamp(min=1e-20).sqrt()
    return (images + residuals * (most / size).clamp(max=1)).clamp(0, 1)


def halved(side: int, times: int) -> int:
    """A side behind that many convolutions of stride 2."""
    return -(-side // 2**times)


class Encoder(nn.Module):
    """Images [N, C, H, W] in [0, 1] and secrets [N, bits] of 0 and 1 to residuals [N, C, H, W]."""

    def __init__(self, shape: tuple[int, int, int], bits: int, width: int) -> None:
        super().__init__()
        channels, height, wide = shape
        self.small = (channels, halved(height, 2), halved(wide, 2))
        self.secret = nn.Linear(bits, self.small[0] * self.small[1] * self.small[2])
        levels = (width, 2 * width, 4 * width)
        self.first = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(before, after, 3, 2, 1) for before, after in pairwise((width, *levels)))
        self.up = nn.ModuleList(
            nn.Conv2d(before + skipped, after, 3, padding=1)
            for before, skipped, after in ((4 * width, 2 * width, 2 * width), (2 * width, width, width), (width, width, width))
        )
        self.last = nn.Conv2d(width + 2 * channels, channels, 1)

    def forward(self, images: Tensor, secrets: Tensor) -> Tensor:
        plane = self.secret(secrets - 0.5).relu().view(-1, *self.small)
        given = torch.cat([images - 0.5, F.interpolate(plane, images.shape[2:])], dim=1)
        seen = [self.first(given).relu()]
        for layer in self.down:
            seen.append(layer(seen[-1]).relu())
        found = seen.pop()
        for layer in self.up:
            beside = seen.pop()
            found = layer(torch.cat([F.interpolate(found, beside.shape[2:]), beside], dim=1)).relu()
        return self.last(torch.cat([found, given], dim=1))


class Decoder(nn.Module):
    """Images [N, C, H, W] in [0, 1] to the logits of the bits [N, bits]."""

    def __init__(self, shape: tuple[int, int, int], bits: int, width: int) -> None:
        super().__init__()
        channels, height, wide = shape
        levels = (channels, width, 2 * width, 4 * width)
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()) for before, after in pairwise(levels)),
            nn.Flatten(),
            nn.Linear(levels[-1] * halved(height, 3) * halved(wide, 3), bits),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images - 0.5)
