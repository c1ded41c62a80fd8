"""A mistake ends at once with one clear message: no traceback, exit code not 0, nothing trained."""

import subprocess
import sys
from pathlib import Path

import pytest
from app_runner import SMALL, bench, workplace

__all__ = ["workplace"]

MISTAKES = {
    "attack=badnet": ["unknown attack 'badnet'", "Did you mean 'badnets'"],
    "defense=ntml": ["unknown defense 'ntml'", "Did you mean 'nt_ml'"],
    "datset=digits": ["'datset'", "Did you mean 'dataset"],
    "sed=1": ["unknown setting 'sed'", "Did you mean 'seed'"],
    "attack.poisonin_rate=0.1": ["'attack.poisonin_rate'", "Did you mean 'attack.poisoning_rate'"],
    "defense=ft defense.learning_rat=0.1": ["'defense.learning_rat'", "Did you mean 'defense.recipe.learning_rate'?"],
    "cluster=slurm cluster.timeout_mins=1": ["unknown setting 'cluster.timeout_mins'. Did you mean 'cluster.timeout_min'?"],
    "defense=ft defense.temperature=2": ["not one of the chosen defense's"],
    "defense=halve": ["unknown defense 'halve'", "FOLDER/defense/halve.yaml, with --config-dir FOLDER"],
    "imports=stripe": ["imports is 'stripe'; allowed: a list, each a text: [stripe]"],
    "+unknown=1": ["unknown setting 'unknown'"],
    "+attack.unknown=1": ["attack.unknown", "attack.poisoning_rate"],
    "attack.poisoning_rate=much": ["attack.poisoning_rate is 'much'; allowed: a number, at least 0 and at most 1"],
    "attack.poisoning_rate=1.5": ["attack.poisoning_rate is 1.5", "at most 1"],
    "attack.poisoning_rate=nan": ["attack.poisoning_rate is nan"],
    "training.epochs=0": ["training.epochs is 0", "at least 1"],
    "training.epochs=1.5": ["training.epochs is 1.5; allowed: a whole number, at least 1"],
    "training.schedule=cosin": ["training.schedule is 'cosin'", "cosine"],
    "seed=-1": ["seed is -1", "at least 0"],
    "clean_budget=0": ["clean_budget is 0", "more than 0"],
    "clean_budget=0.001": ["clean budget", "at least one for each"],
    "attack.target_class=10": ["attack.target_class is 10", "0 to 9"],
    "attack.trigger_size=40": ["attack.trigger_size"],
    "attack=sig attack.poisoning_rate=0.5": ["attack.poisoning_rate is 0.5", "target class", "allowed: at most"],
    "attack.poisoning_rate=0.0001": ["attack.poisoning_rate is 0.0001", "none of"],
    "defense=anp model=timm model.name=convnext_atto": ["anp", "BatchNorm"],
    "defense=nad model=timm model.name=vit_tiny_patch16_224": ["nad", "feature maps"],
    "model=timm model.name=resnet81": ["model.name", "resnet18"],
    "model=timm model.name=resnet18.a1_in1k": ["no weights are downloaded", "use model.name=resnet18", "model.pretrained=FILE"],
    "model.name=resnet18": ["model.name is 'resnet18'", "model=resnet_tiny", "model=timm model.name=resnet18"],
    "model=timm model.name=pit_ti_224": ["model.name=pit_ti_224", "does not see all of an image of 16x16 pixels"],
    "attack.name=blended": ["attack.name is 'blended'", "attack=badnets", "attack=blended"],
    "defense.mode=drop": ["defense.mode=drop", "student_start=scratch"],
    "defender_has_training_set=false": ["nt_ml needs the poisoned training set"],
    "device=gpu": ["device is 'gpu'"],
    "precision=half": ["precision is 'half'"],
    "dataset.train_limit=100000": ["dataset.train_limit is 100000"],
    "dataset.test_limit=1": ["dataset.test_limit is 1", "without test images", "are enough"],
    "dataset.holdout=0.9 dataset.train_limit=9": ["dataset.train_limit is 9", "without training images"],
    "clean_budget=0.95 defense=ft attack.poisoning_rate=0.1": [
        "clean budget is 0.95",
        "at most the 270 images that the attack",
    ],
    "clean_budget=0.75 defense=ft attack=wanet attack.poisoning_rate=0.1": ["at most the 210 images that the attack leaves"],
    "clean_budget=0.95 defense=none objective=clean_budget_accuracy": ["clean budget is 0.95", "at most the"],
    "attack=wanet training.batch_size=4 attack.poisoning_rate=0.1": ["training.batch_size is 4", "batches of at least 6"],
    "dataset=image_folder": ["dataset.root"],
    "dataset=cifar10 dataset.root=nowhere": ["nowhere"],
    "sweep=a/b": ["sweep is 'a/b'"],
    "imports=[no_such_module]": ["no_such_module"],
    "imports=[stripe.py/x]": ["imports names 'stripe.py/x'"],
    "attack.target_class=${nothing}": ["a setting refers to what is not there", "nothing"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_before_any_training(mistake: str, workplace: Path) -> None:
    arguments = mistake.split()
    keys = {argument.partition("=")[0] for argument in arguments}
    small = [] if "dataset" in keys else [setting for setting in SMALL if setting.partition("=")[0] not in keys]
    outcome = bench(*small, *arguments)
    assert outcome.code == 1
    for words in MISTAKES[mistake]:
        assert words in outcome.errors
    assert "Traceback" not in outcome.errors
    assert len(outcome.errors.splitlines()) <= 3
    assert not (workplace / "outputs" / "store").exists()


def test_a_mistake_in_the_last_cell_of_a_sweep_stops_it_before_the_first(workplace: Path) -> None:
    outcome = bench("-m", *SMALL, "attack=badnets", "defense=none", "attack.target_class=0,10", "sweep=wrong")
    assert outcome.code == 1
    assert "attack.target_class is 10" in outcome.errors
    assert "attack.target_class=10" in outcome.errors.splitlines()[-1]
    assert not (workplace / "outputs" / "store").exists()


def test_an_unknown_sweep_is_named(workplace: Path) -> None:
    outcome = bench("-cn", "digit_table")
    assert outcome.code == 1
    assert "unknown sweep 'digit_table'. Did you mean 'digits_table'?" in outcome.errors


def test_a_setting_of_another_option_is_explained(workplace: Path) -> None:
    outcome = bench("defense=none", "defense.recipe.epochs=1")
    assert outcome.code == 1
    assert "'defense.recipe.epochs' is not one of the chosen defense's" in outcome.errors


def test_slurm_without_its_launcher_says_what_to_install(workplace: Path) -> None:
    lines = (
        "import sys",
        "sys.modules['hydra_plugins.hydra_submitit_launcher'] = None",  # as where it is not installed
        "from ntml_bench.app.main import main",
        "sys.argv = ['ntml-bench', '-m', 'cluster=slurm']",
        "main()",
    )
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip() == ("ntml-bench: cluster=slurm needs hydra-submitit-launcher: pip install 'ntml-bench[slurm]'")
