"""clp, bnp and ep against their definitions: closed-form cases, and slow loops."""

from collections.abc import Callable
from math import log
from typing import Any, cast

import pytest
import torch
from builders import (
    CLASSES,
    SHAPE,
    UNTOUCHABLE,
    Diary,
    classifier,
    defender,
    method_values,
    quick_defense,
    same_state,
    split,
    state_of,
)
from by_hand import normal
from composed import settings_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntml_bench.defenses.bnp import divergences, normal_divergence
from ntml_bench.defenses.clp import convolutions_before, lipschitz_bounds
from ntml_bench.defenses.ep import entropies
from ntml_bench.defenses.masks import batch_norms
from ntml_bench.defenses.outliers import outliers, pre_activations, prune_outliers
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier

NAMES = ("clp", "bnp", "ep")


# The rule.


@given(
    scores=st.lists(st.floats(-100, 100), min_size=1, max_size=20),
    deviations=st.floats(0, 4),
    dead=st.lists(st.sampled_from([float("nan"), float("inf")]), max_size=3),
)
@settings(deadline=None, max_examples=100)
def test_outliers_against_a_loop(scores: list[float], deviations: float, dead: list[float]) -> None:
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)) ** 0.5 if len(scores) > 1 else float("inf")
    found = outliers(torch.tensor(dead + scores, dtype=torch.float64), deviations).tolist()
    assert found[: len(dead)] == [False] * len(dead)
    for score, is_outlier in zip(scores, found[len(dead) :], strict=True):
        border = mean + deviations * spread
        assert is_outlier == (score > border) or score == pytest.approx(border, abs=1e-9)


def test_one_outlier_is_found_among_more_than_ten_only() -> None:
    # It is (n - 1) / sqrt(n) deviations away, however large it is: 3.75 of 16, 2.67 of 9.
    for others, found in ((15, 1), (10, 1), (9, 0), (8, 0)):
        for large in (10.0, 1e6):
            assert outliers(torch.tensor([1.0] * others + [large]), 3.0).tolist() == [False] * others + [bool(found)]


def test_pruning_moves_the_outliers_alone() -> None:
    for with_bias in (False, True):
        diary = Diary()
        context = defender(diary=diary)
        norms = batch_norms(context.model)
        name = next(iter(norms))
        scores = torch.ones(len(norms[name].weight))
        scores[[3, 5]] = 100.0
        before = state_of(context.model)
        prune_outliers(context, {name: scores}, 2.0, with_bias=with_bias)
        for key, value in state_of(context.model).items():
            expected = before[key].clone()
            if key == f"{name}.weight" or (with_bias and key == f"{name}.bias"):
                expected[[3, 5]] = 0
            assert torch.equal(value, expected), key
        ((stage, values),) = diary.logged
        assert stage == "pruning"
        assert values == {"epoch": 1, "pruned_channels": 2, "channels": 32, "layers": 1, "layers_left_out": len(norms) - 1}


@pytest.mark.parametrize("name", NAMES)
def test_only_outliers_of_the_scores_are_pruned_and_more_at_fewer_deviations(name: str) -> None:
    pruned: list[set[str]] = []
    for deviations in (0.5, 1.5, 100.0):
        model = quick_defense(name, deviations=deviations).purify(defender())
        before = state_of(classifier())
        changed = {key for key, value in state_of(model).items() if not torch.equal(value, before[key])}
        kinds = {".weight", ".bias"} if name == "clp" else {".weight"}
        assert changed <= {layer + kind for layer in batch_norms(model) for kind in kinds}
        pruned.append(
            {
                f"{layer}.{channel}"
                for layer, norm in batch_norms(model).items()
                for channel in norm.weight.eq(0).nonzero().flatten().tolist()
            }
        )
        if name == "clp":
            assert all(norm.bias[norm.weight == 0].eq(0).all() for norm in batch_norms(model).values())
    assert pruned[0] > pruned[1] > pruned[2] == set()


@pytest.mark.parametrize("name", ["bnp", "ep"])
def test_the_bias_goes_with_the_weight_where_asked(name: str) -> None:
    model = quick_defense(name, deviations=1.0, prune_bias=True).purify(defender())
    found = [(norm.weight == 0, norm.bias == 0) for norm in batch_norms(model).values()]
    assert all(torch.equal(weight, bias) for weight, bias in found)
    assert any(weight.any() for weight, _ in found)


