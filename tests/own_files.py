"""The files of a user's own that commands of a page name: weights, trigger images, and a cell's images in folders."""

from collections.abc import Iterable
from pathlib import Path

import torch
from app_runner import SMALL, bench
from PIL import Image
from safetensors.torch import save_file

from ntml_bench.housekeeping import main as store
from ntml_bench.models import ModelConfig, make_classifier

WEIGHTS = ("attack.weights", "model.pretrained")
IMAGES = ("attack.image.file", "attack.image.mask")
FOLDERS = ("attack.poisoned", "attack.folders.clean", "attack.folders.triggered")


def lay_out(words: Iterable[str], *, folders: bool) -> None:
    """Make what the words name in the working directory, for small runs; `folders`: also those of images (by a cell)."""
    for key, _, value in (word.partition("=") for word in words):
        path = Path(value)
        if path.is_absolute() or path.exists() or value in ("", "null"):
            continue
        if key in WEIGHTS:
            path.parent.mkdir(parents=True, exist_ok=True)
            statistics = torch.zeros(3), torch.ones(3)
            weights = make_classifier(ModelConfig("resnet_tiny"), 10, (3, 32, 32), statistics, seed=0).net.state_dict()
            if path.suffix == ".safetensors":
                save_file(weights, path)
            else:
                torch.save(weights, path)
        elif key in IMAGES:
            Image.new("RGB", (32, 32) if path.stem == "pattern" else (4, 4), "white").save(path)
        elif key in FOLDERS and folders and not Path(path.parts[0]).exists():
            small_cell("for_images")
            assert store.main(["images", "for_images", "--to", path.parts[0], "--clean"]) == 0


def small_cell(sweep: str, attack: str = "badnets", seed: int = 0) -> None:
    """A cell with its models in the store, as a small run of a page's command has its data."""
    outcome = bench(
        *SMALL, f"attack={attack}", "defense=none", f"seed={seed}", f"sweep={sweep}", "model=resnet_tiny", "device=cpu"
    )
    assert outcome.code == 0, outcome.errors
