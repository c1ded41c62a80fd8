"""Attacks whose target depends on an image's class, from the poisons to the page; and a patch at a place of each image."""

from pathlib import Path

import pytest
import torch
from app_runner import SMALL as WORDS
from app_runner import bench, workplace
from documents import file_of_the_pages
from small_cells import Make, data_dir, make, quiet
from test_attacks import CLASSES, NO_AUGMENTATION, context, quick, train_split
from test_attacks import make as attack_of

from ntml_bench.attacks import ATTACKS, AttackContext
from ntml_bench.attacks.badnets_random import places
from ntml_bench.data.base import Split
from ntml_bench.errors import UserError
from ntml_bench.evaluation import evaluate
from ntml_bench.records.targets import Target, mapped, target_lines

__all__ = ["data_dir", "make", "workplace"]


def test_the_next_class_by_hand() -> None:
    attack = attack_of("badnets_all_to_all")
    assert attack.targets(torch.tensor([0, 5, 9]), 10).tolist() == [1, 6, 0]
    assert attack.targets(torch.tensor([42]), 43).tolist() == [0]
    assert attack.target(10) is None
    assert attack_of("badnets_all_to_all", target_class=3).targets(torch.tensor([0, 8]), 10).tolist() == [3, 1]
    one = attack_of("badnets", target_class=4)
    assert one.target(10) == 4
    assert one.targets(torch.tensor([0, 4, 9]), 10).tolist() == [4, 4, 4]
    assert one.reached(torch.tensor([0, 4, 9]), 10).tolist() == [False, True, False]


def test_poisons_come_from_all_classes_and_go_to_the_next() -> None:
    split = train_split()
    made = quick("badnets_all_to_all").poison(context(split))
    true = split.labels[made.indices]
    assert true.bincount().tolist() == [3, 3, 3, 3]
    assert made.labels.tolist() == ((true + 1) % CLASSES).tolist()
    # The trigger is that of badnets.
    assert torch.equal(
        made.images, (quick("badnets").trigger(split.images[made.indices] / 255, {}) * 255).round().to(torch.uint8)
    )


def test_a_map_to_itself_is_refused() -> None:
    with pytest.raises(UserError, match=r"attack\.target_class is 0: .*allowed: 1 to 9"):
        attack_of("badnets_all_to_all", target_class=0).check(torch.full((10,), 50), (3, 32, 32))


def test_a_map_beyond_the_classes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = attack_of("badnets_all_to_all")
    for targets in ([1, 2, 3], [1, 2, 3, 4], [-1, 0, 1, 2]):
        monkeypatch.setattr(type(attack), "targets", lambda *_, targets=targets: torch.tensor(targets))
        with pytest.raises(UserError, match="maps the classes 0 to 3 to"):
            attack.check(torch.full((4,), 50), (3, 32, 32))


def test_without_the_context_a_map_has_no_labels() -> None:
    attack, images = quick("badnets_all_to_all"), torch.zeros(2, 3, 12, 10)
    with pytest.raises(TypeError, match="all_poisons needs the context"):
        attack.all_poisons(torch.arange(2), images, {}, {})
    assert quick("badnets").all_poisons(torch.arange(2), images, {}, {}).labels.tolist() == [0, 0]


