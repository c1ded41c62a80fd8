"""npd against its definition: what is inserted, the search by a loop, the loss and a step by hand, and a new process."""

import subprocess
import sys
from math import log, sqrt
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from builders import (
    ENGINE,
    SHAPE,
    Diary,
    classifier,
    defender,
    method_values,
    quick_defense,
    reloaded,
    same_state,
    split,
    state_of,
)
from composed import settings_of
from small_cells import QUICK, SMALL
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench import load_model, run_cell, weights_of
from ntml_bench.defenses.npd import likeliest_others, perturbed_towards, place_of, polarizing_loss, unlikelihood
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier, load_weights, polarize
from ntml_bench.models.inserted import Polarized

LAYER = "layer3.0.conv1"
CHANNELS = 64


def npd(**changes: Any) -> Any:
    return quick_defense("npd", **changes)


def polarized_classifier(seed: int = 0) -> tuple[Classifier, nn.Sequential]:
    """A model whose polarizer is not the identity."""
    model = classifier(seed=seed)
    polarizer = polarize(model, LAYER, CHANNELS).polarizer
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in polarizer.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=rng))
    return model, polarizer


def test_a_new_polarizer_scales_what_its_layer_reads_by_the_eps_of_batch_norm() -> None:
    plain, model, images = classifier(), classifier(), torch.rand(6, *SHAPE)
    before = torch.get_rng_state()
    polarize(model, LAYER, CHANNELS)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    plain.net.get_submodule(LAYER).register_forward_pre_hook(lambda _, inputs: (inputs[0] / sqrt(1 + 1e-5),))
    with torch.no_grad():
        assert torch.allclose(model(images), plain(images), atol=1e-6)


