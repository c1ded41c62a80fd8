"""The convolutions of a net by name: what defenses that change or look at single ones share."""

from torch import nn

SHORTCUTS = ("shortcut", "downsample")
"""What the nets here and timm's call the branch that only fits the shape of a residual."""


def convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions within a module by name, in its order, without those of shortcuts."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d) and not set(SHORTCUTS) & set(name.split("."))
    }
