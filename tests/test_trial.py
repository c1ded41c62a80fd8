"""What a net is tried for before it is trained: that it runs, can be trained, and sees every pixel of its images."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from builders import same_state, state_of
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.errors import UserError
from ntml_bench.models import Classifier, ModelConfig, check_net, make_classifier
from ntml_bench.models.classifier import patch_size

STATISTICS = torch.zeros(3), torch.ones(3)


def made(name: str, height: int, width: int | None = None) -> Classifier:
    return make_classifier(ModelConfig(name), 10, (3, height, width or height), STATISTICS, seed=0).eval()


class Net(nn.Module):
    """For images of 12x12: what is done to them, a stem, a linear head."""

    def __init__(self, before: Callable[[Tensor], Tensor] = lambda images: images, stem: nn.Module | None = None) -> None:
        super().__init__()
        self.before = before
        self.stem = stem or nn.Conv2d(3, 8, 3, 2, 1)
        self.fc = nn.Linear(self.features(torch.zeros(1, 3, 12, 12)).shape[1], 10)

    def features(self, images: Tensor) -> Tensor:
        return functional.relu(self.stem(self.before(images))).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


def tried(net: nn.Module) -> None:
    check_net("mine", Classifier(net, *STATISTICS), (3, 12, 12), 10)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(32, 32, 4), (64, 64, 8), (48, 48, 6), (14, 14, 1), (44, 44, 4), (28, 28, 4), (60, 60, 6), (28, 44, 4), (32, 48, 4)],
)
def test_patches_cover_the_image(height: int, width: int, size: int) -> None:
    assert patch_size(height, width) == size
    assert height % size == width % size == 0


@pytest.mark.parametrize(("name", "height", "width"), [("vit_tiny_patch16_224", 44, 44), ("test_vit", 28, 44)])
def test_a_net_of_patches_sees_a_trigger_in_the_corner(name: str, height: int, width: int) -> None:
    model = made(name, height, width)
    check_net(name, model, (3, height, width), 10)
    images = torch.rand(2, 3, height, width)
    triggered = images.clone()
    triggered[:, :, -3:, -3:] = 1
    with torch.no_grad():
        assert not torch.equal(model(images), model(triggered))


def test_the_patch_size_is_told_where_it_was_another_one() -> None:
    assert made("vit_tiny_patch16_224", 32).patch_size is None
    assert made("vit_tiny_patch16_224", 44).patch_size == 4
    assert made("resnet18", 44).patch_size is None


def test_a_net_that_heeds_no_patch_is_what_it_was() -> None:
    @register_model
    def heedless_net(num_classes: int = 10, in_chans: int = 3, **_: Any) -> nn.Module:
        return nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

    assert heedless_net is not None
    assert made("heedless_net", 44).patch_size is None
    assert made("heedless_net", 31).patch_size is None


@pytest.mark.parametrize(("height", "width"), [(31, 31), (37, 37), (32, 33)])
def test_an_image_that_no_patch_divides_is_refused(height: int, width: int) -> None:
    with pytest.raises(UserError, match=rf"model\.name=vit_tiny_patch16_224 cuts .* {height}x{width} .* use images of \d+ pix"):
        made("vit_tiny_patch16_224", height, width)


@pytest.mark.parametrize(("name", "size"), [("twins_pcpvt_small", 28), ("levit_128s", 32), ("visformer_tiny", 32)])
def test_a_net_that_timm_does_not_make_of_this_size_is_named(name: str, size: int) -> None:
    with pytest.raises(UserError, match=rf"model\.name={name} "):
        check_net(name, made(name, size), (3, size, size), 10)


BLIND = {
    "cut off": (Net(lambda images: images[..., :10, :]), 24, "row 10, column 0"),
    "every second": (Net(stem=nn.Conv2d(3, 8, 1, 2)), 108, "row 0, column 1"),
    "without padding": (Net(stem=nn.Conv2d(3, 8, 5, 5)), 44, "row 0, column 10"),
    "one pixel": (Net(lambda images: images * (torch.arange(144).view(12, 12) != 5)), 1, "row 0, column 5"),
    "made smaller": (Net(lambda images: functional.interpolate(images, size=(6, 6), mode="nearest")), 108, "row 0, column 1"),
    "rounded and cut off": (Net(lambda images: (images[..., :10] * 9).round()), 24, "row 0, column 10"),
    "all": (Net(lambda images: images * 0), 144, "row 0, column 0"),
}


@pytest.mark.parametrize("how", BLIND)
def test_a_net_that_does_not_see_a_pixel_is_refused(how: str) -> None:
    net, count, first = BLIND[how]
    with pytest.raises(UserError, match=rf"model\.name=mine does not see all .* {count} of its 144 pixels .* {first}"):
        tried(net)


def test_a_timm_net_that_steps_over_pixels_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.name=pit_ti_224 does not see all of an image of 32x32 pixels"):
        check_net("pit_ti_224", made("pit_ti_224", 32), (3, 32, 32), 10)


def zeroed(net: Net, name: str) -> Net:
    nn.init.zeros_(net.get_parameter(name))
    return net


# Made in the test, which has a seed: whether a unit is open on any of the images that are tried depends on its weights.
SEEING: dict[str, Callable[[], nn.Module]] = {
    "zero head": lambda: zeroed(Net(), "fc.weight"),
    "zero stem": lambda: zeroed(Net(), "stem.weight"),
    "rounded": lambda: Net(lambda images: (images * 9).round()),
    "dropout": lambda: nn.Sequential(nn.Dropout2d(0.9), Net()),
    "noise": lambda: Net(lambda images: images + torch.rand_like(images)),
    "mostly closed units": lambda: Net(stem=nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.Threshold(0.6, 0.0))),
}


@pytest.mark.parametrize("how", SEEING)
def test_a_net_that_sees_all_is_not_refused(how: str) -> None:
    tried(SEEING[how]())


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "test_efficientnet"])
@pytest.mark.parametrize("size", [28, 44])
def test_branches_that_start_at_zero_are_no_blindness(name: str, size: int) -> None:
    check_net(name, made(name, size), (3, size, size), 10)


class Strange(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer, self.fc = answer, nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Any:
        return self.answer(self.fc(images.mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Strange(lambda logits: logits[:, :9]), r"makes \[1, 9\] of 1 images; it must be logits \[1, 10\]"),
        (Strange(lambda logits: (logits, logits)), "makes tuple of 1 images"),
        (Strange(lambda logits: logits @ logits), "fails on images of 12x12 pixels: RuntimeError"),
        (Net(lambda images: images.view(len(images), -1).view(images.shape)), "fails on images .* RuntimeError: view size"),
        (Net().requires_grad_(False), "fails on images of 12x12 pixels: .*does not require grad"),
    ],
)
def test_a_net_that_cannot_be_trained_is_refused(net: nn.Module, words: str) -> None:
    with pytest.raises(UserError, match=rf"model\.name=mine {words}"):
        tried(net)


def test_a_trial_leaves_the_model_and_the_global_stream_alone() -> None:
    model = made("test_efficientnet", 32).train()
    before, stream = state_of(model), torch.get_rng_state()
    check_net("test_efficientnet", model, (3, 32, 32), 10)
    assert same_state(before, state_of(model))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), stream)


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "vit_tiny_patch16_224.augreg_in21k", "resnet18."])
def test_a_name_of_weights_is_no_name_of_a_net(name: str) -> None:
    assert timm.is_model(name)
    with pytest.raises(UserError, match=r"model\.name"):
        made(name, 32)
    if not name.endswith("."):
        with pytest.raises(UserError, match=rf"no weights are downloaded here.*use model\.name={name.split('.')[0]}"):
            made(name, 32)


def test_an_old_name_of_weights_is_answered_with_a_net() -> None:
    with pytest.raises(UserError, match=r"unknown model\.name 'tv_resnet50'\. Did you mean 'resnet50'\?"):
        made("tv_resnet50", 32)
