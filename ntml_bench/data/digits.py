"""scikit-learn's bundled 1,797 real 8x8 handwritten digits: as plain images, and as raw material for scenes."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ntml_bench.data.base import DATASETS, Dataset, DatasetConfig, Split
from ntml_bench.data.exact import linear_weights, resampled
from ntml_bench.schema import number
from ntml_bench.seeding import generator, stratified

CLASS_NAMES = tuple("0123456789")
VERSION = 2


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(DatasetConfig):
    """`image_size` in pixels (square); `test_share` of the 1,797 digits are the test set, drawn by `split_seed`."""

    image_size: int = number(at_least=8)
    test_share: float = number(at_least=0.05, at_most=0.5)
    split_seed: int = number(at_least=0)


@DATASETS.register("digits")
class Digits(Dataset[DigitsConfig]):
    """The digits as grey RGB images, enlarged: small, quick and easy; for tests."""

    Config = DigitsConfig

    def source(self) -> str:
        c = self.config
        return f"scikit-learn digits v{VERSION}: {c.image_size} px, test share {c.test_share}, seed {c.split_seed}"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        train, test = split_digits(self.config.test_share, self.config.split_seed)
        return self._enlarged(train), self._enlarged(test), CLASS_NAMES

    def _enlarged(self, split: Split) -> Split:
        size, source = self.config.image_size, split.images.shape[-1]
        weights = linear_weights((torch.arange(size, dtype=torch.float64) + 0.5) * source / size - 0.5, source)
        grey = resampled(split.images, weights, weights)
        return Split((grey * 255).round().to(torch.uint8).repeat(1, 3, 1, 1), split.labels)


def split_digits(test_share: float, seed: int) -> tuple[Split, Split]:
    """Training and test digits: images float32 [N, 1, 8, 8] in 0..1 (ink is 1), labels int64; no digit is in both."""
    images, labels = _all_digits()
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[stratified(labels, round(test_share * len(labels)), generator(seed, "digits/split"))] = True
    return Split(images[~is_test], labels[~is_test]), Split(images[is_test], labels[is_test])


@cache
def _all_digits() -> tuple[Tensor, Tensor]:
    # Imported here: scikit-learn takes long to import, and a cached data set does not need it.
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(classes).long()
