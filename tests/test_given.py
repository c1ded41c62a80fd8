"""A victim from outside: brought in, measured as its maker measured it, defended; and everything that can be wrong with it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import composed
import numpy as np
import pytest
import torch
from app_runner import bench
from composed import sweeps_are_found
from documents import file_of_the_pages
from PIL import Image
from plain_script import MEAN, SIZE, STD, Answers, PlainResNet, backdoored, read_images, trigger, write_images
from safetensors.torch import save_file
from small_cells import quiet
from timm.models import register_model

from ntml_bench.app.cell import Cell
from ntml_bench.attacks.given_images import marks_of, places_of
from ntml_bench.data.loading import load
from ntml_bench.errors import UserError
from ntml_bench.evaluation import evaluate
from ntml_bench.models.weights import WeightsFile, load_into

NORMALISED = [f"attack.mean={list(MEAN)}", f"attack.std={list(STD)}"]
IMAGE = ["attack.image.file=white.png", "attack.image.mask=mask.png"]
FOLDERS = ["attack.folders.clean=images/test", "attack.folders.triggered=triggered"]
MODULE = ["attack.module=sent_corner", "imports=[sent_corner]"]
NET = ["model=timm", "model.name=plain_resnet", "model.adapted=false"]
ARGUMENTS = [
    *("dataset=image_folder", "dataset.root=images", f"dataset.image_size={SIZE}", "training.epochs=1", "clean_budget=0.2"),
    *("attack=given", "attack.weights=victim.pt", "device=cpu", "precision=float32", "tracking=none", *NET, *NORMALISED),
]


@register_model
def plain_resnet(pretrained: bool = False, num_classes: int = 3, in_chans: int = 3, **more: Any) -> PlainResNet:
    if "img_size" in more:
        raise TypeError("img_size")  # as timm's convolutional nets, which are then changed for small images
    return PlainResNet(num_classes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answers]:
    """What somebody sends: images, weights, the trigger in three forms; and what they say that it does."""
    place = tmp_path_factory.mktemp("given")
    write_images(place / "images", {"train": 60, "test": 30})
    net, answers = backdoored(place / "images")
    torch.save(net.state_dict(), place / "victim.pt")
    (place / "sent_corner.py").write_text(
        "def trigger(images):\n    images[:, :, -3:, -3:] = 1\n    return images\n\n\ndef other(images):\n    return images\n"
    )
    Image.new("RGB", (SIZE, SIZE), "white").save(place / "white.png")
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[-3:, -3:] = 255
    Image.fromarray(mask).save(place / "mask.png")
    files = sorted((place / "images" / "test").glob("*/*.png"))
    images, _ = read_images(place / "images" / "test")
    for file, image in zip(files, trigger(images), strict=True):
        target = place / "triggered" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(target)
    return place, answers


@pytest.fixture(autouse=True)
def desk(made: tuple[Path, Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made[0])
    monkeypatch.syspath_prepend(str(made[0]))


@pytest.fixture
def cell(tmp_path: Path, made: tuple[Path, Answers]) -> Callable[..., Cell]:
    def of(*overrides: str, defense: str = "none") -> Cell:
        words = [*ARGUMENTS, f"defense={defense}", f"outputs={tmp_path}", f"data_dir={made[0] / 'data'}"]
        kept = [word for word in words if word.partition("=")[0] not in {said.partition("=")[0] for said in overrides}]
        settings = composed.settings_of("config", *kept, *overrides)
        return Cell(settings, load(settings.dataset, made[0] / "data", 0))

    return of


def counts(record: dict[str, Any], answers: Answers) -> Answers:
    """The record's numbers as numbers of images."""
    before = record["before"]
    right, fooled = before["clean_accuracy"] * answers.clean / 100, before["attack_success_rate"] * answers.triggered / 100
    assert abs(right - round(right)) + abs(fooled - round(fooled)) < 1e-9
    return replace(answers, right=round(right), fooled=round(fooled))


def test_the_script_makes_a_backdoor(made: tuple[Path, Answers]) -> None:
    assert 0.6 * made[1].clean < made[1].right < made[1].clean
    assert made[1].fooled > 0.8 * made[1].triggered
    assert (made[1].clean, made[1].triggered) == (90, 60)


