"""`make bench`: what is compared is comparable, and the arithmetic is right; whatever the speed of the machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import SHAPE, images_of
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms

from ntml_bench.bench import overhead, throughput
from ntml_bench.bench.ceiling import forward_flop, matrix_product_rate
from ntml_bench.bench.main import main
from ntml_bench.bench.overhead import SweepTime, growth_of, measure_overhead, worked_seconds
from ntml_bench.bench.project import CellsAtATime, ProjectInference, ProjectTraining
from ntml_bench.bench.reference import PilImages, ReferenceInference, ReferenceTraining, accuracy, train_one_epoch
from ntml_bench.bench.results import Ceiling, Row
from ntml_bench.bench.timing import Comparison, Work, alternate, fitted, passes
from ntml_bench.engine import Engine
from ntml_bench.machine import has_bfloat16
from ntml_bench.models import Classifier, ModelConfig, make_classifier

CPU = torch.device("cpu")
ENGINE = Engine(CPU, half=False)
STATISTICS = (torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.1, 0.2, 0.3]))


def tiny(seed: int = 0) -> Classifier:
    return make_classifier(ModelConfig("resnet_tiny"), 4, SHAPE, STATISTICS, seed)


class FakeMachine:
    """A clock, and works that take a certain time on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def clock(self) -> float:
        return self.now


class FakeWork:
    """Takes `seconds[i]` an image in its i-th run, the last of them from then on."""

    def __init__(self, machine: FakeMachine, name: str, batch_size: int, *seconds: float) -> None:
        self.machine = machine
        self.name = name
        self.batch_size = batch_size
        self.seconds = list(seconds)
        self.images = 0

    def prepare(self, images: int) -> int:
        self.images = max(1, round(images / self.batch_size)) * self.batch_size
        return self.images

    def run(self) -> None:
        self.machine.order.append(self.name)
        self.machine.now += self.images * (self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0])


# What is compared.


def test_both_sides_compute_with_the_same_net_and_the_same_inputs() -> None:
    model, data = tiny(), images_of(torch.arange(8) % 4)
    net = throughput.plain_net(model)
    assert {name: value.shape for name, value in net.state_dict().items()} == {
        name: value.shape for name, value in model.net.state_dict().items()
    }
    work = ReferenceInference(net, data.images, data.labels, STATISTICS, CPU, batch_size=8, workers=0)
    assert work.prepare(8) == 8
    assert work.loader is not None
    ((images, labels),) = work.loader
    assert torch.equal(labels, data.labels)
    with torch.no_grad():
        assert torch.allclose(net.eval()(images), model.eval()(ENGINE.images(data.images)), atol=1e-5)
    # A copy: training one does not train the other.
    assert not {id(parameter) for parameter in net.parameters()} & {id(parameter) for parameter in model.parameters()}


def test_the_reference_trains() -> None:
    data = images_of(torch.arange(64) % 4)
    loader = DataLoader(PilImages(data.images, data.labels, transforms.ToTensor()), batch_size=16, shuffle=True)
    torch.manual_seed(0)
    net = throughput.plain_net(tiny())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = [train_one_epoch(net, loader, optimizer, CPU) for _ in range(12)]
    assert losses[-1] < losses[0] / 2
    assert accuracy(net, loader, CPU) > 0.8


