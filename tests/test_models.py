"""The models: our nets by their numbers, timm's nets on small images."""

from math import prod

import pytest
import torch
from builders import CLASSES, classifier, same_state, split, state_of
from safetensors.torch import load, save
from torch import nn

from ntml_bench.data.base import Split, channel_statistics
from ntml_bench.defenses.base import feature_maps
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier, ModelConfig, make_classifier
from ntml_bench.models.airbench import DEVIATIONS, LEAST_VARIANCE, ConvGroup, whitening_filters
from ntml_bench.models.preact_resnet import PreActBlock

STATISTICS = torch.zeros(3), torch.ones(3)
TIMM = ["resnet18", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224", "regnetx_002"]


def make(name: str, seed: int = 0, size: int = 32, classes: int = 10, channels: int = 3) -> Classifier:
    return make_classifier(
        ModelConfig(name), classes, (channels, size, size), (torch.zeros(channels), torch.ones(channels)), seed
    )


@pytest.mark.parametrize(
    ("name", "count"), [("resnet_tiny", 308_266), ("airbench_small", 498_104), ("preact_resnet18", 11_172_170)]
)
def test_parameters_of_our_nets(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in make(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "widths", "sides"),
    [
        ("resnet_tiny", [32, 64, 128], [16, 8, 4]),
        ("airbench_small", [32, 128, 128], [15, 7, 3]),
        ("preact_resnet18", [64, 128, 256, 512], [32, 16, 8, 4]),
    ],
)
def test_stages_of_our_nets(name: str, widths: list[int], sides: list[int]) -> None:
    model = make(name).eval()
    with torch.no_grad():
        logits, maps = feature_maps(model, model.stages(len(widths)), torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    assert [tuple(features.shape) for features in maps] == [(2, w, s, s) for w, s in zip(widths, sides, strict=True)]


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 1), (4, 8, 2), (4, 4, 2)])
def test_a_pre_activation_block(inputs: int, outputs: int, stride: int) -> None:
    block = PreActBlock(inputs, outputs, stride).eval()
    x = torch.randn(2, inputs, 8, 8)
    with torch.no_grad():
        result = block(x)
        activated = x.clamp_min(0) / (1 + 1e-5) ** 0.5  # BatchNorm as it starts, then ReLU
        middle = nn.functional.conv2d(activated, block.conv1.weight, stride=stride, padding=1)
        branch = nn.functional.conv2d(middle.clamp_min(0) / (1 + 1e-5) ** 0.5, block.conv2.weight, padding=1)
        assert (block.shortcut is None) == (inputs == outputs and stride == 1)
        shortcut = x if block.shortcut is None else block.shortcut(activated)
    assert result.shape == (2, outputs, 8 // stride, 8 // stride)
    assert torch.allclose(result, branch + shortcut, atol=1e-5)


def test_a_group_pools_before_it_normalises() -> None:
    group = ConvGroup(3, 4).eval()
    x = torch.randn(2, 3, 7, 7)
    scale = 1 / (1 + 1e-5) ** 0.5  # BatchNorm as it starts
    with torch.no_grad():
        first = nn.functional.conv2d(x, group.conv1.weight, padding=1)
        pooled = torch.stack([first[:, :, i:6:2, j:6:2] for i in (0, 1) for j in (0, 1)]).amax(0) * scale
        second = nn.functional.conv2d(pooled * torch.special.ndtr(pooled), group.conv2.weight, padding=1) * scale
        assert torch.allclose(group(x), second * torch.special.ndtr(second), atol=1e-5)


def test_the_logits_are_a_ninth_of_the_linear_layer() -> None:
    model = make("airbench_small").eval()
    with torch.no_grad():
        logits, (seen,) = feature_maps(model, [model.head], torch.rand(2, 3, 32, 32))
    assert torch.allclose(logits, seen / 9)


def test_the_first_layer_gives_patches_of_photographs_variance_one() -> None:
    filters = whitening_filters()
    half = filters[:12].reshape(12, 12).double()
    assert torch.equal(filters[12:], -filters[:12])
    basis = nn.functional.normalize(half, dim=1)
    assert torch.allclose(basis @ basis.T, torch.eye(12).double(), atol=1e-6)
    deviations = torch.tensor(DEVIATIONS).double().flatten()
    covariance = basis.T @ deviations.square().diag() @ basis  # of patches that are as the table says
    response = half @ covariance @ half.T
    assert torch.allclose(response, (deviations.square() / (deviations.square() + LEAST_VARIANCE)).diag(), atol=1e-5)
    stem = make("airbench_small").net.get_submodule("stem")
    assert isinstance(stem, nn.Conv2d)
    assert torch.equal(stem.weight, filters)
    assert stem.bias is not None
    assert not stem.bias.any()


@pytest.mark.parametrize(("size", "channels", "side"), [(28, 1, 3), (9, 3, 1), (64, 3, 7)])
def test_the_plain_net_takes_other_sizes_and_channels(size: int, channels: int, side: int) -> None:
    model = make("airbench_small", size=size, channels=channels, classes=7).eval()
    with torch.no_grad():
        logits, (features,) = feature_maps(model, model.stages(1), torch.rand(2, channels, size, size))
    assert logits.shape == (2, 7)
    assert features.shape[2:] == (side, side)


def test_the_other_convolutions_begin_as_the_identity() -> None:
    first, second = make("airbench_small", seed=0).net, make("airbench_small", seed=1).net
    for name, inputs in [("group1.conv1", 24), ("group1.conv2", 32), ("group2.conv1", 32), ("group3.conv2", 128)]:
        conv, other = first.get_submodule(name), second.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(other, nn.Conv2d)
        x = torch.randn(2, inputs, 6, 6)
        assert torch.equal(conv(x)[:, :inputs], x)
        assert torch.equal(conv.weight[inputs:], other.weight[inputs:]) == (len(conv.weight) == inputs)  # the rest is drawn


@pytest.mark.parametrize("name", TIMM)
def test_a_net_of_timm_is_adapted_to_small_images(name: str) -> None:
    model = make(name).eval()
    stage = model.stages(1)
    with torch.no_grad():
        logits, (features,) = feature_maps(model, stage, torch.rand(3, 3, 32, 32))
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()
    if name.startswith("vit"):
        assert features.shape[1] == 1 + 64  # a class token and 8x8 patches
    else:
        assert features.shape[2:] == (4, 4)
    assert isinstance(model.head, nn.Linear) or name.startswith("mobilenet")


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (48, 3), (64, 3)])
@pytest.mark.parametrize("name", ["resnet18", "resnet_tiny"])
def test_other_sizes_and_channels(name: str, size: int, channels: int) -> None:
    model = make(name, size=size, channels=channels, classes=7).eval()
    with torch.no_grad():
        logits, (features,) = feature_maps(model, model.stages(1), torch.rand(2, channels, size, size))
    assert logits.shape == (2, 7)
    assert min(features.shape[2:]) >= 4