def test_a_perfect_backdoor_has_asr_100_and_ra_0(make: Make) -> None:
    cell = make(attack="badnets_all_to_all")
    triggered, test = cell.stages.triggered_by({}), cell.data.test
    assert len(triggered.split) == len(test)

    class Perfect(torch.nn.Module):
        """Knows the test images, and the trigger."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            known = torch.cat([test.images, triggered.split.images]).flatten(1).float() / 255
            answers = torch.cat([test.labels, (test.labels + 1) % 10])
            return torch.nn.functional.one_hot(answers[torch.cdist(images.flatten(1), known).argmin(1)], 10).float()

    found = evaluate(cell.engine, Perfect(), test, triggered)
    assert (found["clean_accuracy"], found["attack_success_rate"], found["robust_accuracy"]) == (100, 100, 0)


def test_a_cell_says_its_map(make: Make) -> None:
    cell = make(attack="badnets_all_to_all")
    record = cell.run(quiet)
    assert record["targets"] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert record["target_name"] == "0 to 1, 1 to 2, 2 to 3, and so on"
    assert record["notes"]["poisons"] == 16
    assert "targets" not in make(attack="badnets").manifest_entry()


def test_a_map_in_words() -> None:
    assert mapped([1, 2, 0]) == "0 to 1, 1 to 2, 2 to 0"
    assert mapped([1, 2, 3, 4, 0]) == "0 to 1, 1 to 2, 2 to 3, and so on"
    targets = [Target("digits", "badnets", 0, "zero"), Target("digits", "each", None, mapped([1, 0])), None]
    assert target_lines(targets) == ["target class of badnets: 0 ('zero')", "target classes of each: 0 to 1, 1 to 0"]


@pytest.mark.usefixtures("workplace")
def test_an_attack_from_outside_aims_at_every_class(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    for name in ("frame.py", "next_class.py", "my_conf/attack/next_class.yaml"):
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text(file_of_the_pages(name))
    monkeypatch.syspath_prepend(str(workplace))
    outcome = bench(
        "-m", "--config-dir", "my_conf", *WORDS, "imports=[next_class]", "attack=next_class", "defense=none,i_bau", "sweep=maps"
    )
    assert outcome.code == 0, outcome.output + outcome.errors
    assert "target classes of next_class: 0 to 1, 1 to 2, 2 to 3, and so on" in outcome.output
    table = (workplace / "outputs/tables/maps/table.md").read_text()
    assert r"Target classes of next\_class: 0 to 1, 1 to 2, 2 to 3, and so on" in table
    from ntml_bench.report.main import main

    assert main(["maps"]) == 0
    page = (workplace / "outputs/tables/maps/report.html").read_text()
    assert "target: another class for each" in page
    assert "Target classes of next_class: 0 to 1, 1 to 2, 2 to 3, and so on" in page
    del ATTACKS._classes["next_class"], ATTACKS._classes["frame"]


# A place for each image.


def test_the_patch_lies_inside_at_a_place_of_each_image() -> None:
    images = torch.rand(200, 3, 12, 10, generator=torch.Generator().manual_seed(5)) * 0.9
    attack = quick("badnets_random", patch_size=4)
    state = attack.trigger_state(context(train_split()))
    changed = (attack.trigger(images, state) != images).all(1)
    assert changed.flatten(1).sum(1).tolist() == [16] * 200
    corners = set()
    for mask in changed:
        rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
        assert (len(rows), len(columns)) == (4, 4)
        assert bool(mask[rows[0] : rows[0] + 4, columns[0] : columns[0] + 4].all())
        corners.add((rows[0], columns[0]))
    assert len(corners) > 40  # of 63 places


def test_the_place_is_the_image_files() -> None:
    split = train_split()
    attack = quick("badnets_random")
    state, images = attack.trigger_state(context(split)), split.images / 255
    triggered = attack.trigger(images, state)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack.trigger(images[order], state), triggered[order])
    assert torch.equal(attack.trigger(images.double(), state).float(), triggered)
    other = attack.trigger(images, attack.trigger_state(context(split, seed=1)))
    assert not torch.equal(other, triggered)


def test_places_by_hand() -> None:
    images = torch.tensor([1, 2, 255], dtype=torch.uint8).view(3, 1, 1, 1) / 255
    # Products with 2^33 modulo 2^64, without their lower 33 bits: the pixels themselves.
    row, column = places(images, torch.tensor([[2**33], [-(2**33)]]), (10, 7))
    assert row.tolist() == [1, 2, 5]
    assert column.tolist() == [-1 % 7, -2 % 7, -255 % 7]
    wrapped, _ = places(images, torch.tensor([[2**62 + 2**33], [0]]), (1000, 1))
    assert wrapped.tolist() == [(((pixel * (2**62 + 2**33) + 2**63) % 2**64 - 2**63) >> 33) % 1000 for pixel in (1, 2, 255)]


def test_a_checkerboard_begins_white() -> None:
    attack = attack_of("badnets_random", pattern="checker", patch_size=2)
    grey = torch.full((1, 1, 2, 2), 0.5)
    made = attack.trigger(grey, {"key": torch.zeros(2, 4, dtype=torch.int64)})
    assert made.flatten().tolist() == [1, 0, 0, 1]


def test_a_patch_beyond_the_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"attack\.patch_size is 11: larger than the image \(12 x 10\); allowed: at most 10"):
        attack_of("badnets_random", patch_size=11).check(torch.full((4,), 30), (3, 12, 10))


def test_poisons_carry_the_trigger_of_the_test() -> None:
    split = Split(train_split().images, train_split().labels)
    attack = quick("badnets_random")
    made = attack.poison(AttackContext(split, CLASSES, 0, lambda: None, lambda *_: None, NO_AUGMENTATION))  # type: ignore[arg-type]
    expected = attack.trigger(split.images[made.indices] / 255, made.state)
    assert torch.equal(made.images, (expected * 255).round().to(torch.uint8))