def test_works_go_through_as_many_images_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    data = images_of(torch.arange(20) % 4)
    seen: list[int] = []
    model, another, net = tiny(), tiny(), throughput.plain_net(tiny())
    for module in (model, another, net):
        module.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    monkeypatch.setattr(ProjectInference, "batch_size", 10)
    arguments = (net, data.images, data.labels, STATISTICS, CPU)
    project = ProjectTraining(ENGINE, model, data, 8)
    works: list[Work] = [
        project,
        ProjectInference(ENGINE, model, data),
        ReferenceTraining(*arguments, batch_size=8, workers=0),
        ReferenceInference(*arguments, batch_size=10, workers=0),
        CellsAtATime([project, ProjectTraining(ENGINE, another, data, 8)], threads=1),
    ]
    for work in works:
        for wanted in (1, 16, 40):
            images = work.prepare(wanted)
            assert images >= min(wanted, work.batch_size)
            seen.clear()
            before = [parameter.clone() for parameter in net.parameters()]
            work.run()
            assert sum(seen) == images
            trained = any(not torch.equal(one, other) for one, other in zip(before, net.parameters(), strict=True))
            assert trained == isinstance(work, ReferenceTraining)


def test_training_goes_through_the_compiler_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda function, mode, dynamic: asked.append(mode) or function)
    data = images_of(torch.arange(20) % 4)
    for compilation in ("none", "default"):
        ProjectTraining(Engine(CPU, half=False, compilation=compilation), tiny(), data, 8).run()
    assert asked == ["default"]


# Arithmetic.


def test_flop_of_a_net_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 6 * 7, 4))
    multiply_adds = 3 * 3 * 3 * 5 * 6 * 7 + 5 * 6 * 7 * 4
    assert forward_flop(net, (3, 6, 7)) == 2 * multiply_adds
    assert net.training


def test_the_rate_of_a_matrix_product_is_that_of_the_best_repeat() -> None:
    times = iter([0.0, 9.0, 10.0, 14.0, 20.0, 22.0, 30.0, 33.0])  # a warm-up, then 4, 2 and 3 seconds
    assert matrix_product_rate(CPU, torch.float32, 8, seconds=5, clock=lambda: next(times)) == 2 * 8**3 / 2


def test_ratios_are_those_of_each_round() -> None:
    found = Comparison.of([30.0, 10.0, 20.0], [10.0, 5.0, 5.0], 100, 50)
    assert found.ratio.rounds == (3.0, 2.0, 4.0)
    assert (found.ratio.median, found.ratio.lowest, found.ratio.highest) == (3.0, 2.0, 4.0)
    assert (found.first.median, found.second.median) == (20.0, 5.0)


def test_the_best_measured_ceiling_counts() -> None:
    ceiling = Ceiling(8, 50.0, 100.0).best(Ceiling(8, 60.0, 90.0))
    assert (ceiling.of("bfloat16"), ceiling.of("float32")) == (100.0, 60.0)
    row = Row.of(Comparison.of([4.0], [3.0], 10, 10), 5, 10, "bfloat16", ceiling)
    assert (row.project.share_of_ceiling, row.reference.share_of_ceiling) == (0.4, 0.5)


def test_works_take_turns() -> None:
    machine = FakeMachine()
    first, second = FakeWork(machine, "first", 10, 0.1, 0.2), FakeWork(machine, "second", 5, 0.5, 0.4)
    images = (first.prepare(20), second.prepare(10))
    found = alternate(first, second, images, CPU, rounds=2, clock=machine.clock)
    assert machine.order == ["first", "second"] * 2
    assert found.first.rounds == pytest.approx((10.0, 5.0))
    assert found.second.rounds == pytest.approx((2.0, 2.5))
    assert found.ratio.rounds == pytest.approx((5.0, 2.0))
    assert (found.first_images, found.second_images) == (20, 10)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.09, 0.01), 200),  # slow at first; then 2 s are 200 images
        ((0.0001,), 20_000),  # too fast for the first tries
        ((9.0,), 20),  # two batches take longer than is wanted
    ],
)
def test_a_measurement_is_fitted_to_the_time_for_it(seconds: tuple[float, ...], expected: int) -> None:
    machine = FakeMachine()
    work = FakeWork(machine, "work", 10, *seconds)
    images = fitted(work, CPU, 2.0, least_batches=2, clock=machine.clock)
    assert images == work.images == pytest.approx(expected, abs=10)


