"""What an expression in a YAML file may compute from other settings, beside what OmegaConf knows."""

from typing import Any

from omegaconf import DictConfig, OmegaConf


def linear_scaling(batch_size: Any, factor: Any = 1.0, *, _root_: DictConfig) -> Any:
    """The learning rate of the victim's training for each image, in batches of `batch_size`, times `factor`:
    `${linear_scaling:${.batch_size},0.5}`.

    Rate over batch size is kept, as Goyal et al. (arXiv 1706.02677, section 2.1) advise. Twelve digits are kept, so that
    0.1 x 96 / 128 is 0.075 in a record, whatever the order of operations makes of its last bit. Values that are no rates and
    no sizes come back as the training's rate, as it is: who reads the settings refuses them where they stand.
    """
    rate, size = (OmegaConf.select(_root_, f"training.{name}") for name in ("learning_rate", "batch_size"))
    if not all(isinstance(number, int | float) and number > 0 for number in (rate, size, batch_size, factor)):
        return rate
    return float(f"{rate * factor * batch_size / size:.12g}")


def half(passes: Any) -> Any:
    """Half of a number of passes, a half one more: `${half:${training.epochs}}`. What is no number comes back as it is."""
    return (passes + 1) // 2 if isinstance(passes, int) else passes