@pytest.mark.parametrize("name", NAMES)
def test_a_net_without_batch_norm_is_refused(name: str) -> None:
    shape = (3, 32, 32)
    with pytest.raises(UserError, match=f"defense {name} prunes channels of BatchNorm layers; ConvNeXt has none"):
        quick_defense(name).check(classifier("convnext_atto", shape=shape), shape)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("clp", "deviations", -0.1),
        ("bnp", "deviations", -1),
        ("ep", "bin_width", 0),
        ("ep", "images", 1),
        ("ep", "deviations", -1),
    ],
)
def test_wrong_settings_are_refused(name: str, setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"defense.{setting} is -?\d.*; allowed: at least"):
        quick_defense(name, **cast(Any, {setting: value}))


def test_the_values_are_the_published_and_the_leaderboards() -> None:
    assert [method_values("defense", name)["deviations"] for name in NAMES] == [3.0] * 3
    assert method_values("defense", "ep")["bin_width"] == 0.01
    for name, values in (("bnp", {"prune_bias": True}), ("ep", {"prune_bias": True, "images": 256})):
        config = settings_of("config", "presets=backdoorbench", "dataset=cifar10", f"defense={name}").defense.config
        assert {key: getattr(config, key) for key in values} == values
        assert method_values("defense", name)["prune_bias"] is False


# Channel Lipschitz pruning.


class OneLayer(nn.Module):
    """1x1 convolution, BatchNorm, linear head."""

    def __init__(self, channels: int, norms: Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, CLASSES)
        direction = nn.functional.normalize(normal(channels, 3), dim=1)
        self.conv.weight.data = (norms[:, None] * direction)[..., None, None]

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(images)).relu().mean((2, 3)))


def of_net(net: nn.Module) -> Classifier:
    return Classifier(net, torch.zeros(3), torch.ones(3)).eval()


@pytest.mark.parametrize(("channels", "pruned"), [(16, [15]), (9, [])])
def test_the_one_large_channel_of_sixteen_is_pruned_and_of_nine_none(channels: int, pruned: list[int]) -> None:
    norms = torch.ones(channels)
    norms[-1] = 10
    model = quick_defense("clp").purify(defender(of_net(OneLayer(channels, norms)), clean_budget=UNTOUCHABLE))
    (norm,) = batch_norms(model).values()
    assert norm.weight.eq(0).nonzero().flatten().tolist() == pruned


def test_the_bound_is_reached_by_the_worst_input_and_by_no_other() -> None:
    """By the definition: how far one patch can move the output of convolution and BatchNorm, over its own length."""
    weight = normal(4, 2, 3, 3)
    norm = nn.BatchNorm2d(4).eval()
    norm.weight.data = torch.tensor([1.0, -2.0, 0.5, 0.0])
    norm.running_var = torch.tensor([1.0, 4.0, 0.25, 1.0])
    found = lipschitz_bounds(weight, norm)
    factor = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
    for channel in range(4):
        matrix = weight[channel].reshape(2, 9).double()
        # Power iteration, another way to the largest singular value.
        direction = torch.ones(9, dtype=torch.float64)
        for _ in range(500):
            direction = nn.functional.normalize(matrix.T @ (matrix @ direction), dim=0)
        assert found[channel].item() == pytest.approx((matrix @ direction).norm().item() * factor[channel].item(), rel=1e-5)
    assert found[3] == 0


def test_a_layer_behind_a_sum_has_no_convolution() -> None:
    model = classifier()
    names = {module: name for name, module in model.named_modules()}
    # The bn1 of later blocks and the last one read the sum of a convolution and a shortcut.
    assert {name: names[module] for name, module in convolutions_before(model, SHAPE).items()} == {
        "net.layer1.0.bn1": "net.conv1",
        "net.layer1.0.bn2": "net.layer1.0.conv1",
        "net.layer2.0.bn2": "net.layer2.0.conv1",
        "net.layer3.0.bn2": "net.layer3.0.conv1",
    }
    assert len(batch_norms(model)) == 7
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    # 9 of 17 of the leaderboard's net.
    large = classifier("preact_resnet18")
    assert len(convolutions_before(large, SHAPE)) == 9
    assert len(batch_norms(large)) == 17