def test_passes_over_the_images_that_there_are() -> None:
    assert passes(100, 10, 1000) == (100, 1)
    assert passes(100, 10, 55) == (50, 2)
    assert passes(101, 10, 45) == (40, 3)
    assert passes(1, 10, 55) == (10, 1)
    with pytest.raises(ValueError, match="less than a batch"):
        passes(10, 10, 9)


# Sweeps.


def test_growth_is_a_straight_line() -> None:
    sweeps = [SweepTime(count, wall=5 + 3.0 * count, worked=1.0 * count) for count in (1, 2, 4)]
    found = growth_of((1, 2, 4), sweeps)
    assert (found.wall_of_one_more, found.overhead_of_one_more) == (pytest.approx(3.0), pytest.approx(2.0))


def test_overhead_is_what_is_neither_start_up_nor_work(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []
    start_ups = iter([2.0, 3.0])

    def sweep(folder: Path, name: str, attacks: int, defenses: int) -> SweepTime:
        cells = attacks * defenses
        again = (name, attacks, defenses) in asked
        late = 0.0 if "round_1" in name else 50.0  # the machine was busy in the second round
        asked.append((name, attacks, defenses))
        return SweepTime(
            cells, wall=late + (4.0 if again else 10.0 + 3.0 * attacks + cells), worked=0.0 if again else 2.0 * cells
        )

    monkeypatch.setattr(overhead, "_sweep", sweep)
    monkeypatch.setattr(overhead, "_process", lambda code: next(start_ups))
    found = measure_overhead(lambda _: None)
    assert found.start_up_seconds.rounds == (2.0, 3.0)
    assert found.empty_store.seconds_a_cell == (38.0 - 2.0 - 32.0) / 16
    assert found.stored.seconds_a_cell == (4.0 - 2.0) / 16
    assert [time.wall for time in found.attacks.sweeps] == [14.0, 18.0, 26.0]
    assert [time.wall for time in found.defenses.sweeps] == [14.0, 15.0, 17.0]
    assert found.attacks.wall_of_one_more == pytest.approx(4.0)
    assert found.attacks.overhead_of_one_more == pytest.approx(2.0)
    assert found.defenses.wall_of_one_more == pytest.approx(1.0)
    sizes = [(4, 4), (1, 1), (2, 1), (1, 2), (4, 1), (1, 4), (4, 4)]
    assert [(attacks, defenses) for _, attacks, defenses in asked] == [(1, 1), *sizes, *sizes]
    # But for the sweep that is run again in each round, each has a store of its own.
    assert len({name for name, *_ in asked}) == len(asked) - 2


def test_work_is_counted_once(tmp_path: Path) -> None:
    records = {
        "victim-a": {"seconds": {"poisoning": 1.0, "training": 2.0}},
        "purified-b": {"seconds": 4.0},
        "evaluation-c": {"seconds": 8.0},
        "surrogate-d": {"history": []},  # made while poisoning
        "cell-e": {"seconds": {"attack": 3.0, "defense": 4.0, "evaluation": 8.0, "total": 15.5}},
    }
    for name, record in records.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(record))
    assert worked_seconds(tmp_path) == 15.0
    assert worked_seconds(tmp_path / "missing") == 0.0


@pytest.mark.slow
def test_a_real_sweep_is_timed(tmp_path: Path) -> None:
    overhead._write_defenses(tmp_path / "options")
    first = overhead._sweep(tmp_path, "square", 1, 2)
    assert first.cells == 2
    assert 0 < first.worked < first.wall
    # Two defenses of one attack: the victim is trained once.
    assert len(list((tmp_path / "square" / "store").glob("victim-*"))) == 1
    assert len(list((tmp_path / "square" / "store").glob("cell-*"))) == 2
    assert overhead._sweep(tmp_path, "square", 1, 2).worked == 0.0


def test_a_failed_process_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="went wrong"):
        overhead._process("raise SystemExit('went wrong')")


