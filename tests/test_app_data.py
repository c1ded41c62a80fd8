"""What a user is told of the data of a run, and data that no attack can be measured on."""

from pathlib import Path

import numpy as np
from app_runner import SMALL, bench, workplace
from PIL import Image

from ntml_bench.records.targets import Target, target_lines

__all__ = ["workplace"]

ONE_SIDED = """
import torch
from ntml_bench.data import DATASETS, Dataset, DatasetConfig, Split

@DATASETS.register("one_sided")
class OneSided(Dataset):
    Config = DatasetConfig

    def source(self):
        return "one_sided"

    def raw(self, download_dir):
        images = torch.arange(60 * 192).remainder(251).view(60, 3, 8, 8).to(torch.uint8)
        train = Split(images, torch.arange(60) % 2)
        return train, Split(images[:10].clone(), torch.ones(10, dtype=torch.int64)), ("cat", "dog")
"""
YAML = """
name: one_sided
train_limit: null
test_limit: null
holdout: 0.0
augmentation: {crop_padding: 0, horizontal_flip: false}
"""


def write_images(root: Path) -> None:
    """Three classes, of a colour and some noise each, named by numbers."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 5)):
        for label, name in enumerate(("1", "10", "2")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = 120 * (np.arange(3) == label) + rng.integers(0, 100, (16, 16, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")


def test_a_run_says_what_it_aims_at_and_what_is_odd_about_the_images(workplace: Path) -> None:
    write_images(workplace / "images")
    Image.new("RGB", (16, 16), "white").save(workplace / "images/test/2/0.png")
    small = [setting for setting in SMALL if not setting.startswith("dataset")]
    words = ["dataset=image_folder", "dataset.root=images", "dataset.image_size=16", "attack.target_class=1", "floor=false"]
    arguments = ["-m", *small, *words, "attack=badnets,sig,none", "defense=none", "sweep=images", "attack.poisoning_rate=0"]
    for _ in range(2):
        outcome = bench(*arguments)
        assert outcome.code == 0, outcome.errors
        lines = outcome.output.splitlines()
        assert lines[0].startswith("warning: dataset image_folder: 1 of 15 images (the first is ")
        assert lines[0].endswith("/images/test/2/0.png) are of a single value (or colour): there is nothing to see in them")
        assert lines[1] == "target class of badnets, sig: 1 ('10')"
        assert "Target class of badnets, sig: 1 ('10')." in lines
        assert outcome.output.count("warning:") == 1
    assert "Target class of badnets, sig: 1 ('10')." in (workplace / "outputs/tables/images/table.md").read_text()
    records = [path.read_text() for path in (workplace / "outputs" / "store").glob("cell-*/record.json")]
    assert len(records) == 3
    for record in records:
        # What is kept and shared says nothing of where the images are.
        assert "(the first is test/2/0.png) are of a single value" in record
        assert str(workplace) not in record


def test_an_attack_without_images_to_measure_it_on_is_refused(workplace: Path) -> None:
    (workplace / "one_sided.py").write_text(ONE_SIDED)
    (workplace / "my_conf/dataset").mkdir(parents=True)
    (workplace / "my_conf/dataset/one_sided.yaml").write_text(YAML)
    small = [setting for setting in SMALL if not setting.startswith("dataset")]
    arguments = ["--config-dir", "my_conf", *small, "dataset=one_sided", "imports=[one_sided]", "defense=none"]
    outcome = bench(*arguments, "attack.target_class=1")
    assert outcome.code == 1
    assert "attack.target_class is 1 ('dog'), the class of all 10 test images; allowed: " in outcome.errors
    assert not (workplace / "outputs" / "store").exists()
    outcome = bench(*arguments, "attack.target_class=0", "floor=false")
    assert outcome.code == 0
    assert "warning: dataset one_sided: 1 of 2 classes have no test image, the first is 'cat'" in outcome.output


def test_targets_of_several_data_sets() -> None:
    targets = [Target("digits", "sig", 0, "zero"), None, Target("mine", "sig", 0, "cat"), Target("digits", "lc", 0, "zero")]
    assert target_lines([*targets, *targets]) == [
        "target class of sig, lc on digits: 0 ('zero')",
        "target class of sig on mine: 0 ('cat')",
    ]
