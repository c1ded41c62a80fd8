"""The data sets, one file each, registered on import; and what happens to images before an attack sees them."""

from ntml_bench.data.base import DATASETS, AugmentationConfig, Dataset, DatasetConfig, ImageData, Split, fingerprint
from ntml_bench.registry import import_package_modules

import_package_modules(__name__, list(__path__))

__all__ = ["DATASETS", "AugmentationConfig", "Dataset", "DatasetConfig", "ImageData", "Split", "fingerprint"]