# The command.


@pytest.mark.slow
def test_throughput_from_end_to_end_without_what_only_sweeps_need(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('hydra', 'omegaconf', 'rich', 'wandb', 'sklearn', 'matplotlib'): sys.modules[name] = None\n"
        "from ntml_bench.bench.main import main\n"
        "code = main(sys.argv[1:])\n"
        "assert sys.modules['omegaconf'] is None and 'omegaconf.errors' not in sys.modules\n"
        "sys.exit(code)"
    )
    arguments = ["--only", "throughput", "--models", "resnet_tiny", "--seconds", "0.05", "--rounds", "2", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resnet_tiny training" in done.stdout
    result = json.loads((tmp_path / "outputs" / "bench" / "cpu.json").read_text())
    assert set(result) == {"version", "device", "cores", "environment", "settings", "throughput", "overhead"}
    assert result["device"] == "cpu"
    assert result["overhead"] is None
    assert {"processor", "threads", "packages", "git_revision", "finished", "python"} <= set(result["environment"])
    settings = {"models": ["resnet_tiny"], "seconds": 0.05, "rounds": 2, "compile": "none", "only": "throughput"}
    assert result["settings"] == settings
    assert set(result["throughput"]["ceiling"]) == {"matrix_size", "bfloat16_flop_per_second", "float32_flop_per_second"}
    model = result["throughput"]["models"]["resnet_tiny"]
    assert model["training_flop_per_image"] == 3 * model["forward_flop_per_image"]
    for what, batch_size in (("training", 128), ("inference", 500)):
        row = model[what]
        precisions = {side["project"]["precision"] for side in (row, model[f"other_{what}"]) if side is not None}
        assert precisions == ({"bfloat16", "float32"} if has_bfloat16(torch.device("cpu")) else {"float32"})
        assert row["batch_size"] == batch_size
        assert set(row["ratio"]) == {"median", "lowest", "highest", "rounds"}
        for side in (row["project"], row["reference"]):
            assert len(side["images_per_second"]["rounds"]) == 2
            assert side["images_a_measurement"] % batch_size == 0
            ceiling = result["throughput"]["ceiling"][f"{side['precision']}_flop_per_second"]
            flop = model["forward_flop_per_image"] * (3 if what == "training" else 1)
            assert side["flop_per_second"] == pytest.approx(side["images_per_second"]["median"] * flop)
            assert side["share_of_ceiling"] == pytest.approx(side["flop_per_second"] / ceiling)
    workers = model["loader_workers"]
    assert workers["images_per_second"][str(workers["chosen"])] == max(workers["images_per_second"].values())
    if result["environment"]["threads"] >= 2:
        assert set(model["cells_at_a_time"]) == {"cells", "threads_each", "threads_alone", "together", "alone", "ratio"}
    assert model["large_batch"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "speed"], "invalid choice: 'speed'"),
        (["--seconds", "0"], "'0' is not allowed; a number above 0 is"),
        (["--seconds", "nan"], "'nan' is not allowed"),
        (["--seconds", "soon"], "'soon' is not allowed"),
        (["--rounds", "0"], "'0' is not allowed; a whole number of at least 1 is"),
        (["--rounds", "2.5"], "'2.5' is not allowed"),
        (["--models", ","], "no model is named"),
        (["--models", "resnet_tinny", "--only", "throughput"], "Did you mean 'resnet_tiny'"),
        (["--device", "gpu", "--only", "throughput"], "device is 'gpu'"),
        (["--compile", "fast", "--only", "throughput"], "--compile is 'fast'; allowed: none, default, reduce-overhead"),
        (["--to", ".", "--only", "throughput"], "--to names the folder"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_mistakes_end_with_a_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code: object = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sweeps_say_what_they_need(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([]) == 2
    assert "sweeps need wandb, not installed here; --only throughput does without" in capsys.readouterr().err
