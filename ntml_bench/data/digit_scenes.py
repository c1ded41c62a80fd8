"""Digit scenes: real handwritten digits composed into colour images, as house numbers look.

The source digits (scikit-learn's 1,797) are split into training and test digits first, so no handwriting is in both
sets. Each scene then gets a digit in the middle, edges of neighbours to the left and right, a size, a tilt, a place,
colours with a guaranteed contrast, a textured background with a gradient of light, and noise. The recipe depends on
its own seed alone, not on a cell's, so that every cell works with the same images, on every machine the same bits.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from ntml_bench.data.base import DATASETS, Dataset, DatasetConfig, Split
from ntml_bench.data.digits import CLASS_NAMES, split_digits
from ntml_bench.data.exact import cubic_weights, gaussian, quantised, resampled, turned, uniform
from ntml_bench.errors import UserError
from ntml_bench.schema import number
from ntml_bench.seeding import generator

VERSION = 2
SIDE = 32
"""Height and width of a scene in pixels."""

CHUNK = 500
"""Scenes composed at once: keeps the float images of all scenes from being in memory together."""

LUMINANCE = torch.tensor([306, 601, 117], dtype=torch.float64) / 1024
"""0.299, 0.587, 0.114, as near as 1024ths come."""

PLACES = 256
"""To a side of a source pixel, of the places that it is sampled at."""


@dataclass(frozen=True, kw_only=True)
class DigitScenesConfig(DatasetConfig):
    """Sizes in pixels of the 32x32 scene, angles in degrees, light in levels of 0..255; ranges are drawn uniformly.

    `source_test_share`: share of the source digits kept for the test scenes. `digit_size_min`, `digit_size_max`: side
    of the square that a source digit fills. `shift`: its centre is at most that far from the scene's. `tilt`: at most
    that much, either way. `neighbour_share`: how often a neighbour stands to the left, and to the right.
    `contrast_min`, `contrast_max`: luminance between digit and background. `gradient`: from the middle to the edge.
    `texture`: standard deviation of the background's smooth colour patches. `noise`: standard deviation of pixel noise.
    """

    train_size: int = number(at_least=10)
    test_size: int = number(at_least=10)
    recipe_seed: int = number(at_least=0)
    source_test_share: float = number(at_least=0.05, at_most=0.5)
    digit_size_min: float = number(at_least=8, at_most=SIDE)
    digit_size_max: float = number(at_least=8, at_most=SIDE)
    shift: float = number(at_least=0, at_most=SIDE / 2)
    tilt: float = number(at_least=0, at_most=45)
    neighbour_share: float = number(at_least=0, at_most=1)
    contrast_min: float = number(at_least=1, at_most=120)
    contrast_max: float = number(at_least=1, at_most=120)
    gradient: float = number(at_least=0, at_most=128)
    texture: float = number(at_least=0, at_most=128)
    noise: float = number(at_least=0, at_most=128)


@DATASETS.register("digit_scenes")
class DigitScenes(Dataset[DigitScenesConfig]):
    """RGB scenes [3, 32, 32] of the ten digits; the label is the digit in the middle."""

    Config = DigitScenesConfig

    def source(self) -> str:
        config = self.config
        for low, high in (("digit_size_min", "digit_size_max"), ("contrast_min", "contrast_max")):
            if getattr(config, low) > getattr(config, high):
                raise UserError(
                    f"dataset.{low} is {getattr(config, low)}; allowed: at most dataset.{high}, {getattr(config, high)}"
                )
        shared = {entry.name for entry in fields(DatasetConfig)}
        recipe = {name: value for name, value in asdict(config).items() if name not in shared}
        return f"digit scenes v{VERSION}: {recipe}"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        config = self.config
        train_digits, test_digits = split_digits(config.source_test_share, config.recipe_seed)
        train = compose(train_digits, config.train_size, config, generator(config.recipe_seed, "digit_scenes/train"))
        test = compose(test_digits, config.test_size, config, generator(config.recipe_seed, "digit_scenes/test"))
        return train, test, CLASS_NAMES


def compose(digits: Split, count: int, config: DigitScenesConfig, rng: torch.Generator) -> Split:
    """`count` scenes uint8 [N, 3, 32, 32] of the digits float [M, 1, 8, 8]; classes are even to within one, in random order."""
    labels = torch.arange(count) % len(CLASS_NAMES)
    labels = labels[torch.randperm(count, generator=rng)]
    scenes = [_compose_chunk(digits, chunk, config, rng) for chunk in labels.split(CHUNK)]
    return Split(torch.cat(scenes), labels)


def _compose_chunk(digits: Split, labels: Tensor, config: DigitScenesConfig, rng: torch.Generator) -> Tensor:
    ink = _ink(digits, labels, config, rng)
    paper, pen = _colours(len(labels), config, rng)
    light = _gradient(len(labels), config.gradient / 255, rng)
    background = paper + _texture(len(labels), config.texture / 255, rng)
    scene = background + (pen - background) * ink + light
    scene += quantised(gaussian(tuple(scene.shape), rng) * (config.noise / 255))
    return (scene * 255).round().clamp(0, 255).to(torch.uint8)


def _ink(digits: Split, labels: Tensor, config: DigitScenesConfig, rng: torch.Generator) -> Tensor:
    """How much of each pixel is digit: [N, 1, 32, 32] in 0..1, the neighbours' edges included."""
    count = len(labels)
    middle = _of_class(digits.labels, labels, rng)
    size = uniform(count, config.digit_size_min, config.digit_size_max, rng)
    turns = uniform(count, -config.tilt, config.tilt, rng) / 360
    shift = uniform((count, 2), -config.shift, config.shift, rng)
    ink = _placed(digits.images[middle], size, turns, shift)
    for side in (-1, 1):
        neighbour = torch.randint(len(digits), (count,), generator=rng)
        there = uniform(count, 0, 1, rng) < config.neighbour_share
        # A digit is some 0.7 of its square wide: at this distance neighbours do not cover the middle digit.
        distance = side * size * uniform(count, 0.72, 0.95, rng)
        along = torch.stack(turned(turns), 1) * distance[:, None]
        drawn = _placed(digits.images[neighbour], size, turns, shift + along)
        ink = torch.maximum(ink, drawn * there.view(-1, 1, 1, 1))
    return ink