def test_an_adapted_net_trains() -> None:
    model = make("mobilenetv3_small_050").train()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet_tinny", "resnet_tiny"), ("resnet-18", "resnet18"), ("preact_resnet", "preact_resnet18")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"unknown model\.name '{name}'\. Did you mean '{nearest}'\?"):
        make(name)


def test_a_net_that_cannot_be_adapted_is_named() -> None:
    with pytest.raises(UserError, match=r"model\.name=.* cannot be adapted to images of 32x32"):
        make("levit_128s")


def test_weights_depend_on_the_seed_alone() -> None:
    first = state_of(make("resnet_tiny"))
    torch.manual_seed(1234)
    assert same_state(first, state_of(make("resnet_tiny")))
    other = state_of(make("resnet_tiny", seed=1))
    assert not torch.equal(first["net.conv1.weight"], other["net.conv1.weight"])
    assert not torch.equal(first["net.fc.weight"], other["net.fc.weight"])


def test_making_a_model_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    make("resnet_tiny")
    assert torch.equal(torch.get_rng_state(), before)


def test_statistics_against_direct_computation() -> None:
    images = torch.randint(0, 256, (50, 3, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] //= 4
    mean, deviation = channel_statistics(Split(images, torch.zeros(50, dtype=torch.long)))
    scaled = images.double() / 255
    assert mean.dtype == deviation.dtype == torch.float32
    assert torch.allclose(mean.double(), scaled.mean(dim=(0, 2, 3)), atol=1e-7)
    assert torch.allclose(deviation.double(), scaled.permute(1, 0, 2, 3).flatten(1).std(dim=1, unbiased=False), atol=1e-7)


def test_a_channel_without_variation_can_be_divided_by() -> None:
    mean, deviation = channel_statistics(
        Split(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
    )
    assert mean.item() == pytest.approx(0.2)
    assert deviation.item() == pytest.approx(1e-3)


def test_a_model_normalises_its_images() -> None:
    model = Classifier(nn.Flatten(), torch.tensor([0.5, 0.25]), torch.tensor([0.5, 0.125]))
    images = torch.tensor([[[[1.0]], [[0.5]]]])
    assert model(images).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("name", ["resnet_tiny", "resnet18"])
def test_a_model_that_was_saved_and_loaded_gives_the_same_logits(name: str) -> None:
    model = classifier(name)
    other = classifier(name, seed=1)
    other.mean.zero_()
    images = split(6).images.float() / 255
    with torch.no_grad():
        expected = model(images)
        assert not torch.equal(other(images), expected)
        other.load_state_dict(load(save({key: value.contiguous() for key, value in model.state_dict().items()})))
        assert torch.equal(other(images), expected)
    assert expected.shape == (6, CLASSES)
    assert prod(model.mean.shape) == 3


def test_a_net_without_a_linear_head_is_named() -> None:
    class Convolutional(nn.Module):
        def get_classifier(self) -> nn.Module:
            return nn.Conv2d(3, 4, 1)

    with pytest.raises(UserError, match="Convolutional ends in Conv2d; this needs a net that ends in a linear layer"):
        _ = Classifier(Convolutional(), *STATISTICS).head


def test_too_few_stages_are_named() -> None:
    with pytest.raises(UserError, match=r"PreActResNet names 3 stages of feature maps; this needs 4"):
        make("resnet_tiny").stages(4)
    with pytest.raises(UserError, match=r"Flatten names 0 stages of feature maps; this needs 1"):
        Classifier(nn.Flatten(), *STATISTICS).stages(1)