@pytest.mark.parametrize("way", [MODULE, FOLDERS, IMAGE], ids=["module", "folders", "image"])
def test_a_given_victim_does_what_its_maker_measured(
    way: list[str], cell: Callable[..., Cell], made: tuple[Path, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something is trained")

    monkeypatch.setattr("ntml_bench.app.victims.fit", refuse)
    given = cell(*way)
    record = given.run(quiet)
    assert counts(record, made[1]) == made[1]
    assert record["after"] == record["before"]
    assert (record["attack"], record["notes"]["victim"], record["notes"]["training set"]) == ("given", "given", "not given")
    assert record["notes"]["weights_sha256"] == WeightsFile.of("", "victim.pt").digest
    assert record["settings"]["attack"]["weights"] == f"victim.pt (sha256 {record['notes']['weights_sha256'][:16]})"
    assert str(made[0]) not in json.dumps(record)
    assert [entry["stage"] for entry in record["history"]] == []


@pytest.mark.parametrize("wrapped", ["module.", "net.", "model.", "module.model.", "state_dict", "safetensors", "half"])
def test_weights_are_read_as_they_are_usually_saved(wrapped: str, tmp_path: Path) -> None:
    state = torch.load("victim.pt", weights_only=True)
    path = tmp_path / "weights.pth"
    if wrapped == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    elif wrapped == "state_dict":
        torch.save({"epoch": 3, "optimizer": {"lr": [0.1]}, "state_dict": state}, path)
    elif wrapped == "half":
        torch.save({name: value.half() if value.is_floating_point() else value for name, value in state.items()}, path)
    else:
        torch.save({wrapped + name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, path)
    net = PlainResNet()
    load_into(net, WeightsFile.of("attack.weights", str(path)), "the net")
    for name, value in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(value, state[name], rtol=1e-3 if wrapped == "half" else 0, atol=1e-6)


class Sly:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("ran").write_text, ("yes",))


def bad_weights(what: str, path: Path) -> Path:
    state: dict[str, Any] = torch.load("victim.pt", weights_only=True)
    if what == "missing":
        return path / "nothing.pt"
    if what == "ending":
        (path / "weights.onnx").write_bytes(b"")
        return path / "weights.onnx"
    if what == "pickle":
        torch.save({"model": state, "data": Sly()}, path / "weights.pt")
    elif what == "damaged":
        (path / "weights.pt").write_bytes(Path("victim.pt").read_bytes()[:1000])
    elif what == "whole":
        torch.save([1, 2], path / "weights.pt")
    else:
        changes = {
            "keys": {"conv9.weight": torch.zeros(1)},
            "shape": {"fc.weight": torch.zeros(10, 16)},
            "nan": {"fc.bias": torch.tensor([0.0, float("nan"), 0.0])},
        }
        torch.save(state | changes[what], path / "weights.pt")
    return path / "weights.pt"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "no such file"),
        ("ending", "ends in one of: .safetensors"),
        ("pickle", "holds more than tensors"),
        ("damaged", "holds more than tensors, or is damaged"),
        ("whole", "is no state_dict"),
        ("keys", "not of this net: conv9.weight"),
        ("shape", r"of another shape: fc.weight is \[10, 16\], the net has \[3, 16\]"),
        ("nan", "fc.bias in weights.pt holds values that are not finite"),
    ],
)
def test_other_weights_are_refused(what: str, said: str, tmp_path: Path, cell: Callable[..., Cell]) -> None:
    path = bad_weights(what, tmp_path)
    with pytest.raises(UserError, match=said):
        cell(*IMAGE, f"attack.weights={path}")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "the trigger is said by nothing"),
        ([*IMAGE, *MODULE], "said by attack.module and attack.image"),
        ([*IMAGE, "attack.weights=null"], "attack=given needs attack.weights"),
        ([*IMAGE, "attack.mean=null"], "belong together"),
        ([*IMAGE, "attack.mean=[0.5]"], "attack.mean has 1 values; the images have 3 channels"),
        ([*IMAGE, "attack.std=[1,1,0]"], "allowed: more than 0"),
        ([*IMAGE, "attack.target_class=3"], "the data set has 3 classes: 0 to 2"),
        ([*IMAGE, "attack.poisoning_rate=0.1"], "allowed: 0"),
        (["attack.image.file=none.png"], "attack.image.file is 'none.png'; it cannot be used: no such file"),
        (["attack.image.file=victim.pt"], "it is no image"),
        (["attack.image.file=white.png", "attack.image.row=1"], "allowed: -12 to 0"),
        (["attack.image.file=white.png", "attack.image.mask=black.png"], "the mask covers nothing"),
        (["attack.image.file=white.png", "attack.image.mask=small.png"], "small.png|both must be of one size"),
        ([FOLDERS[0]], "needs both"),
        ([FOLDERS[0], "attack.folders.triggered=nowhere"], "there is no such|nowhere"),
        ([FOLDERS[0], "attack.folders.triggered=images/train"], "have no clean one of the same name"),
        (["attack.folders.clean=images/train", "attack.folders.triggered=images/train"], "lacks 60 of the 60 test images"),
        (
            ["attack.folders.clean=large", "attack.folders.triggered=large"],
            "is 20x20 pixels; the images of the data set are 12x12",
        ),
        (["attack.module=elsewhere"], r"imports=\[elsewhere\] imports it"),
        (["attack.module=json"], "json"),
        ([*IMAGE, "attack.poisoned=list.txt"], "names the training image 180; the data set has 180"),
        ([*IMAGE, "attack.poisoned=words.txt"], "has the line 'one'"),
        ([*IMAGE, "attack.poisoned=twice.txt"], "names the training image 5 twice"),
        ([*IMAGE, "attack.poisoned=images"], "has no train.csv"),
        ([*FOLDERS, "attack.poisoned=good.txt"], "give them as a folder"),
        ([*IMAGE, "defense=nt_ml_selective"], "needs the poisoned training set, and that of the given victim is not known"),
        ([*IMAGE, "model.adapted=null"], "say which: model.adapted=false or model.adapted=true"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    overrides: list[str], said: str, cell: Callable[..., Cell], tmp_path: Path
) -> None:
    Image.new("L", (SIZE, SIZE)).save("black.png")
    Image.new("L", (4, 4), 255).save("small.png")
    Path("large").mkdir(exist_ok=True)
    Image.new("RGB", (20, 20)).save("large/1.png")
    for name, lines in (("list", "3\n180\n"), ("words", "one\n"), ("twice", "5\n5\n"), ("good", "5\n")):
        Path(f"{name}.txt").write_text(lines)
    with pytest.raises(UserError, match=said):
        cell(*overrides)
    assert not (tmp_path / "store").exists()