def _placed(digits: Tensor, size: Tensor, turns: Tensor, centre: Tensor) -> Tensor:
    """Digits [N, 1, 8, 8] drawn `size` pixels high, turned by `turns` of the circle, [N, 1, 32, 32].

    `centre` [N, 2]: their distance from the scene's, right and down, in pixels.
    """
    rows, columns = digits.shape[2:]
    cosine, sine = (quantised(value * (rows / size), 16)[:, None, None] for value in turned(turns))
    pixel = torch.arange(SIDE) - (SIDE - 1) / 2
    right, down = (pixel - quantised(along, 16)[:, None] for along in centre.T)
    x = right[:, None, :] * cosine + down[:, :, None] * sine
    y = down[:, :, None] * cosine - right[:, None, :] * sine
    across, along = _at(x + (columns - 1) / 2, columns), _at(y + (rows - 1) / 2, rows)
    drawn = torch.einsum("npr,nrc,npc->np", along, digits[:, 0].double(), across).view(-1, 1, SIDE, SIDE)
    # Enlarged 8x8 strokes are blurred; a steeper ramp gives them an edge again.
    return quantised((2 * drawn - 0.4).clamp(0, 1))


def _at(positions: Tensor, size: int) -> Tensor:
    """The weights of `size` samples, beside which there are zeros, at positions [N, H, W]: [N, H * W, size]."""
    # Beyond two samples off the edge all weights are 0.
    places = torch.arange(-2 * PLACES, (size + 1) * PLACES + 1, dtype=torch.float64) / PLACES
    index = (positions * PLACES).round().clamp(-2 * PLACES, (size + 1) * PLACES).long() + 2 * PLACES
    return cubic_weights(places, size).index_select(0, index.flatten()).view(len(positions), -1, size)


def _of_class(source_labels: Tensor, wanted: Tensor, rng: torch.Generator) -> Tensor:
    """For each wanted label a random source index of that class, int64 [N]."""
    by_class = source_labels.argsort(stable=True)
    sizes = source_labels.bincount(minlength=len(CLASS_NAMES))
    starts = sizes.cumsum(0) - sizes
    rank = torch.randint(1 << 48, (len(wanted),), generator=rng) % sizes[wanted]
    return by_class[starts[wanted] + rank]


def _colours(count: int, config: DigitScenesConfig, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Colours of paper and pen, [N, 3, 1, 1] in 0..1, whose luminances differ by the drawn contrast."""
    contrast = quantised(uniform(count, config.contrast_min, config.contrast_max, rng) / 255)
    paper = uniform(count, 0.1, 0.9, rng)
    lighter = uniform(count, 0, 1, rng) < 0.5
    lighter = torch.where(paper + contrast > 0.97, False, lighter | (paper - contrast < 0.03))
    pen = paper + torch.where(lighter, contrast, -contrast)
    return _coloured(paper, rng), _coloured(pen, rng)


def _coloured(luminance: Tensor, rng: torch.Generator) -> Tensor:
    """Random colours [N, 3, 1, 1] of these luminances [N]."""
    direction = gaussian((len(luminance), 3), rng)
    direction = direction - (direction @ LUMINANCE)[:, None]
    room = torch.where(direction > 0, 1 - luminance[:, None], luminance[:, None]) / direction.abs().clamp(min=1e-6)
    saturation = uniform(len(luminance), 0, 1, rng) * room.amin(1)
    return (luminance[:, None] + quantised(direction * saturation[:, None]))[:, :, None, None]


def _gradient(count: int, strength: float, rng: torch.Generator) -> Tensor:
    """Light that grows from one side to the other, at most by `strength` from the middle to the edge: [N, 1, 32, 32]."""
    cosine, sine = turned(uniform(count, 0, 1, rng))
    slope = quantised(uniform(count, 0, 1, rng) * strength)
    axis = quantised(torch.arange(SIDE, dtype=torch.float64) * 2 / (SIDE - 1) - 1)
    across = quantised(cosine * slope).view(-1, 1, 1, 1) * axis
    down = quantised(sine * slope).view(-1, 1, 1, 1) * axis[:, None]
    return quantised(across + down)


def _texture(count: int, strength: float, rng: torch.Generator) -> Tensor:
    """Smooth random patches of two sizes, grey and coloured, of standard deviation up to about `strength`: [N, 3, 32, 32]."""
    coarse = gaussian((count, 3, 4, 4), rng) + gaussian((count, 1, 4, 4), rng)
    fine = gaussian((count, 3, 11, 11), rng) + gaussian((count, 1, 11, 11), rng)
    patches = _enlarged(coarse) + _enlarged(fine)
    return quantised(patches * quantised(0.5 * strength * uniform((count, 1, 1, 1), 0, 1, rng)))


def _enlarged(patches: Tensor) -> Tensor:
    size = patches.shape[-1]
    weights = cubic_weights((torch.arange(SIDE, dtype=torch.float64) + 0.5) * size / SIDE - 0.5, size, beyond=2)
    return resampled(patches, weights, weights)