def test_in_a_plain_resnet_every_layer_follows_its_convolution() -> None:
    model = classifier("resnet18", shape=(3, 32, 32))
    names = {module: name for name, module in model.named_modules()}
    found = {name: names[module] for name, module in convolutions_before(model, (3, 32, 32)).items()}
    assert found.keys() == batch_norms(model).keys()
    assert found["net.layer2.0.bn1"] == "net.layer2.0.conv1"
    assert found["net.layer2.0.downsample.1"] == "net.layer2.0.downsample.0"


def test_clp_refuses_a_net_whose_batch_norm_follows_no_convolution() -> None:
    net = OneLayer(4, torch.ones(4))
    net.bn, net.conv = nn.BatchNorm2d(3), nn.Sequential()  # pyright: ignore[reportAttributeAccessIssue]
    net.fc = nn.Linear(3, CLASSES)
    with pytest.raises(UserError, match="right behind a convolution; none of OneLayer is"):
        quick_defense("clp").check(of_net(net), SHAPE)


# BatchNorm statistics.


def test_the_divergence_of_normal_distributions() -> None:
    def divergence(*values: float) -> float:
        return normal_divergence(*(torch.tensor(value, dtype=torch.float64) for value in values)).item()

    assert divergence(3, 2, 3, 2) == 0
    assert divergence(1, 1, 4, 1) == pytest.approx(4.5)  # d^2 / 2
    assert divergence(0, 1, 0, 4) == pytest.approx(log(2) + 1 / 8 - 1 / 2)
    # By definition: the mean of log p - log q under p, integrated.
    x = torch.linspace(-30, 30, 200001, dtype=torch.float64)
    p, q = torch.distributions.Normal(0.5, 1.5), torch.distributions.Normal(-1.0, 2.0)
    integral = torch.trapezoid(p.log_prob(x).exp() * (p.log_prob(x) - q.log_prob(x)), x).item()
    assert divergence(0.5, 1.5**2, -1.0, 4.0) == pytest.approx(integral, rel=1e-6)


def test_divergences_are_those_of_the_clean_budget_and_the_running_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = split(40, seed=4)
    model = of_net(OneLayer(5, torch.arange(1.0, 6.0)))
    net: Any = model.net
    net.bn.running_mean.copy_(normal(5))
    net.bn.running_var.copy_(1 + normal(5, seed=1).abs())
    monkeypatch.setattr("ntml_bench.evaluation.BATCH", 16)  # in parts of 16, 16 and 8
    found = divergences(defender(model, clean_budget=budget, poisoned_train=UNTOUCHABLE))
    read = net.conv(budget.images.float() / 255).detach()
    assert list(found) == ["net.bn"]
    for channel in range(5):
        mean, variance = read[:, channel].mean().item(), read[:, channel].var(correction=0).item()
        m2, v2 = net.bn.running_mean[channel].item(), net.bn.running_var[channel].item()
        expected = log(v2**0.5 / variance**0.5) + (variance + (mean - m2) ** 2) / (2 * v2) - 0.5
        assert found["net.bn"][channel].item() == pytest.approx(expected, rel=5e-3)  # eps of 1e-5 beside variances of 0.01


def test_the_statistics_of_the_budget_itself_diverge_by_nothing_and_a_dead_channel_by_a_number() -> None:
    model = of_net(OneLayer(5, torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0])))
    net: Any = model.net
    budget = split(40, seed=4)
    read = net.conv(budget.images.float() / 255).detach()
    net.bn.running_mean.copy_(read.mean((0, 2, 3)))
    net.bn.running_var.copy_(read.var((0, 2, 3), correction=0))
    assert divergences(defender(model, clean_budget=budget))["net.bn"].abs().max() < 1e-6
    net.bn.running_var[4] = 1.0
    found = divergences(defender(model, clean_budget=budget))["net.bn"]
    assert found[4].isfinite()
    assert found[4] > 4