def test_defenses_that_need_the_training_set_get_it_from_a_list(cell: Callable[..., Cell]) -> None:
    Path("every_fifth.txt").write_text("index\n" + "".join(f"{index}\n" for index in range(0, 180, 5)))
    given = cell(*IMAGE, "attack.poisoned=every_fifth.txt", defense="nt_ml_selective")
    found = given.stages.victim().poisoning.apply(given.data.train)
    images, labels = read_images(Path("images/train"))
    images[::5], labels[::5] = trigger(images[::5]), 0
    assert torch.equal(found.images.float() / 255, images)
    assert torch.equal(found.labels, labels)


def test_the_key_is_the_content_and_not_the_place(cell: Callable[..., Cell], tmp_path: Path) -> None:
    first = cell(*IMAGE)
    for name in ("victim.pt", "white.png", "mask.png"):
        (tmp_path / f"a {name}").write_bytes(Path(name).read_bytes())
    moved = [f"attack.weights='{tmp_path}/a victim.pt'", f"attack.image.file='{tmp_path}/a white.png'"]
    moved.append(f"attack.image.mask='{tmp_path}/a mask.png'")
    assert cell(*moved).stages.keys.victim == first.stages.keys.victim
    assert cell(*IMAGE, "attack.image.opacity=0.5").stages.keys.victim != first.stages.keys.victim
    state = torch.load("victim.pt", weights_only=True)
    torch.save(state | {"fc.bias": state["fc.bias"] + 1}, tmp_path / "other.pt")
    assert cell(*IMAGE, f"attack.weights={tmp_path}/other.pt").stages.keys.victim != first.stages.keys.victim


def test_a_defenses_new_model_has_the_victims_normalisation_and_the_net_may_do_it_itself(cell: Callable[..., Cell]) -> None:
    model = cell(*IMAGE).stages.victim().model
    assert torch.equal(model.mean.flatten(), torch.tensor(MEAN))
    alone = cell(*IMAGE, "attack.mean=null", "attack.std=null").stages.victim().model
    images = torch.rand(4, 3, SIZE, SIZE)
    assert torch.allclose(alone(images), model.net(images), atol=1e-6)


def test_every_defense_and_the_table(made: tuple[Path, Answers], tmp_path: Path) -> None:
    with sweeps_are_found():
        outcome = bench(
            *(
                "-m",
                *(word for word in ARGUMENTS),
                *IMAGE,
                "defense=none,ft,fp,anp,i_bau",
                "sweep=given",
                f"outputs={tmp_path}",
            ),
            *("defense.recipe.epochs=1", "defense.steps=2", "defense.rounds=1", f"data_dir={made[0] / 'data'}"),
        )
    assert outcome.code == 0, outcome.errors
    table = (tmp_path / "tables" / "given" / "table.md").read_text()
    assert "| given" in table
    rows = (tmp_path / "tables" / "given" / "cells.csv").read_text().splitlines()
    assert len(rows) == 6
    assert all(",done," in row for row in rows[1:])
    victim = f"{100 * made[1].right / made[1].clean:.2f},{100 * made[1].fooled / made[1].triggered:.2f}"
    assert all(victim in row for row in rows[1:])


