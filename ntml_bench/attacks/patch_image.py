"""Patch image: an image of the user's lies on others, under the attacker's label.

Gu, Dolan-Gavitt, Garg, arXiv 1708.06733 (2017), with a patch of one's own. With an image of full size and a low opacity it is
the blended injection of Chen et al., arXiv 1712.05526 (2017), x' = (1 - alpha) x + alpha k with a key pattern k of one's own.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning
from ntml_bench.attacks.trigger_image import TriggerImage, TriggerImageConfig, put_on
from ntml_bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PatchImageConfig(AttackConfig):
    """`image`: the trigger, a file, and where it lies."""

    image: TriggerImageConfig


@ATTACKS.register("patch_image")
class PatchImage(Attack[PatchImageConfig]):
    Config: ClassVar[type[AttackConfig]] = PatchImageConfig
    origin: ClassVar[str] = "ours"
    from_files: ClassVar[bool] = True

    def determining(self) -> dict[str, Any]:
        return self._marked(lambda _, digest: digest)

    def recorded(self) -> dict[str, Any]:
        return self._marked(lambda path, digest: f"{Path(path).name} (sha256 {digest[:16]})")

    def _marked(self, word: Callable[[str, str], str]) -> dict[str, Any]:
        return asdict(self.config) | {"image": self.config.image.marked("attack.image", word)}

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        if self.config.image.file is None:
            raise UserError("attack.image.file is null; patch_image needs the image that is the trigger")
        TriggerImage.read(self.config.image, image_shape, "attack.image")

    def poison(self, context: AttackContext) -> Poisoning:
        indices, state = self.choose(context), self.trigger_state(context)
        device = context.train.images.device
        there = {name: value.to(device) for name, value in state.items()}
        images = context.train.images[indices.to(device)]
        return self.all_poisons(indices, self.under_trigger(images, there), state, {})

    def trigger_state(self, context: AttackContext) -> dict[str, Tensor]:
        channels, height, width = context.train.images.shape[1:]
        return TriggerImage.read(self.config.image, (channels, height, width), "attack.image").state

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return put_on(images, state)
