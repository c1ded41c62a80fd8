"""Cells on data so small that each is made in a second."""

from collections.abc import Callable
from pathlib import Path

import composed
import pytest

from ntml_bench.app.cell import Cell
from ntml_bench.app.settings import Settings
from ntml_bench.data.loading import load

SMALL = [
    "dataset=digits",
    "dataset.image_size=12",
    "dataset.train_limit=160",
    "dataset.test_limit=60",
    "training.epochs=1",
    "training.batch_size=40",
    "clean_budget=0.15",
    "device=cpu",
    "precision=float32",
    "tracking=none",
]
# What the published settings would take too long for, or what would leave no poison among so few images.
QUICK = {
    "adaptive_blend": ["attack.poisoning_rate=0.05"],
    "adaptive_patch": ["attack.poisoning_rate=0.05"],
    "ftrojan": ["attack.block_size=12", "attack.frequencies=[5,11]"],
    "ctrl": ["attack.block_size=12", "attack.frequencies=[5,11]"],
    "lc": ["attack.steps=2"],
    "narcissus": ["attack.poisoning_rate=0.02", "attack.rounds=3", "attack.warmup_epochs=1"],
    **{name: ["defense.recipe.epochs=1"] for name in ("ft", "ft_init", "fe_tuning", "fst", "ft_sam", "ban")},
    "trojannn": ["attack.steps=3", "attack.trigger_size=6"],
    "ssba": ["attack.steps=3", "attack.width=2"],
    "input_aware": ["attack.mask_epochs=1", "attack.pattern_epochs=1", "attack.width=2"],
    "combat": ["attack.generator_epochs=1", "attack.width=2"],
    "fp": ["defense.recipe.epochs=1"],
    "nad": ["defense.teacher.epochs=1", "defense.student.epochs=1"],
    "anp": ["defense.steps=2"],
    "rnp": ["defense.unlearning.epochs=1", "defense.recovery_epochs=1"],
    "sau": ["defense.rounds=1"],
    "nc": ["defense.rounds=2", "defense.recipe.epochs=1"],
    "tsbd": ["defense.unlearning.epochs=1", "defense.recipe.epochs=1"],
    "npd": ["defense.warmup_epochs=1", "defense.recipe.epochs=1"],
    "i_bau": ["defense.rounds=1"],
    "nt_ml": ["defense.ml.epochs=1"],
    "nt_ml_selective": ["defense.steps=2", "defense.ml.epochs=1"],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def settings_of(*overrides: str, attack: str = "badnets", defense: str = "none") -> Settings:
    chosen = [f"attack={attack}", f"defense={defense}", *SMALL, *QUICK.get(attack, []), *QUICK.get(defense, []), *overrides]
    return composed.settings_of("config", *chosen)


Make = Callable[..., Cell]


@pytest.fixture
def make(tmp_path: Path, data_dir: Path) -> Make:
    def cell(*overrides: str, outputs: Path = tmp_path, **options: str) -> Cell:
        settings = settings_of(*overrides, f"outputs={outputs}", f"data_dir={data_dir}", **options)
        return Cell(settings, load(settings.dataset, data_dir, settings.general.seed))

    return cell


def quiet(_: str) -> None:
    pass
