"""The re-tuning attack: which images a purified model is tuned on, what is measured and stored, and where it is shown."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from page_tree import parse
from report_pages import report_of
from small_cells import Make, data_dir, make, quiet
from table_records import entry, golden, metrics, record, write_sweep
from torch.nn import functional

from ntml_bench.app.cell import Cell
from ntml_bench.data.augmentation import augment
from ntml_bench.data.base import Split
from ntml_bench.errors import UserError
from ntml_bench.evaluation import evaluate
from ntml_bench.records.scatter import NO_NUMBER
from ntml_bench.report.page import render_report
from ntml_bench.retuning import retuning_split
from ntml_bench.seeding import generator
from ntml_bench.table.main import main
from ntml_bench.table.render import render_sweep

__all__ = ["data_dir", "make"]

RETUNED = ("robustness=retuning", "retuning.share=0.3", "retuning.poisons=4", "retuning.recipe.batch_size=16")


def artifacts_of(cell: Cell) -> set[str]:
    return {path.name for path in cell.store.root.iterdir() if not path.name.startswith(".")}


def pairs_of(split: Split) -> list[tuple[bytes, int]]:
    return [(image.numpy().tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)]


@pytest.mark.parametrize("attack", ["badnets", "wanet", "sig"])
def test_a_handful_of_poisons_lie_among_clean_images(attack: str, make: Make) -> None:
    cell = make(*RETUNED, attack=attack, defense="ft")
    config, train = cell.settings.retuning, cell.data.train
    assert config is not None
    poisoning = cell.stages.victim().poisoning
    split = retuning_split(config, train, poisoning, seed=0)
    assert len(split) == round(0.3 * len(train))
    of_attack = {image.numpy().tobytes() for image in poisoning.images[poisoning.is_poison]}
    assert {image.numpy().tobytes() for image in split.images[:4]} <= of_attack
    assert (split.labels[:4] == cell.settings.attack.config.target_class).all()
    untouched = torch.ones(len(train), dtype=torch.bool)
    untouched[poisoning.indices] = False
    assert set(pairs_of(split)[4:]) <= set(pairs_of(train[untouched.nonzero().flatten()]))
    again, other = (retuning_split(config, train, poisoning, seed) for seed in (0, 1))
    assert torch.equal(split.images, again.images)
    assert not torch.equal(split.images, other.images)


def test_a_purified_model_and_a_clean_one_are_measured_once_more(make: Make) -> None:
    plain = make("floor=true", defense="ft")
    before = plain.run(quiet)
    cell = make(*RETUNED, "floor=true", defense="ft")
    made = cell.run(quiet)
    config = cell.settings.retuning
    assert config is not None
    assert (made["after"], made["floor"]) == (before["after"], before["floor"])
    assert "retuned" not in before
    assert "retuning" not in before["settings"]
    assert made["settings"]["retuning"]["poisons"] == 4
    stages, recipe = cell.stages, config.recipe
    split = retuning_split(config, cell.data.train, stages.victim().poisoning, 0)
    for name, model in (("after", stages.purified().model), ("floor", stages.clean_model())):
        tuned = deepcopy(model).train()
        optimizer = torch.optim.SGD(tuned.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
        order_rng, batch_rng = (generator(0, f"retuning/{purpose}", "cpu") for purpose in ("order", "augmentation"))
        for _ in range(recipe.epochs):
            for index in torch.randperm(48, generator=order_rng).view(3, 16):
                images = cell.engine.images(split.images[index])
                images = augment(images, cell.settings.dataset.config.augmentation, batch_rng)
                loss = functional.cross_entropy(tuned(images), split.labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        expected = evaluate(cell.engine, tuned, cell.data.test, stages._triggered_test())
        for metric, value in expected.items():
            assert made["retuned"][name][metric] == pytest.approx(value, abs=1e-3), (name, metric)
    assert set(cell.stages.keys.artifacts(floor=True)) <= artifacts_of(cell) | {f"surrogate-{cell.stages.keys.surrogate}"}


def test_only_what_is_asked_for_is_in_the_keys(make: Make) -> None:
    plain, retuned = make(defense="ft"), make(*RETUNED, defense="ft")
    assert retuned.key != plain.key
    assert retuned.stages.keys.purified == plain.stages.keys.purified
    assert make(*RETUNED, "retuning.poisons=5", defense="ft").key != retuned.key
    assert make("retuning.poisons=9", defense="ft").key == plain.key
    # There is no purified model to tune.
    assert make(*RETUNED, defense="none").key == make(defense="none").key
    assert make(*RETUNED, attack="none", defense="ft").key == make(attack="none", defense="ft").key


def test_a_choice_among_strengths_is_re_tuned_too(make: Make) -> None:
    cell = make(*RETUNED, "tuning=price", "price=100", "defense.strength.values=[0.001,0.01]", defense="ft")
    made = cell.run(quiet)
    assert made["retuned"]["after"]["attack_success_rate"] is not None
    key = cell.stages.keys.retuned(cell.stages.purified().key)
    assert f"evaluation-{key}" in cell.stages.keys.artifacts(floor=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("retuning.poisons=17", "retuning.poisons is 17; allowed: at most 16, as many as the attack poisons"),
        ("retuning.share=0.02", r"retuning.share is 0.02 of 160 training images, 3; allowed: more than retuning.poisons \(4\)"),
        ("retuning.share=0.95", "at most the 144 that the attack leaves as they are"),
    ],
)
def test_what_is_not_there_is_not_asked_for(change: str, said: str, make: Make) -> None:
    with pytest.raises(UserError, match=said):
        make(*RETUNED, change, defense="ft")


def retuned_sweep(outputs: Path) -> Path:
    cells = [entry(attack, defense) for attack in ("badnets", "sig") for defense in ("none", "ft")]
    records = []
    for number, cell in enumerate(cells):
        done = record(cell, metrics(95, 10 + number, 80), metrics(96, 99, 1), metrics(97, 2, 95))
        if cell["defense"] == "ft":
            done["retuned"] = {"after": metrics(94, 60 + number, 30), "floor": metrics(96, 5, 90)}
        records.append(done)
    return write_sweep(outputs, "retuned", cells, records)


def test_table_and_page_show_what_came_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = retuned_sweep(tmp_path)
    summary = render_sweep(folder, tmp_path / "out", ("csv", "md", "tex", "html"))
    text = (tmp_path / "out" / "table.md").read_text()
    section = text[text.index("RASR") :].splitlines()
    lines = [[part.strip().strip("*") for part in line.split("|")[1:5]] for line in section if "|" in line]
    rows = {name: found for name, *found in lines}
    assert rows["badnets"] == ["5.0", NO_NUMBER, "61.0"]
    assert rows["sig"] == ["5.0", NO_NUMBER, "63.0"]
    assert [found for name, found in rows.items() if "average" in name] == [["5.0", NO_NUMBER, "62.0"]]
    assert "RASR: ASR of the model once it was fine-tuned again on a few poisons" in text
    lines = (tmp_path / "out" / "cells.csv").read_text().splitlines()
    assert lines[0].endswith(",retuned_attack_success_rate")
    assert [line.split(",")[-1] for line in lines[1:]] == ["", "61.00", "", "63.00"]
    page = parse(render_report(report_of(folder)))
    assert summary.metrics[-1] == "retuned_attack_success_rate"
    assert [found["value"] for found in page.all("input") if found["name"] == "metric"] == ["acc", "asr", "ra", "der", "rasr"]
    assert main(["retuned", "--outputs", str(tmp_path), "--metrics", "rasr", "--format", "md"]) == 0
    assert "ACC / ASR" not in (tmp_path / "tables" / "retuned" / "table.md").read_text()
    capsys.readouterr()


def test_without_it_nothing_of_it_is_shown(tmp_path: Path) -> None:
    render_sweep(write_sweep(tmp_path, "golden", *golden()), tmp_path, ("csv", "md"))
    assert "RASR" not in (tmp_path / "table.md").read_text()
    assert "retuned" not in (tmp_path / "cells.csv").read_text()