def test_names_and_weights_of_the_net_stay_but_for_the_layer_behind() -> None:
    plain, (model, _) = classifier().state_dict(), polarized_classifier()
    names = [name.replace(f"{LAYER}.layer.", f"{LAYER}.") for name in model.state_dict()]
    inserted = [name for name in names if ".polarizer." in name]
    assert [name for name in names if name not in inserted] == list(plain)
    assert {name.removeprefix(f"net.{LAYER}.polarizer.") for name in inserted} == {
        "0.weight",
        *(f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    }


def test_weights_say_what_net_they_are_of() -> None:
    model, _ = polarized_classifier()
    images = torch.rand(5, *SHAPE)
    fresh = reloaded(model)
    assert isinstance(fresh.net.get_submodule(LAYER), Polarized)
    assert torch.equal(fresh(images), model(images))
    # Loaded as what it is not, it does not load: nobody measures the bare net by mistake.
    for net, weights in ((classifier(), model), (polarized_classifier()[0], classifier())):
        with pytest.raises(RuntimeError, match=r"Missing key.*polarizer|Unexpected key.*polarizer"):
            net.load_state_dict(weights.state_dict())
    for weights in ({f"net.elsewhere.{LAYER}.polarizer.0.weight": torch.eye(2)}, {}):
        with pytest.raises(RuntimeError, match=r"Missing key"):
            load_weights(classifier(), weights)


def test_the_label_is_never_the_target() -> None:
    scores = torch.tensor([[-20.0, -30.0, -40.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert likeliest_others(scores, torch.tensor([0, 2, 1])).tolist() == [1, 1, 0]


def test_unlikelihood_by_hand() -> None:
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    expected = -(log(0.5001) + log(0.0001)) / 2
    assert unlikelihood(probabilities, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-3)


def searched_by_loop(model: Classifier, images: Tensor, targets: Tensor, config: Any) -> Tensor:
    delta = [torch.zeros_like(images[:1]) for _ in images]
    for _ in range(config.steps):
        taken = 0
        for index, target in enumerate(targets.tolist()):
            x, here = images[index : index + 1], delta[index].clone().requires_grad_()
            loss = -model((x + here).clamp(0, 1)).log_softmax(1)[0, target]
            (gradient,) = torch.autograd.grad(loss, here)
            moved = here.detach() - config.step_size * gradient.sign()
            length = float(moved.square().sum()) ** 0.5
            delta[index] = moved * config.radius / length if length > config.radius else moved
            taken += int(model((x + delta[index]).clamp(0, 1)).argmax() == target)
        if taken / len(images) > config.success:
            break
    return (images + torch.cat(delta)).clamp(0, 1)


@pytest.mark.parametrize(
    ("radius", "step_size", "success"), [(3.0, 0.1, 1.0), (0.5, 0.1, 1.0), (3.0, 0.02, 0.0), (3.0, 0.02, 0.2)]
)
def test_the_search_against_a_loop(radius: float, step_size: float, success: float) -> None:
    model, _ = polarized_classifier()
    model = model.double()
    data = split(6)
    images = ENGINE.images(data.images).double()
    targets = likeliest_others(model(images).detach(), data.labels)
    config = npd(steps=4, radius=radius, step_size=step_size, success=success).config
    found = perturbed_towards(model, images, targets, config)
    assert torch.allclose(found, searched_by_loop(model, images, targets, config))
    assert (found - images).flatten(1).norm(dim=1).max() <= radius + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert not torch.equal(found, images)


def test_the_search_ends_early() -> None:
    """Where enough are taken for their targets behind the first step, more steps are the same."""
    model, _ = polarized_classifier()
    images = ENGINE.images(split(6).images)
    targets = model(images).argmax(1)
    short, long = (perturbed_towards(model, images, targets, npd(steps=steps, success=0.5).config) for steps in (1, 5))
    assert torch.equal(short, long)


def test_the_loss_by_hand() -> None:
    model, _ = polarized_classifier()
    data = split(6)
    images, config = ENGINE.images(data.images), npd(consistency_weight=0.3, answer_weight=0.7, target_weight=0.9).config
    found = polarizing_loss(model, images, data.labels, config)
    clean = model(images).softmax(1).tolist()
    others = [max((p, k) for k, p in enumerate(row) if k != y)[1] for row, y in zip(clean, data.labels.tolist(), strict=True)]
    moved = model(perturbed_towards(model, images, torch.tensor(others), config)).softmax(1).tolist()
    expected = 0.0
    for before, after, y, t in zip(clean, moved, data.labels.tolist(), others, strict=True):
        answer = before.index(max(before))
        n = max((p, k) for k, p in enumerate(after) if k != y)[1]
        expected -= log(before[y]) + 0.3 * log(after[answer]) + 0.7 * log(1.0001 - after[n]) + 0.9 * log(1.0001 - after[t])
    assert found.item() == pytest.approx(expected / 6, rel=1e-4)


def test_a_step_by_hand() -> None:
    context = defender()
    defense = npd(warmup_epochs=0, recipe__batch_size=24, recipe__momentum=0.0, recipe__weight_decay=0.0)
    found = state_of(defense.purify(context))
    model = classifier()
    polarizer = polarize(model, LAYER, CHANNELS).polarizer
    loss = polarizing_loss(model, ENGINE.images(context.clean_budget.images), context.clean_budget.labels, defense.config)
    names = [f"net.{LAYER}.polarizer.{name}" for name, _ in polarizer.named_parameters()]
    for name, weight, gradient in zip(
        names, polarizer.parameters(), torch.autograd.grad(loss, list(polarizer.parameters())), strict=True
    ):
        assert gradient.abs().max() > 0
        assert torch.allclose(found[name], weight - 0.01 * gradient, atol=1e-6), name


def test_the_warm_up_by_hand() -> None:
    """Cross-entropy alone, BatchNorm of the polarizer by the batch and that of the net by its statistics."""
    context = defender()
    # The stage behind it moves nothing that shows.
    quiet = {"recipe__learning_rate": 1e-30, "recipe__momentum": 0.0, "recipe__weight_decay": 0.0}
    defense = npd(warmup_epochs=1, warmup_learning_rate=0.05, recipe__batch_size=24, **quiet)
    found = state_of(defense.purify(context))
    model = classifier()
    polarizer = polarize(model, LAYER, CHANNELS).polarizer.train()
    loss = functional.cross_entropy(model(ENGINE.images(context.clean_budget.images)), context.clean_budget.labels)
    loss.backward()
    with torch.no_grad():
        for weight in polarizer.parameters():
            assert weight.grad is not None
            weight.sub_(0.05 * weight.grad)
    expected = state_of(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value.double(), atol=1e-6), name


def test_only_the_polarizer_changes_and_its_statistics_in_the_warm_up_alone() -> None:
    plain, diary = state_of(classifier()), Diary()
    defense = npd(warmup_epochs=2, recipe__epochs=3)
    model = defense.purify(defender(diary=diary))
    state = state_of(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    rest = {name.replace(f"{LAYER}.layer.", f"{LAYER}."): value for name, value in state.items() if ".polarizer." not in name}
    assert same_state(rest, plain)
    assert state[f"net.{LAYER}.polarizer.1.num_batches_tracked"] == 2 * 3
    again = npd(warmup_epochs=2, recipe__epochs=1).purify(defender()).state_dict()
    for name in ("running_mean", "running_var"):
        assert torch.equal(again[f"net.{LAYER}.polarizer.1.{name}"], state[f"net.{LAYER}.polarizer.1.{name}"])
    assert not torch.equal(again[f"net.{LAYER}.polarizer.0.weight"], state[f"net.{LAYER}.polarizer.0.weight"])
    assert [stage for stage, _ in diary.logged] == ["warm-up"] * 2 + ["polarizing"] * 3


@pytest.mark.parametrize(
    ("net", "place"),
    [
        ("resnet_tiny", ("layer3.0.conv1", 64)),
        ("preact_resnet18", ("layer4.1.conv1", 512)),
        ("airbench_small", ("group3.conv1", 128)),
        ("resnet18", ("layer4.1.conv1", 512)),
        ("convnext_atto", ("stages.3.blocks.0.conv_dw", 320)),
    ],
)
def test_where_the_polarizer_stands(net: str, place: tuple[str, int]) -> None:
    shape = (3, 32, 32)
    model = classifier(net, shape=shape)
    assert place_of(model, None, shape) == place
    assert place_of(model, place[0], shape) == place


def test_a_layer_of_the_users() -> None:
    found = npd(layer="layer2.0.conv2").purify(defender())
    assert isinstance(found.net.get_submodule("layer2.0.conv2"), Polarized)
    assert len(found.state_dict()["net.layer2.0.conv2.polarizer.0.weight"]) == 64


def test_nets_and_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"unknown convolution of PreActResNet in defense.layer 'layer3.conv1'. Did you mean"):
        npd(layer="layer3.conv1").check(classifier(), SHAPE)
    shape = (3, 32, 32)
    with pytest.raises(UserError, match="npd needs a convolution in the last stage; that of VisionTransformer has none"):
        npd().check(classifier("vit_tiny_patch16_224", shape=shape), shape)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.feature_info = [{"module": "conv"}]

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(self.conv(images)).mean(dim=(2, 3))

    with pytest.raises(UserError, match=r"in front of conv of Twice, which reads 2 inputs in a pass"):
        npd().check(Classifier(Twice(), torch.zeros(3), torch.ones(3)), SHAPE)
    for setting, value in (("radius", 0), ("step_size", 0), ("steps", 0), ("success", 1.1), ("target_weight", -1)):
        with pytest.raises(UserError, match=f"defense.{setting} is"):
            npd(**cast(Any, {setting: value}))


def test_the_values_of_data_sets_arrive() -> None:
    published: Any = quick_defense("npd", method_values("defense", "npd")).config
    assert (published.recipe.epochs, published.recipe.batch_size, published.recipe.learning_rate) == (50, 128, 0.01)
    found: dict[str, Any] = {}
    for dataset in ("cifar10", "gtsrb", "tiny_imagenet", "digit_scenes"):
        found[dataset] = settings_of("config", f"dataset={dataset}", "defense=npd").defense.config
    assert found["cifar10"] == published
    weights = {name: (each.radius, each.consistency_weight, each.target_weight) for name, each in found.items()}
    assert weights == {
        "cifar10": (3, 0.4, 0.4),
        "gtsrb": (5, 0.5, 0.5),
        "tiny_imagenet": (6, 1, 0.1),
        "digit_scenes": (3, 0.4, 0.4),
    }
    for embedded, batch in ((found["digit_scenes"], 16), (small(), 32)):
        rate = 0.1 * batch / 128
        assert (embedded.recipe.batch_size, embedded.recipe.learning_rate) == (batch, rate)
        assert embedded.warmup_learning_rate == pytest.approx(rate / 100)


def small() -> Any:
    return settings_of("config", "presets=small", "dataset=cifar10", "defense=npd").defense.config


IN_A_NEW_PROCESS = """
import torch
from ntml_bench import load_model, load_trigger
from ntml_bench.app.words import composed_settings
from ntml_bench.data.loading import load
from pathlib import Path

test = load(composed_settings({words}, None).dataset, Path("outputs/data"), 0).test
model, trigger = load_model("polarized", defense="npd"), load_trigger("polarized")
images, others = test.images.float() / 255, test.labels != 0
with torch.no_grad():
    print(100 * float((model(images).argmax(1) == test.labels).double().mean()))
    print(100 * float((model(trigger(images[others])).argmax(1) == 0).double().mean()))
"""


def test_what_is_measured_is_what_another_process_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "attack=badnets", "defense=npd", *QUICK["npd"], "deterministic=true", "sweep=polarized"]
    record = run_cell(*words)
    program = IN_A_NEW_PROCESS.format(words=repr(words))
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    after = record["after"]
    assert [float(value) for value in told] == pytest.approx([after["clean_accuracy"], after["attack_success_rate"]])
    model = load_model("polarized", defense="npd")
    assert isinstance(model.net.get_submodule(LAYER), Polarized)
    assert not any(".polarizer." in name for name in weights_of(load_model("polarized")))
    # The net without the polarizer is another one.
    bare = load_model("polarized")
    images = torch.rand(4, 3, 12, 12)
    assert not torch.equal(model(images), bare(images))