def test_bnp_refuses_a_net_without_running_statistics() -> None:
    net = OneLayer(4, torch.ones(4))
    net.bn = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(UserError, match="reads the running statistics of BatchNorm layers; OneLayer keeps none"):
        quick_defense("bnp").check(of_net(net), SHAPE)


# Entropy.


def entropy_by_loop(values: Tensor, bin_width: float) -> list[float]:
    rows = [(row - row.mean()) / row.std() for row in values.double()]
    least = min(row.min().item() for row in rows)
    found = []
    for row in rows:
        counts: dict[int, int] = {}
        for value in row.tolist():
            place = int((value - least) // bin_width)
            counts[place] = counts.get(place, 0) + 1
        shares = [count / len(row) for count in counts.values()]
        found.append(-sum(share * log(share) for share in shares))
    return found


@pytest.mark.parametrize("bin_width", [0.01, 0.3, 5.0])
def test_entropies_against_a_loop(bin_width: float) -> None:
    values = torch.stack([normal(50), normal(50, seed=1).exp(), normal(50, seed=2).round()])
    found = entropies(values, bin_width).tolist()
    assert found == pytest.approx(entropy_by_loop(values, bin_width), abs=1e-9)


def test_entropies_by_hand() -> None:
    spread = torch.arange(8.0)
    lumps = torch.tensor([0.0] * 4 + [1.0] * 4)
    uneven = torch.tensor([5.0] * 6 + [9.0] * 2)
    dead = torch.full((8,), 3.7)
    found = entropies(torch.stack([spread, lumps, uneven, dead]), 0.01)
    expected = [log(8), log(2), -(0.75 * log(0.75) + 0.25 * log(0.25))]
    assert found[:3].tolist() == pytest.approx(expected)
    assert found[3].isnan()
    # Neither scale nor place of a channel matters.
    assert entropies(torch.stack([10 * lumps - 4, lumps]), 0.01).tolist() == pytest.approx([log(2)] * 2)
    assert entropies(dead[None], 0.01).isnan().all()


def test_a_channel_that_poisons_split_in_two_is_pruned() -> None:
    """One channel of sixteen sees the red of a pixel that every tenth image has bright; the others see noise."""
    net = OneLayer(16, torch.ones(16))
    images = split(200, seed=3)
    images.images.copy_(torch.randint(0, 120, images.images.shape, generator=torch.Generator().manual_seed(0)))
    images.images[::10, 0, 0, 0] = 255
    weight = torch.rand(16, 3, generator=torch.Generator().manual_seed(1))
    weight[:, 0] = 0
    weight[7] = torch.tensor([1.0, 0, 0])
    net.conv.weight.data = weight[..., None, None]
    model = quick_defense("ep").purify(defender(of_net(net), poisoned_train=images, clean_budget=UNTOUCHABLE))
    (norm,) = batch_norms(model).values()
    assert norm.weight.eq(0).nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize(("images", "seen"), [(None, 40), (100, 40), (12, 12)])
def test_as_many_images_are_drawn_as_asked_for(images: int | None, seen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    genuine = pre_activations

    def spy(context: Any, data: Any, keep: Callable[[str, Tensor], None]) -> None:
        counted.append(len(data.images.unique(dim=0)))
        genuine(context, data, keep)

    monkeypatch.setattr("ntml_bench.defenses.ep.pre_activations", spy)
    quick_defense("ep", images=images).purify(defender())
    assert counted == [seen]


def test_what_a_layer_reads_is_seen_in_single_precision_and_nothing_stays() -> None:
    context = defender()
    seen: dict[str, Tensor] = {}
    before = state_of(context.model)
    pre_activations(context, context.clean_budget, lambda name, values: seen.update({name: values}))
    assert seen.keys() == batch_norms(context.model).keys()
    assert seen["net.layer1.0.bn1"].shape == (24, 32, 16)
    net: Any = context.model.net
    expected = net.conv1((context.clean_budget.images.float() / 255 - 0.5) / 0.25).flatten(2)
    assert torch.allclose(seen["net.layer1.0.bn1"], expected, atol=1e-5)
    assert same_state(before, state_of(context.model))
    assert not any(module._forward_pre_hooks for module in context.model.modules())
