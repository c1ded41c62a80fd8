"""The state of a training under way, and that a training which was interrupted ends as if it had not been."""

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import ENGINE, recipe, same_state, split, state_of
from torch import Tensor, nn

from ntml_bench.checkpoint import Checkpoint
from ntml_bench.data.base import AugmentationConfig
from ntml_bench.store import Artifact, Store
from ntml_bench.training import Recipe, cross_entropy_of, fit

AUGMENTATION = AugmentationConfig(crop_padding=1, horizontal_flip=True)
DATA = split(40, (2, 3, 3))


class InterruptedTrainingError(Exception):
    pass


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 4))


def add_noise(images: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return images + torch.rand(images.shape, generator=rng), labels


def train(
    settings: Recipe, checkpoint: Checkpoint | None, stop_behind: int | None = None, **changes: Any
) -> tuple[nn.Module, list[dict[str, float]]]:
    model = changes.pop("model", None) or net()
    history: list[dict[str, float]] = []

    def log(values: dict[str, float]) -> None:
        # One epoch later than the state that is to be found: the log speaks before the state is written.
        if stop_behind is not None and values["epoch"] > stop_behind:
            raise InterruptedTrainingError
        history.append(values)

    arguments: dict[str, Any] = {
        "models": [model],
        "loss": cross_entropy_of(model),
        "augmentation": AUGMENTATION,
        "seed": 3,
        "purpose": "test",
        "log": log,
        "before_augmentation": add_noise,
        "checkpoint": checkpoint,
    }
    fit(ENGINE, DATA, settings, **arguments | changes)
    return model, history


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "half_cosine", "one_cycle"])
def test_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path: Path, schedule: str, momentum: float) -> None:
    settings = recipe(epochs=5, batch_size=8, learning_rate=0.1, momentum=momentum, schedule=schedule, warmup=0.3)
    whole, history = train(settings, None)
    checkpoint = Checkpoint(tmp_path / "state", seconds_between=0)
    for epoch in (1, 3):
        with pytest.raises(InterruptedTrainingError):
            train(settings, checkpoint, stop_behind=epoch)
    steps = 0

    def counted(model: nn.Module) -> Any:
        def loss(images: Tensor, labels: Tensor) -> Tensor:
            nonlocal steps
            steps += 1
            return nn.functional.cross_entropy(model(images), labels)

        return loss

    model = net()
    resumed, log = train(settings, checkpoint, model=model, loss=counted(model))
    assert steps == 2 * 5, "two epochs of five steps were left"
    assert log == history
    assert same_state(state_of(resumed), state_of(whole))


def test_two_models_with_rates_of_their_own_go_on_too(tmp_path: Path) -> None:
    settings = recipe(epochs=4, batch_size=8, learning_rate=0.1, momentum=0.9, schedule="cosine")

    def both(checkpoint: Checkpoint | None, stop_behind: int | None = None) -> nn.Module:
        pair = nn.ModuleList([net(), net()])
        train(
            settings,
            checkpoint,
            stop_behind,
            models=list(pair),
            learning_rates=[0.1, 0.02],
            loss=lambda images, labels: sum(nn.functional.cross_entropy(model(images), labels) for model in pair),
        )
        return pair

    checkpoint = Checkpoint(tmp_path / "state", seconds_between=0)
    with pytest.raises(InterruptedTrainingError):
        both(checkpoint, stop_behind=2)
    assert same_state(state_of(both(checkpoint)), state_of(both(None)))


def test_a_short_training_writes_nothing(tmp_path: Path) -> None:
    train(recipe(epochs=3, batch_size=8), Checkpoint(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []


def test_the_last_epoch_writes_nothing(tmp_path: Path) -> None:
    train(recipe(epochs=1, batch_size=8), Checkpoint(tmp_path / "state", seconds_between=0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other version", "other net"])
def test_a_state_that_does_not_fit_is_not_used(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe(epochs=3, batch_size=8, learning_rate=0.1)
    path = tmp_path / "state"
    checkpoint = Checkpoint(path, seconds_between=0)
    with pytest.raises(InterruptedTrainingError):
        train(settings, checkpoint, stop_behind=1)
    content = path.read_bytes()
    changes: dict[str, Any] = {}
    if damage == "cut":
        path.write_bytes(content[:-5])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("no tensors here")
    elif damage == "other version":
        monkeypatch.setattr(torch, "__version__", "1.0")
    else:
        torch.manual_seed(0)
        changes["model"] = nn.Sequential(nn.Flatten(), nn.Linear(18, 4))
        changes["loss"] = cross_entropy_of(changes["model"])
    _, log = train(settings, checkpoint, **changes)
    assert [values["epoch"] for values in log] == [1, 2, 3]
    assert path.read_bytes() != content, "it was made anew"


def test_what_is_written_is_read_and_what_is_removed_is_gone(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "folder" / "state")
    assert checkpoint.read() is None
    tensors = {"a": torch.arange(6).view(2, 3), "b": torch.tensor(0.5)}
    checkpoint.write({"losses": [0.1, 0.25]}, tensors)
    found = checkpoint.read()
    assert found is not None
    assert found[0] == {"losses": [0.1, 0.25]}
    assert same_state(found[1], tensors)
    checkpoint.remove()
    assert checkpoint.read() is None
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_state_is_due_after_its_time_and_not_again_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("ntml_bench.checkpoint.time.monotonic", lambda: now)
    checkpoint = Checkpoint(tmp_path / "state", seconds_between=30)
    assert not checkpoint.due
    now = 130.0
    assert checkpoint.due
    checkpoint.write({}, {"a": torch.zeros(1)})
    assert not checkpoint.due


def test_an_artifact_that_is_written_removes_the_state_of_its_training(tmp_path: Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.checkpoint("victim", "key")

    def make() -> Artifact:
        checkpoint.write({}, {"a": torch.zeros(1)})
        return Artifact({}, {"a": torch.ones(1)})

    store.get_or_make("victim", "key", make)
    assert checkpoint.read() is None
    assert not checkpoint.path.exists()
