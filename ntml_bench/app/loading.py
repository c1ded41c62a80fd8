"""Loaded data sets, kept over the cells of a process."""

from pathlib import Path

from ntml_bench.app.settings import Settings
from ntml_bench.data import ImageData
from ntml_bench.data.loading import load
from ntml_bench.engine import device_of
from ntml_bench.store import key_of, plain

KEPT_DATASETS = 4


class LoadedData:
    """The data sets that were asked for last. `resident`: on the device that cells compute on, else in the memory."""

    def __init__(self, resident: bool = True) -> None:
        self._resident = resident
        self._data: dict[str, ImageData] = {}

    def of(self, settings: Settings) -> ImageData:
        general, config = settings.general, settings.dataset.config
        draws = config.holdout > 0 or config.train_limit is not None or config.test_limit is not None
        key = key_of(
            {
                "dataset": plain(config),
                "seed": general.seed if draws else None,
                "device": general.device,
                "dir": general.data_dir,
            }
        )
        if key not in self._data:
            if len(self._data) >= KEPT_DATASETS:
                self._data.pop(next(iter(self._data)))
            data = load(settings.dataset, Path(general.data_dir), general.seed)
            if self._resident:
                data = data.to(device_of(general.device))
            self._data[key] = data
        return self._data[key]
