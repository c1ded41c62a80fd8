"""What was made here, taken away: images in folders and back again, models and triggers from Python."""

import csv
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documents import REPOSITORY, Page
from PIL import Image
from small_cells import SMALL
from torchvision.datasets import ImageFolder

import ntml_bench
from ntml_bench import Classifier, UserError, load_model, load_poisons, load_records, load_trigger, run_cell, weights_of
from ntml_bench.app.stored import StoredCell, stored_cells
from ntml_bench.app.words import composed_settings
from ntml_bench.attacks.given_images import Poisons
from ntml_bench.data.base import Split, to_float, to_uint8
from ntml_bench.data.loading import load
from ntml_bench.housekeeping import main as store
from ntml_bench.housekeeping.images import folder_names
from ntml_bench.store import key_of

WORDS = [*SMALL, "attack=wanet", "attack.poisoning_rate=0.1", "deterministic=true", "sweep=own"]
BADNETS = [*SMALL, "attack=badnets", "deterministic=true", "sweep=own"]
DEFENDED = [*BADNETS, "defense=ft", "defense.recipe.epochs=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def records(place: Path) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return [run_cell(*DEFENDED), run_cell(*WORDS, "defense=none")]


@pytest.fixture(autouse=True)
def desk(place: Path, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def exported(place: Path, records: list[dict[str, Any]]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert store.main(["images", "own", "--attack", "badnets", "--to", "given", "--clean"]) == 0
    return place / "given"


def test_the_public_names_are_typed_explained_and_light() -> None:
    assert ntml_bench.__all__ == sorted(ntml_bench.__all__)
    for name in ntml_bench.__all__:
        found = getattr(ntml_bench, name)
        assert found.__doc__
        if inspect.isfunction(found):
            signature = inspect.signature(found)
            assert signature.return_annotation is not signature.empty
            assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())
    with pytest.raises(AttributeError, match="no attribute 'load_models'"):
        _ = ntml_bench.load_models  # pyright: ignore[reportAttributeAccessIssue]


def test_records_are_flat_rows(records: list[dict[str, Any]]) -> None:
    rows = load_records("own")
    assert [row["key"] for row in rows] == [record["key"] for record in records]
    assert len({tuple(row) for row in rows}) >= 1
    assert not any(isinstance(value, dict) for row in rows for value in row.values())
    row, record = rows[0], records[0]
    assert (row["attack"], row["defense"], row["seed"], row["state"]) == ("badnets", "ft", 0, "done")
    assert row["clean_accuracy"] == record["after"]["clean_accuracy"]
    assert row["undefended_attack_success_rate"] == record["before"]["attack_success_rate"]
    assert row["floor_clean_accuracy"] is None
    assert row["attack.poisoning_rate"] == 0.1
    assert row["defense.recipe.epochs"] == 1
    with pytest.raises(UserError, match="sweep"):
        load_records("owm")


@pytest.mark.parametrize("defense", [None, "ft"])
def test_a_loaded_model_and_trigger_give_the_numbers_of_the_record(
    defense: str | None, records: list[dict[str, Any]], place: Path
) -> None:
    model, trigger = load_model("own", attack="badnets", defense=defense), load_trigger("own", attack="badnets")
    settings = composed_settings([*BADNETS, "defense=none"], None)
    test = load(settings.dataset, place / "outputs" / "data", 0).test
    images, labels = test.images.float() / 255, test.labels
    others = labels != 0
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).double().mean()
        fooled = (model(trigger(images[others])).argmax(1) == 0).double().mean()
    found = records[0]["after" if defense else "before"]
    assert 100 * float(right) == pytest.approx(found["clean_accuracy"])
    assert 100 * float(fooled) == pytest.approx(found["attack_success_rate"])


def test_loaded_poisons_are_the_training_images_under_the_trigger_and_the_target_label(place: Path) -> None:
    poisons, trigger = load_poisons("own", attack="badnets"), load_trigger("own", attack="badnets")
    train = load(composed_settings([*BADNETS, "defense=none"], None).dataset, place / "outputs" / "data", 0).train
    assert len(poisons.indices) == 16  # a tenth of 160
    assert torch.equal(poisons.images, to_uint8(trigger(to_float(train.images[poisons.indices]))))
    assert poisons.labels.tolist() == [0] * 16
    assert bool(poisons.is_poison.all())
    covered = load_poisons("own", attack="wanet")  # whose noise mode makes covers
    assert 0 < int(covered.is_poison.sum()) < len(covered.indices)
    run_cell(*SMALL, "attack=none", "defense=none", "sweep=own_clean")
    with pytest.raises(UserError, match=r"none x none on .* has no attack, and so no poisons"):
        load_poisons("own_clean")


def test_weights_are_a_state_dict_of_the_timm_net() -> None:
    from ntml_bench.models.in_timm import create_model

    model = load_model("own", attack="badnets", defense="ft")
    assert isinstance(model, Classifier)
    net = create_model("resnet_tiny", num_classes=10, in_chans=3)
    net.load_state_dict(weights_of(model))
    images = torch.rand(3, 3, 12, 12)
    assert torch.equal(net.eval()((images - model.mean) / model.std), model(images))


def test_a_cell_is_found_or_the_choice_is_named() -> None:
    with pytest.raises(UserError, match=r"2 backdoored models fit; say more of .*badnets x ft.*wanet x none"):
        load_model("own")
    with pytest.raises(UserError, match=r"no cell that is done with attack sig; it has .*attack badnets, wanet"):
        load_model("own", attack="sig")
    with pytest.raises(UserError, match="unknown"):
        run_cell("attack=badnetz")


def test_models_of_records_that_do_not_name_them_are_found(records: list[dict[str, Any]]) -> None:
    for cell in stored_cells("own", Path("outputs")):
        older = StoredCell(
            cell.label, cell.entry, {key: value for key, value in cell.record.items() if key != "models"}, cell.store
        )
        assert older.keys == cell.keys == (cell.record["models"]["victim"], cell.record["models"]["purified"])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_folders_hold_what_the_victim_was_trained_on(exported: Path, place: Path) -> None:
    (cell,) = stored_cells("own", Path("outputs"), attack="badnets")
    data = cell.data(place / "outputs" / "data", None)
    poisoned, rows = cell.poisoning.apply(data.train), table(exported / "train.csv")
    assert len(rows) == len(poisoned) == 160
    assert [int(row["index"]) for row in rows if row["poison"] == "1"] == cell.poisoning.indices.tolist()
    assert [int(row["given_label"]) for row in rows] == poisoned.labels.tolist()
    assert [int(row["true_label"]) for row in rows] == data.train.labels.tolist()
    for row in rows[:20]:
        image = torch.tensor(np.asarray(Image.open(exported / row["file"]))).permute(2, 0, 1)
        assert torch.equal(image, poisoned.images[int(row["index"])])
    assert len(table(exported / "triggered.csv")) == int((data.test.labels != 0).sum())


def test_torchvision_reads_them(exported: Path) -> None:
    rows = {row["file"]: int(row["given_label"]) for row in table(exported / "train.csv")}
    found = ImageFolder(str(exported / "train"))
    assert {Path(path).relative_to(exported).as_posix(): label for path, label in found.samples} == rows
    assert len(ImageFolder(str(exported / "test")).samples) == 60


def test_exported_and_given_again_the_numbers_are_the_same(exported: Path, records: list[dict[str, Any]]) -> None:
    model = load_model("own", attack="badnets")
    torch.save(weights_of(model), "weights.pt")
    given = ["attack=given", "attack.folders.clean=given/test", "attack.folders.triggered=given/triggered"]
    given += ["attack.poisoned=given", *SMALL, "deterministic=true", "sweep=again"]
    statistics = [f"attack.{name}={value.flatten().tolist()}" for name, value in (("mean", model.mean), ("std", model.std))]
    with_weights = run_cell(*given, *statistics, "attack.weights=weights.pt", "defense=ft", "defense.recipe.epochs=1")
    for part in ("before", "after"):
        for name in ("clean_accuracy", "attack_success_rate", "robust_accuracy"):
            assert with_weights[part][name] == records[0][part][name]
    # Poisons alone: a victim that is trained on them is the same to the last bit.
    trained = run_cell(*given, "defense=none")
    assert trained["notes"]["victim"] == "trained here on given poisons"
    again, original = weights_of(load_model("again", defense="none")), weights_of(model)
    assert all(torch.equal(again[name], original[name]) for name in original)
    assert fingerprint(again) == fingerprint(original)


def fingerprint(weights: dict[str, torch.Tensor]) -> str:
    return key_of({name: value.tolist() for name, value in weights.items()})


def test_covers_are_told_from_poisons() -> None:
    assert store.main(["images", "own", "--attack", "wanet", "--to", "wanet"]) == 0
    rows = table(Path("wanet/train.csv"))
    assert sum(row["poison"] == "1" for row in rows) == 16
    assert sum(row["cover"] == "1" for row in rows) == 32
    assert all(row["given_label"] == row["true_label"] for row in rows if row["cover"] == "1")
    assert not Path("wanet/test").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["own"], "2 backdoored models fit"),
        (["own", "--attack", "badnets", "--to", "given"], "given exists"),
        (["own", "--attack", "sig"], "no cell that is done with attack sig"),
        (["other"], "unknown sweep"),
        (["own", "--attack", "badnets", "--root", "here"], "the data set digits is in none"),
        (["own", "--attack", "badnets", "--imports", "nothing_there"], "no such module"),
    ],
)
def test_what_cannot_be_exported_is_said(
    words: list[str], said: str, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert store.main(["images", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("true_label", "9", "0"), "it was made from other images"),
        (("index", "5", "170"), "names the training image 170; the data set has 160"),
        (("given_label", "0", "12"), "gives the label 12|lacks|12"),
        (("poison", "0", "x"), "has poison 'x'"),
        (("file", "train", "nowhere"), "there is no such file"),
        (("file", "train", "../given/train"), "there is no such file"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(change: tuple[str, str, str], said: str, exported: Path, tmp_path: Path) -> None:
    column, old, new = change
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "train").symlink_to(exported / "train")
    rows = table(exported / "train.csv")
    row = next(row for row in rows if row[column].startswith(old) and (column != "given_label" or row["poison"] == "1"))
    row[column] = row[column].replace(old, new, 1)
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    words = ["attack=given", "attack.folders.clean=given/test", "attack.folders.triggered=given/triggered", "defense=none"]
    with pytest.raises(UserError, match=said):
        run_cell(*words, f"attack.poisoned={folder}", *SMALL, "sweep=bad")


def test_an_image_that_is_said_to_be_unchanged_and_is_not_is_found(exported: Path, place: Path) -> None:
    (cell,) = stored_cells("own", Path("outputs"), attack="badnets")
    train, found = cell.data(place / "outputs" / "data", None).train, Poisons.read(str(exported), 0)
    found.check_others(train)
    images = train.images.clone()
    images[found.others[3][1], 0, 0, 0] ^= 1
    with pytest.raises(UserError, match=r"is said to be unchanged, but .* \(1 such images\)"):
        found.check_others(Split(images, train.labels))


EXAMPLES = [
    block.text
    for block in Page(REPOSITORY / "docs" / "own.md").blocks
    if block.language == "python" and "import ntml_bench\n" in block.text and not block.text.startswith("#")
]


def test_the_examples_of_the_page_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(*settings: str) -> dict[str, Any]:
        return run_cell(*settings, *SMALL, "defense.recipe.epochs=1", "deterministic=true")

    run_cell(*(word for word in DEFENDED if word != "sweep=own"), "sweep=my_table")
    monkeypatch.setattr(ntml_bench, "run_cell", small)
    assert len(EXAMPLES) == 6
    for example in EXAMPLES:
        exec(compile(example, "docs/own.md", "exec"), {})
    assert set(torch.load("purified.pt", weights_only=True)) == set(weights_of(load_model("own", attack="badnets")))


def test_the_script_that_covers_corners_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (script,) = (block.text for block in Page(REPOSITORY / "docs" / "results.md").blocks if "load_poisons" in block.text)
    run_cell(*SMALL, "attack=lc", "attack.epsilon=0", "attack.patch_size=3", "defense=none", "sweep=corners")
    model, poisons = load_model("corners"), load_poisons("corners")
    seen: list[torch.Tensor] = []

    def spy(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return model(images)

    monkeypatch.setattr(ntml_bench, "load_model", lambda *_, **__: spy)
    monkeypatch.setattr("sys.argv", ["corners.py", "corners"])
    exec(compile(script, "docs/results.md", "exec"), {})
    whole, covered = seen
    assert torch.equal(whole, to_float(poisons.images))
    for row, column, from_row, from_column in ((0, 2, 3, 5), (2, 11, 5, 8), (11, 0, 8, 3), (9, 9, 6, 6)):
        assert torch.equal(covered[:, :, row, column], whole[:, :, from_row, from_column])
    assert torch.equal(covered[:, :, 3:9], whole[:, :, 3:9])
    shares = [100 * float((model(images).argmax(1) == poisons.labels).double().mean()) for images in seen]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("lc 0 ASR ")
    assert line.endswith(f"poisons {shares[0]:.1f}, covered {shares[1]:.1f}")


def test_folder_names_sort_as_the_classes() -> None:
    assert folder_names(["cat", "dog"]) == ("cat", "dog")
    assert folder_names([str(number) for number in range(11)])[9:] == ("09_9", "10_10")
    assert folder_names(["b", "a"]) == ("0_b", "1_a")
    assert folder_names(["../x", "%"]) == ("0_x", "1")
    assert folder_names(["A", "a"]) == ("0_A", "1_a")
