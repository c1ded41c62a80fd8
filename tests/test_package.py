"""What is installed works from another folder, with the configs and sweeps that the wheel carries."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from app_runner import SMALL
from builders import option_names

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(REPOSITORY)], check=True, capture_output=True)
    (wheel,) = folder.glob("ntml_bench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def application(installed: Path, cwd: Path, *arguments: str) -> str:
    """What the installed application prints; its folder comes before the checkout."""
    code = "import ntml_bench, sys; assert ntml_bench.__file__.startswith(sys.argv.pop(1)), ntml_bench.__file__\n"
    command = [sys.executable, "-c", code + "from ntml_bench.app.main import main; main()", str(installed), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_wheel_carries_every_config_and_sweep(installed: Path) -> None:
    for folder in ("conf", "sweeps"):
        carried = {path.relative_to(installed / "ntml_bench") for path in (installed / "ntml_bench" / folder).rglob("*.yaml")}
        assert carried == {path.relative_to(REPOSITORY) for path in (REPOSITORY / folder).rglob("*.yaml")}
    assert (installed / "hydra_plugins" / "ntml_bench.py").is_file()


def test_the_wheel_carries_the_published_numbers(installed: Path) -> None:
    folder = REPOSITORY / "ntml_bench" / "records" / "published"
    data = [path for path in folder.iterdir() if path.suffix in (".csv", ".json")]
    assert {path.name for path in data} >= {"backdoorbench.csv", "backdoorbench.json"}
    for path in data:
        assert (installed / path.relative_to(REPOSITORY)).read_bytes() == path.read_bytes()


def test_the_wheel_carries_the_templates_of_the_report(installed: Path) -> None:
    folder = REPOSITORY / "ntml_bench" / "report" / "templates"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"report.html", "report.css", "report.js"}
    for name in names:
        assert (installed / folder.relative_to(REPOSITORY) / name).read_bytes() == (folder / name).read_bytes()


def test_the_installed_application_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    assert f"attack: {', '.join(option_names('attack'))}" in application(installed, tmp_path, "--help")
    assert "sweep: digits_table" in application(installed, tmp_path, "-cn", "digits_table", "--cfg", "job")
    output = application(installed, tmp_path, *SMALL, "defense=none")
    assert "[1/1] badnets x none, seed 0: ACC " in output
    assert (tmp_path / "outputs" / "sweeps" / "single" / "manifest.json").is_file()


def test_a_cell_needs_no_wandb_in_mode_none(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['wandb'] = None\n"
        f"sys.argv = {['ntml-bench', *SMALL, 'defense=none']}\n"
        "from ntml_bench.app.main import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    refused = subprocess.run(
        [sys.executable, "-c", code.replace("'tracking=none'", "'tracking=offline'")],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1
    assert "tracking=none" in refused.stderr


SIDE_BY_SIDE = ("table", "report", "status", "tracking")
"""Rooms that stand on the records of a sweep, and know nothing of each other."""


@pytest.mark.parametrize("room", ["records", *SIDE_BY_SIDE, "housekeeping"])
def test_rooms_stand_side_by_side(room: str) -> None:
    # An archive holds the rendered table, `ntml-store images` asks for the images of a cell, and `ntml-report --attack` makes
    # one: these reach up, nothing else does.
    allowed = {"records": set(), "housekeeping": {"table", "app"}, "report": {"app"}}.get(room, set())
    others = {*SIDE_BY_SIDE, "housekeeping", "app"} - {room} - allowed
    found = {
        f"{path.relative_to(REPOSITORY)} imports {node.module}"
        for path in (REPOSITORY / "ntml_bench" / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ntml_bench.")
        if node.module.split(".")[1] in others
    }
    assert not found