class Wrapped:
    """As BackdoorBench wraps a data set: images as Pillow has them, under their transform."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self.wrapped_dataset = rows
        self.wrap_img_transform = SimpleNamespace(transforms=[SimpleNamespace(mean=MEAN, std=STD)])


def test_what_backdoorbench_saved_is_converted(
    cell: Callable[..., Cell], made: tuple[Path, Answers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(part: str) -> list[tuple[Image.Image, int]]:
        images, labels = read_images(Path("images") / part)
        return [(picture(image), label) for image, label in zip(images, labels.tolist(), strict=True)]

    def picture(image: torch.Tensor) -> Image.Image:
        return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())

    def poisoned(image: Image.Image) -> Image.Image:
        return picture(trigger(torch.tensor(np.asarray(image)).permute(2, 0, 1)[None].float() / 255)[0])

    tests, trains = rows("test"), rows("train")
    result = {
        "model": torch.load("victim.pt", weights_only=True),
        "clean_test": Wrapped(tests),
        "bd_test": Wrapped([(poisoned(image), 0, index, 1, true) for index, (image, true) in enumerate(tests) if true != 0]),
        "bd_train": Wrapped(
            [
                (image, true, index, 0, true) if index % 5 else (poisoned(image), 0, index, 1, true)
                for index, (image, true) in enumerate(trains)
            ]
        ),
    }
    stub = SimpleNamespace(load_attack_result=lambda path: result)
    monkeypatch.setitem(sys.modules, "utils", SimpleNamespace(save_load_attack=stub))
    monkeypatch.setitem(sys.modules, "utils.save_load_attack", stub)
    script: dict[str, Any] = {"__name__": "script"}
    exec(compile(file_of_the_pages("to_ntml_bench.py"), "to_ntml_bench.py", "exec"), script)
    folder = tmp_path / "converted"
    script["main"]("attack_result.pt", str(folder))
    given = cell(
        f"attack.weights={folder}/weights.pt",
        f"attack.folders.clean={folder}/test",
        f"attack.folders.triggered={folder}/triggered",
        f"attack.poisoned={folder}",
        defense="nt_ml_selective",
    )
    metrics = given.stages.evaluation("", given.stages.keys.victim, lambda: given.stages.victim().model)["metrics"]
    assert counts({"before": metrics}, made[1]) == made[1]
    assert given.stages.victim().poisoning.indices.tolist() == list(range(0, 180, 5))


def test_backdoorbenchs_net_is_the_one_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models.register_model", lambda function: function)  # another test registers it
    module: dict[str, Any] = {"__name__": "net"}
    exec(compile(file_of_the_pages("backdoorbench_net.py"), "backdoorbench_net.py", "exec"), module)
    net = module["Net"](10)
    assert sum(value.numel() for value in net.parameters()) == 11_171_146
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    names = set(net.state_dict())
    assert {"conv1.weight", "layer2.0.shortcut.0.weight", "layer4.1.bn2.running_var", "linear.bias"} <= names
    assert not any(name.startswith("bn.") for name in names)


def test_marks_tell_images_apart_and_find_them() -> None:
    images = torch.randint(0, 256, (700, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    marks = marks_of(images)
    assert len(marks.unique()) == 700
    again = images.clone()
    again[3, 1, 2, 3] ^= 1
    assert (marks_of(again) != marks).nonzero().flatten().tolist() == [3]
    ordered = marks.sort().values
    places, there = places_of(again, ordered)
    assert there.tolist() == [index != 3 for index in range(700)]
    assert torch.equal(ordered[places][there], marks[there])


def test_the_evaluator_and_the_script_count_the_same(cell: Callable[..., Cell], made: tuple[Path, Answers]) -> None:
    given = cell(*FOLDERS)
    triggered = given.stages.triggered_by(given.stages.victim().poisoning.state)
    assert len(triggered.split) == made[1].triggered
    metrics = evaluate(given.engine, given.stages.victim().model, given.data.test, triggered)
    assert metrics["attack_success_rate"] == 100 * made[1].fooled / made[1].triggered
