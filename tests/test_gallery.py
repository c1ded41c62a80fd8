"""The trigger of an attack alone, for every attack: without a training, and the same as a sweep's evaluator has."""

import shlex
import time
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from app_runner import SMALL, bench, workplace
from builders import attacks_of_ours
from documents import file_of_the_pages
from small_cells import QUICK

import ntml_bench.app.victims
from ntml_bench.errors import UserError
from ntml_bench.records.labels import option_of
from ntml_bench.report.alone import gallery_of
from ntml_bench.report.read import read_report

__all__ = ["workplace"]

SETTINGS = [word for word in SMALL if not word.startswith(("dataset=", "dataset.image_size=", "tracking="))]
WITH_MODEL = ("combat", "narcissus", "trojannn", "input_aware")
WITHOUT_MODEL = [name for name in attacks_of_ours() if name not in WITH_MODEL]
NARCISSUS = ["attack.poisoning_rate=0.02", "attack.rounds=3", "attack.warmup_epochs=1"]


@pytest.fixture(autouse=True)
def downloaded(workplace: Path) -> None:
    """All tests here start in an empty folder, where nothing is stored."""


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something is trained")

    monkeypatch.setattr(ntml_bench.app.victims, "fit", refuse)


@pytest.mark.parametrize("attack", WITH_MODEL)
def test_every_attack_with_a_model_asks_for_it(attack: str, no_training: None) -> None:
    settings = NARCISSUS if attack == "narcissus" else QUICK[attack]
    with pytest.raises(UserError, match="is made with a model"):
        gallery_of(attack, "digits", [*SETTINGS, *settings])


@pytest.mark.parametrize("attack", WITHOUT_MODEL)
def test_every_attack_without_a_model_of_its_own_is_shown(attack: str, no_training: None, workplace: Path) -> None:
    start = time.monotonic()
    # The blocks of QUICK are for smaller images.
    found = gallery_of(attack, "digits", [*SETTINGS, *([] if attack in ("ctrl", "ftrojan") else QUICK.get(attack, []))])
    assert time.monotonic() - start < 30
    assert found.clean.shape == found.triggered.shape == (8, 32, 32, 3)
    assert len(found.classes) == len(set(found.classes)) == 8
    assert found.target not in found.classes
    assert (found.dataset, option_of(found.attack)) == ("digits", attack)
    assert 0 < found.images <= 100
    assert isfinite(found.psnr)
    assert found.ssim < 1
    assert 0 < found.linf <= 255
    assert (found.clean != found.triggered).any(axis=(1, 2, 3)).all()
    assert not (workplace / "outputs" / "store").exists()


def test_settings_of_the_attack_reach_the_trigger(no_training: None) -> None:
    faint, strong = (gallery_of("blended", "digits", [*SETTINGS, f"attack.alpha={alpha}"]) for alpha in (0.05, 0.5))
    assert faint.attack == "blended (alpha=0.05)"
    assert faint.psnr > strong.psnr
    assert faint.linf < strong.linf
    # The images that are shown do not depend on the attack.
    assert (faint.clean == strong.clean).all()


def test_a_trigger_that_is_made_with_a_model_needs_the_cell_first(no_training: None) -> None:
    with pytest.raises(UserError, match="is made with a model") as raised:
        gallery_of("narcissus", "digits", [*SETTINGS, *NARCISSUS])
    assert "run the cell: ntml-bench attack=narcissus dataset=digits defense=none" in str(raised.value)


def test_behind_the_named_cell_the_trigger_is_the_sweeps(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    settings = [*SETTINGS, *NARCISSUS]
    with pytest.raises(UserError) as raised:
        gallery_of("narcissus", "digits", settings)
    command = shlex.split(str(raised.value).partition("run the cell: ntml-bench ")[2])
    assert bench(*command, "tracking=none").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(ntml_bench.app.victims, "fit", None)
        found = gallery_of("narcissus", "digits", settings)
    (swept,) = read_report(workplace / "outputs" / "sweeps" / "single").galleries
    assert (found.triggered == swept.triggered).all()
    assert (found.psnr, found.ssim, found.linf, found.images) == (swept.psnr, swept.ssim, swept.linf, swept.images)
    # With the surrogate alone it is made again; that is a training of a few epochs.
    (victim,) = (workplace / "outputs" / "store").glob("victim-*")
    victim.rename(workplace / "away")
    assert (gallery_of("narcissus", "digits", settings).triggered == found.triggered).all()


def test_an_attack_of_one_file_and_one_yaml(monkeypatch: pytest.MonkeyPatch, no_training: None, workplace: Path) -> None:
    for name in ("stripe.py", "my_conf/attack/stripe.yaml"):
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text(file_of_the_pages(name))
    monkeypatch.syspath_prepend(str(workplace))
    for flags in (["--config-dir", "my_conf"], ["-cd", str(workplace / "my_conf")], ["--config-dir=my_conf"]):
        found = gallery_of("stripe", "digits", [*SETTINGS, *flags, "imports=[stripe]"])
        assert (found.triggered[:, 3] == 255).all()
        assert (found.triggered[:, 4:] == found.clean[:, 4:]).all()


@pytest.mark.parametrize(
    ("attack", "dataset", "settings", "message"),
    [
        ("badnet", "digits", [], "unknown attack 'badnet'. Did you mean 'badnets'"),
        ("badnets", "digit", [], "unknown dataset 'digit'. Did you mean 'digits'"),
        ("badnets", "digits", ["attack.alpha=0.1"], "attack.alpha"),
        ("badnets", "digits", ["attack.trigger_size=0"], "attack.trigger_size"),
        ("badnets", "digits", ["attack.target_class=10"], "attack.target_class is 10"),
        ("none", "digits", [], "no trigger"),
        ("badnets", "digits", ["--config-dir", "nowhere"], "nowhere is not a folder"),
        ("badnets", "digits", ["--config-dir"], "expected one argument"),
        ("badnets", "digits", ["--multirun"], "unknown flag '--multirun'"),
        ("badnets", "digits", ["attack.alpha="], "attack.alpha"),
        ("badnets", "digits", ["whatever"], "whatever"),
        ("badnets", "image_folder", ["dataset.root=missing"], "missing"),
    ],
)
def test_a_mistake_is_named(attack: str, dataset: str, settings: list[str], message: str, no_training: None) -> None:
    with pytest.raises(UserError) as raised:
        gallery_of(attack, dataset, settings)
    assert message in str(raised.value)
