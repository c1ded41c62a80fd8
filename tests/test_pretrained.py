"""Nets that start from weights on disk: which ones these are, what becomes of the head, and what the keys say of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_cells import SMALL, Make, data_dir, make, quiet
from torch import Tensor

from ntml_bench.app.words import composed_settings
from ntml_bench.attacks import ATTACKS
from ntml_bench.attacks.base import PART
from ntml_bench.errors import UserError
from ntml_bench.models import ModelConfig, make_classifier, read_model
from ntml_bench.models.in_timm import create_model
from ntml_bench.store import plain

__all__ = ["data_dir", "make"]

STATISTICS = torch.zeros(3), torch.ones(3)


def saved(path: Path, name: str = "resnet_tiny", classes: int = 7) -> dict[str, Tensor]:
    """Weights of a net, in that file."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        weights = create_model(name, num_classes=classes, in_chans=3).state_dict()
    save_file(weights, path)
    return weights


def started(path: Path, classes: int, seed: int = 0, name: str = "resnet_tiny") -> dict[str, Tensor]:
    config = read_model({"name": name, "adapted": None, "pretrained": str(path)})
    return make_classifier(config, classes, (3, 16, 16), STATISTICS, seed).net.state_dict()


def test_a_net_starts_from_the_weights_but_for_the_head_of_other_classes(tmp_path: Path) -> None:
    weights = saved(tmp_path / "w.safetensors")
    same, other, again = (started(tmp_path / "w.safetensors", classes, seed) for classes, seed in ((7, 0), (10, 0), (10, 1)))
    assert all(torch.equal(same[name], weights[name]) for name in weights)
    head = {"fc.weight", "fc.bias"}
    assert all(torch.equal(other[name], weights[name]) for name in weights.keys() - head)
    assert other["fc.weight"].shape == (10, 128)
    assert not torch.equal(other["fc.weight"], again["fc.weight"])  # drawn by the seed, as any new head


def test_a_pretrained_net_keeps_its_strides_and_others_lose_them(tmp_path: Path) -> None:
    weights = saved(tmp_path / "w.safetensors", "resnet10t")
    assert {name: value.shape for name, value in started(tmp_path / "w.safetensors", 7, name="resnet10t").items()} == {
        name: value.shape for name, value in weights.items()
    }
    strides = []
    for adapted in (None, True, False):
        net: Any = make_classifier(read_model({"name": "resnet10t", "adapted": adapted}), 7, (3, 16, 16), STATISTICS, 0).net
        strides.append(net.conv1[0].stride)
    assert strides == [(1, 1), (1, 1), (2, 2)]


def test_nothing_said_is_the_net_that_it_was() -> None:
    for values in ({"name": "resnet18"}, {"name": "resnet18", "adapted": None, "pretrained": None}):
        config = read_model(values)
        assert config == ModelConfig("resnet18")
        assert config.determining() == config.recorded() == plain(config) == {"name": "resnet18"}
    assert read_model({"name": "resnet18", "adapted": True}).determining() == {"name": "resnet18"}
    assert read_model({"name": "resnet18", "adapted": False}).determining() == {"name": "resnet18", "adapted": False}


def test_a_victim_starts_there_and_its_key_is_the_content(make: Make, tmp_path: Path) -> None:
    weights = saved(tmp_path / "w.safetensors", classes=10)
    (tmp_path / "elsewhere.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes())
    words = ["model=timm", "model.name=resnet_tiny", "training.learning_rate=1e-9"]
    cell = make(*words, f"model.pretrained={tmp_path}/w.safetensors")
    record = cell.run(quiet)
    found = cell.stages.victim().model.net.state_dict()
    assert torch.allclose(found["layer2.0.conv1.weight"], weights["layer2.0.conv1.weight"], atol=1e-6)
    moved = make(*words, f"model.pretrained={tmp_path}/elsewhere.safetensors")
    assert moved.stages.keys.victim == cell.stages.keys.victim != make(*words).stages.keys.victim
    assert record["settings"]["model"]["pretrained"].startswith("w.safetensors (sha256 ")
    assert str(tmp_path) not in str(record["settings"])


@pytest.mark.parametrize(
    ("net", "said"), [("resnet10t", "missing: .* not of this net: "), (None, "model.pretrained is '.*it cannot be read")]
)
def test_other_weights_are_refused_before_anything_is_trained(make: Make, tmp_path: Path, net: str | None, said: str) -> None:
    if net is not None:
        saved(tmp_path / "w.safetensors", net)
    with pytest.raises(UserError, match=said):
        make("model=timm", "model.name=resnet_tiny", f"model.pretrained={tmp_path}/w.safetensors")


def test_poisons_are_made_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = composed_settings([*SMALL, "attack=blended"], None).attack
    images = torch.randint(0, 256, (2 * PART + 3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state = {"pattern": torch.rand(3, 8, 8)}
    whole = attack.trigger(images.float() / 255, state)
    sizes: list[int] = []
    genuine = ATTACKS["blended"].trigger

    def counted(self: Any, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        sizes.append(len(images))
        return genuine(self, images, state)

    monkeypatch.setattr(ATTACKS["blended"], "trigger", counted)
    assert torch.equal(attack.under_trigger(images, state), (whole * 255).round().to(torch.uint8))
    assert sizes == [PART, PART, 3]
    assert len(attack.under_trigger(images[:0], state)) == 0
