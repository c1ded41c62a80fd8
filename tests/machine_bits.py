"""Prints, as JSON, a checksum of everything that is made before a training without a net: run on each kind of processor."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from builders import make_dataset, yaml_values
from torch import Tensor

from ntml_bench.attacks import ATTACKS
from ntml_bench.attacks.base import AttackContext
from ntml_bench.attacks.blended import shape_pattern
from ntml_bench.data.base import AugmentationConfig, Split, channel_statistics, fingerprint
from ntml_bench.evaluation import triggered_test
from ntml_bench.schema import build

ATTACK_NAMES = ("badnets", "blended", "sig", "wanet", "lc", "ftrojan", "ctrl", "bpp", "lf")
ATTACK_NAMES += ("adaptive_blend", "adaptive_patch")
FEW = {"poisoning_rate": 0.05}
# Where the published values would take a net, or leave one poison.
CHANGES: dict[str, dict[str, Any]] = {"lc": {"epsilon": 0.0}, "adaptive_blend": FEW, "adaptive_patch": FEW}


def attack_of(name: str, **changes: Any) -> Any:
    return ATTACKS[name](build(ATTACKS[name].Config, yaml_values("attack", name) | changes, "attack"))


def checksum(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def checksums() -> dict[str, str]:
    scenes = make_dataset("digit_scenes", train_size=600, test_size=200)
    found = {"digit_scenes": fingerprint(*scenes.raw(Path()))}
    for size in (8, 12, 28, 32):
        found[f"digits of {size} pixels"] = fingerprint(*make_dataset("digits", image_size=size).raw(Path()))
    images = torch.randint(256, (400, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(images, torch.arange(400) % 10)
    no_net: Any = None
    context = AttackContext(split, 10, 0, no_net, no_net, AugmentationConfig(crop_padding=0, horizontal_flip=False))
    found["channel statistics"] = checksum(*channel_statistics(split))
    for name in ATTACK_NAMES:
        attack = attack_of(name, **CHANGES.get(name, {}))
        made = attack.poison(context)
        there = made.state
        triggered = triggered_test(split, lambda part, attack=attack, there=there: attack.trigger(part, there), 0)
        found[name] = checksum(made.indices, made.images, made.labels, *there.values(), triggered.split.images)
    for name in ("wanet", "bpp"):
        attack = attack_of(name)
        state = attack.poison(context).state
        batch = attack.during_training(images / 255, split.labels, state, torch.Generator().manual_seed(0))
        found[f"{name}'s batches"] = checksum(*batch)
    shapes = [shape_pattern(3, 32, 32, torch.Generator().manual_seed(seed)) for seed in range(20)]
    found["blended's shapes"] = checksum(*shapes)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), **checksums()}))
