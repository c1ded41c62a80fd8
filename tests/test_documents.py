"""Pages for readers: every command runs in a small way, every example works, every link leads somewhere."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
import yaml
from app_runner import workplace
from composed import sweeps_are_found
from document_commands import UncoveredError, marks_of, try_command
from documents import PAGES, REPOSITORY, SHELL, Command, Page, anchor, parts_of

from ntml_bench.attacks import ATTACKS
from ntml_bench.data import DATASETS
from ntml_bench.defenses import DEFENSES
from ntml_bench.registry import Registry

__all__ = ["workplace"]

DOCUMENTS = [Page(path) for path in PAGES]
COMMANDS = [command for page in DOCUMENTS for command in page.commands]
LANGUAGES = ("", "text", "python", "yaml", "bibtex", *SHELL)


@pytest.fixture(autouse=True, scope="module")
def _sweeps_are_found() -> Iterator[None]:
    with sweeps_are_found():
        yield


@pytest.fixture
def desk(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules are forgotten behind the test, and the methods that they registered."""
    registries: tuple[Registry[Any], ...] = (ATTACKS, DEFENSES, DATASETS)
    known: list[dict[str, Any]] = [dict(registry._classes) for registry in registries]
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield workplace
    for registry, classes in zip(registries, known, strict=True):
        registry._classes.clear()
        registry._classes.update(classes)
    for name in set(sys.modules) - modules:
        place = getattr(sys.modules[name], "__file__", None)
        if place and Path(place).is_relative_to(workplace):
            del sys.modules[name]


def lay_out(page: Page, folder: Path) -> None:
    """The files that a page shows."""
    for name, text in page.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def a_page(folder: Path, text: str) -> Page:
    path = folder / "page.md"
    path.write_text(text)
    return Page(path)


def a_command(folder: Path, line: str) -> Command:
    (command,) = a_page(folder, f"```sh\n{line}\n```\n").commands
    return command


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_runs(command: Command, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(command.page, desk)
    try_command(command, monkeypatch)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.path.name)
def test_code_is_of_a_known_language_and_can_be_read(page: Page) -> None:
    for block in page.blocks:
        assert block.language in LANGUAGES, f"line {block.line}"
        if block.language == "python":
            compile(block.text, f"{page.path.name}:{block.line}", "exec")
        if block.language == "yaml":
            assert yaml.safe_load(block.text) is not None


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.path.name)
def test_every_example_is_run_by_a_command_of_its_page(page: Page) -> None:
    words = " ".join(word for command in page.commands for word in command.words)
    for name in page.files:
        path = Path(name)
        assert (path.stem in words) if path.suffix == ".py" else (path.parts[0] in words and f"={path.stem}" in words), name


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.path.name)
def test_links_lead_somewhere(page: Page) -> None:
    assert [link for link in page.links if not leads_somewhere(page, link)] == []


def leads_somewhere(page: Page, link: str) -> bool:
    parts = urlparse(link)
    if parts.scheme or parts.netloc:
        return parts.scheme in ("http", "https") and "." in parts.netloc and " " not in link
    target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    if not target.exists() or not (target.is_relative_to(REPOSITORY) or target.is_relative_to(page.path.parent)):
        return False
    return not parts.fragment or (target.suffix == ".md" and parts.fragment in anchors_of(target))


@cache
def anchors_of(path: Path) -> set[str]:
    return Page(path).anchors


# The tests above can fail:


def test_a_command_that_nothing_covers_is_found(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line, why in (
        ("ntml-dance three_seeds", "no rule of"),
        ("pip install 'ntml-bench[slurm]'", "# needs a network"),
        ("git clone https://example.org/ntml-bench.git", "# needs a network"),
        ("ntml-bench -m dataset=cifar10 attack=sig,lc", "# needs a network"),
        ("ntml-bench -cn digits_table cluster=slurm", "# needs Slurm"),
        ("ntml-bench -cn optuna_nt_ml", "# needs Optuna"),
        ("wandb sync outputs/sweeps/single/wandb", "# needs a network"),
    ):
        with pytest.raises(UncoveredError, match=why):
            try_command(a_command(desk, line), monkeypatch)


def test_a_mark_says_what_a_command_needs(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert marks_of("needs Slurm and a GPU: a job a cell") == {"Slurm", "GPU"}
    assert marks_of("a job a cell; needs a network, no GPU") == {"network"}
    assert marks_of("what a GPU needs") == marks_of("") == set()
    # It is composed all the same.
    for line in (
        "ntml-bench -cn paper_table defense.tempreature=1 # needs a GPU",
        "ntml-bench -m attack=sig,wanets # needs a GPU",
        "ntml-bench -cn papertable # needs a GPU",
        "make tabel",
        "make table ARGS='attack=wanets'",
        "pip install 'ntml-bench[slrum]' # needs a network",
        "wandb sweep sweeps/wandb_ablations.yaml # needs a network",
        "python -m ntml_bench.bensh",
    ):
        with pytest.raises(Exception, match=r"tempreature|wanets|papertable|tabel|slrum|wandb_ablations|bensh"):
            try_command(a_command(desk, line), monkeypatch)
    try_command(a_command(desk, "ntml-bench -cn paper_table seed=0  # needs a GPU and a network"), monkeypatch)


def test_a_command_that_fails_is_found(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ("ntml-bench attack=badnets attack.trigger_size=40 defense=none", "ntml-bench --help attack=badnet"):
        with pytest.raises(AssertionError, match=r"trigger_size is 40|badnet"):
            try_command(a_command(desk, line), monkeypatch)


def test_links_and_anchors_are_those_of_github(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# `ntml-table`: a *table* & more\n\n# Twice\n\n# Twice\n\n<a id='here'></a>\n")
    good = ["other.md#ntml-table-a-table--more", "other.md#twice-1", "other.md#here", "#a-page", "https://example.org/a#b"]
    bad = ["other.md#twice-2", "another.md", "#b-page", "https:/example.org", "htp://example.org", "../../../../../etc/hosts"]
    page = a_page(tmp_path, "# A page\n\n" + "\n".join(f"[text]({link})" for link in good + bad) + "\n\n![an image](no.png)\n")
    assert page.links == [*good, *bad, "no.png"]
    assert [link for link in page.links if not leads_somewhere(page, link)] == [*bad, "no.png"]
    taken: set[str] = set()
    for heading, name in (("Nt_ml, 5 % [B+P]", "nt_ml-5--bp"), ("Über", "über"), ("Über", "über-1")):
        assert anchor(heading, taken) == name
        taken.add(name)


def test_commands_are_read_as_a_shell_reads_them(tmp_path: Path) -> None:
    page = a_page(
        tmp_path,
        "```sh\n# a comment\nmake table ARGS=\"a=b,c d=e\"  # in words\nntml-bench -m \\\n  a='[1,2]' b=x#y && cd here\n```\n",
    )
    assert [(command.words, command.remark, command.line) for command in page.commands] == [
        (("make", "table", "ARGS=a=b,c d=e"), "in words", 3),
        (("ntml-bench", "-m", "a=[1,2]", "b=x#y"), "", 4),
        (("cd", "here"), "", 4),
    ]
    assert parts_of("") == []
