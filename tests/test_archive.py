"""Exported sweeps: the same bytes every time, read only as what they declare, and nothing half when it goes wrong."""

import errno
import gzip
import io
import json
import shutil
import tarfile
import zlib
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_outputs import cells_of, key, make, tree, write_outputs
from table_records import entry, metrics, record, write_sweep
from tuned_records import tuned_sweep

from ntml_bench.housekeeping import archive, receive
from ntml_bench.housekeeping.archive import INDEX
from ntml_bench.housekeeping.main import main
from ntml_bench.integrity import Mark
from ntml_bench.store import Store
from ntml_bench.table.main import main as table

Member = tuple[tarfile.TarInfo, bytes]
Change = Callable[[list[Member]], "list[Member] | None"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sweeps were run; nothing in it is changed."""
    return write_outputs(tmp_path_factory.mktemp("home") / "outputs")


@pytest.fixture(scope="module")
def archives(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sweep `one` without its models and with them."""
    folder = tmp_path_factory.mktemp("archives")
    found = {name: folder / f"{name}.tar.gz" for name in ("records", "models")}
    assert main(["export", "one", "--outputs", str(home), "--to", str(found["records"])]) == 0
    assert main(["export", "one", "--models", "--outputs", str(home), "--to", str(found["models"])]) == 0
    return found


def receive_archive(path: Path, outputs: Path, *arguments: str) -> int:
    return main(["import", str(path), "--outputs", str(outputs), *arguments])


def cells_csv(outputs: Path, to: Path, name: str = "one") -> bytes:
    assert table([name, "--outputs", str(outputs), "--format", "csv", "--to", str(to)]) == 0
    return (to / "cells.csv").read_bytes()


def stored(outputs: Path) -> set[str]:
    return {path.name for path in (outputs / "store").glob("[!.]*")}


def test_the_same_sweep_makes_the_same_bytes(home: Path, archives: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home, tmp_path / "elsewhere"))
    for name, options in (("records", []), ("models", ["--models"])):
        target = tmp_path / f"{name}.tar.gz"
        assert main(["export", "one", *options, "--outputs", str(copy), "--to", str(target)]) == 0
        assert target.read_bytes() == archives[name].read_bytes()
        # And once more from what was imported.
        outputs = tmp_path / name
        assert receive_archive(target, outputs) == 0
        again = tmp_path / f"{name} again.tar.gz"
        assert main(["export", "one", *options, "--outputs", str(outputs), "--to", str(again)]) == 0
        assert again.read_bytes() == target.read_bytes()


def test_an_archive_is_a_tar_that_others_can_check(archives: dict[str, Path]) -> None:
    with tarfile.open(archives["models"]) as tar:
        members = tar.getmembers()
        contents = {member.name: tar.extractfile(member).read() for member in members}  # pyright: ignore[reportOptionalMemberAccess]
    assert members[0].name == INDEX
    assert [member.name for member in members[1:]] == sorted(contents.keys() - {INDEX})
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members} == {(0, 0, "", "", 0)}
    assert all(member.isreg() for member in members)
    index = json.loads(contents.pop(INDEX))
    assert (index["format"], index["version"], index["sweep"]) == ("ntml-bench sweep", 1, "one")
    assert index["files"] == {name: Mark.of(content).plain() for name, content in contents.items()}
    assert {name.split("/")[1] for name in contents if name.startswith("store/")} == {
        name for cell in cells_of("one") for name in (*cell["artifacts"], f"cell-{cell['key']}") if "surrogate" not in name
    }


def test_an_imported_sweep_has_the_same_table_and_its_models(home: Path, archives: dict[str, Path], tmp_path: Path) -> None:
    right = cells_csv(home, tmp_path / "right")
    for name in ("records", "models"):
        outputs = tmp_path / name
        assert receive_archive(archives[name], outputs) == 0
        assert cells_csv(outputs, tmp_path / "found") == right
        assert (outputs / "reference" / "one" / "cells.csv").read_bytes() == right
        assert not list(outputs.glob(".staging-*"))
    assert not (tmp_path / "records" / "store").exists()
    brought = tmp_path / "models" / "store"
    assert stored(tmp_path / "models") == {path.name for path in brought.glob("[!.]*")} > set()
    for name in stored(tmp_path / "models"):
        assert tree(brought / name) == tree(home / "store" / name)
    # What came along belongs to the sweep that it came with, and goes with it.
    assert main(["prune", "--unused", "--yes", "--outputs", str(tmp_path / "models")]) == 0
    assert stored(tmp_path / "models")
    assert main(["prune", "--sweep", "one", "--yes", "--outputs", str(tmp_path / "models")]) == 0
    assert not stored(tmp_path / "models")


def three_seeds(outputs: Path) -> Path:
    cells = [entry(attack, defense, seed) for attack in ("badnets", "sig") for defense in ("ft", "nt_ml") for seed in range(3)]
    records = [record(cell, metrics(90, len(cell["defense"]) + cell["seed"], 80), metrics(95, 99, 1)) for cell in cells]
    return write_sweep(outputs, "seeds", cells, records)


@pytest.mark.parametrize(
    ("make_sweep", "more"),
    [
        (three_seeds, {"statistics.md", "statistics.json"}),
        (tuned_sweep, {"price.md", "price.csv", "ablation.md", "ablation.csv"}),
    ],
)
def test_tables_of_every_kind_travel(make_sweep: Callable[[Path], Path], more: set[str], tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "outputs")
    target = tmp_path / "some.tar.gz"
    assert main(["export", folder.name, "--outputs", str(tmp_path / "outputs"), "--to", str(target)]) == 0
    assert receive_archive(target, tmp_path / "there") == 0
    found = {path.name for path in (tmp_path / "there" / "reference" / folder.name).glob("*.*")}
    assert found == {"cells.csv", "table.md", "manifest.json", "checksums.json", "imported.json", *more}
    again = tmp_path / "again.tar.gz"
    assert main(["export", folder.name, "--outputs", str(tmp_path / "there"), "--to", str(again)]) == 0
    assert again.read_bytes() == target.read_bytes()


def test_a_second_import_changes_nothing(archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = tmp_path / "outputs"
    for _ in range(2):
        assert receive_archive(archives["models"], outputs) == 0
    assert receive_archive(archives["records"], outputs) == 0
    before = tree(outputs)
    assert receive_archive(archives["models"], outputs) == 0
    after = tree(outputs)
    origin = "reference/one/imported.json"
    assert {name: content for name, content in after.items() if name != origin} == {
        name: content for name, content in before.items() if name != origin
    }
    assert json.loads(after[origin] or b"")["artifacts"] == sorted(stored(outputs))
    assert "0 artifacts are new in the store, 6 were there" in capsys.readouterr().out


def test_what_the_store_has_is_kept_unless_it_is_damaged(archives: dict[str, Path], tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    store = Store(outputs / "store")
    victim, purified = f"victim-{key('badnets')}", f"purified-{key('badnets', 'ft')}"
    own = make(store, victim, {"made": "here"})
    (make(store, purified) / "record.json").write_text("{}")
    before = tree(own)
    assert receive_archive(archives["models"], outputs) == 0
    assert tree(own) == before
    assert store.record(*purified.split("-")) == {"made": purified}


def test_a_name_that_is_taken_is_refused(
    home: Path, archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = Path(shutil.copytree(home, tmp_path / "outputs"))
    assert receive_archive(archives["records"], outputs) == 0, "the sweep of that name is the very same"
    shutil.rmtree(outputs / "reference")
    manifest = outputs / "sweeps" / "one" / "manifest.json"
    manifest.write_text(json.dumps({"sweep": "one", "store": "../../store", "cells": cells_of("one")[1:]}))
    before = tree(outputs)
    assert receive_archive(archives["records"], outputs) == 2
    assert "--as NAME" in capsys.readouterr().err
    assert tree(outputs) == before
    assert receive_archive(archives["records"], outputs, "--as", "theirs") == 0
    assert cells_csv(outputs, tmp_path / "found", "theirs") == cells_csv(home, tmp_path / "right")
    assert main(["export", "two", "--outputs", str(home), "--to", str(tmp_path / "two.tar.gz")]) == 0
    before = tree(outputs)
    assert receive_archive(tmp_path / "two.tar.gz", outputs, "--as", "theirs") == 2
    assert "holds something else" in capsys.readouterr().err
    for name in ("../up", "/etc", ".hidden", "", "a\nb", "a:b", "x" * 101):
        assert receive_archive(archives["records"], outputs, "--as", name) == 2
        assert "no name for a folder" in capsys.readouterr().err
    assert tree(outputs) == before


@pytest.mark.parametrize("change", ["unfinished", "lost model", "damaged model", "no list", "unknown", "exists"])
def test_what_cannot_be_exported_is_said(change: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs, target, sweep = Path(shutil.copytree(home, tmp_path / "outputs")), tmp_path / "one.tar.gz", "one"
    victim, manifest = outputs / "store" / f"victim-{key('badnets')}", outputs / "sweeps" / "one" / "manifest.json"
    match change:
        case "unfinished":
            shutil.rmtree(outputs / "store" / f"cell-{cells_of('one')[0]['key']}")
            words = "1 of the 2 cells"
        case "lost model":
            shutil.rmtree(victim)
            words = f"{victim.name} cannot be exported: it is not in the store"
        case "damaged model":
            content = bytearray((victim / "tensors.safetensors").read_bytes())
            content[-1] ^= 1
            (victim / "tensors.safetensors").write_bytes(content)
            words = f"{victim.name} cannot be exported: tensors.safetensors is not what its checksum says"
        case "no list":
            cells = [{name: value for name, value in cell.items() if name != "artifacts"} for cell in cells_of("one")]
            manifest.write_text(json.dumps({"sweep": "one", "store": "../../store", "cells": cells}))
            words = "does not say which models"
        case "unknown":
            sweep, words = "onne", "Did you mean 'one'?"
        case _:
            target.write_text("mine")
            words = "exists; --to names another file"
    assert main(["export", sweep, "--models", "--outputs", str(outputs), "--to", str(target)]) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path != target] == ["outputs"]
    assert not target.exists() or target.read_text() == "mine"


# Archives that were made to deceive.


def unpacked(path: Path) -> list[Member]:
    with tarfile.open(path) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # pyright: ignore[reportOptionalMemberAccess]


def packed(members: list[Member], path: Path, form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w:gz", format=form) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def declared(members: list[Member], **changes: Any) -> list[Member]:
    """The same with an index that declares just what is there, in order; `changes` of the index."""
    index = json.loads(members[0][1]) | {"files": {member.name: Mark.of(content).plain() for member, content in members[1:]}}
    return [plain_member(INDEX, json.dumps(index | changes).encode()), *sorted(members[1:], key=lambda pair: pair[0].name)]


def plain_member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(content)
    return member, content


def renamed(old: str, new: str, members: list[Member]) -> list[Member]:
    changed = []
    for member, content in members:
        member.name = member.name.replace(old, new)
        changed.append((member, content))
    return changed


EVIL_NAMES = {
    "absolute": "/tmp/ntml_store_evil",
    "up": "../evil",
    "up inside": "sweep/records/../../../evil",
    "from the store": "store/../../evil",
    "backslash": "sweep\\..\\evil",
    "drive": "C:/evil",
    "another case": "Sweep/manifest.json",
    "another case of a file": "sweep/MANIFEST.json",
    "upper hex": "sweep/records/0123456789ABCDEF.json",
    "a trailing dot": "sweep/manifest.json.",
    "a code file": "sweep/sitecustomize.py",
    "a pickle": "store/victim-0123456789abcdef/model.pkl",
    "hidden": "store/.victim-0123456789abcdef.lock",
    "no name": "",
}
KINDS = {
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
    "folder": tarfile.DIRTYPE,
    "contiguous": tarfile.CONTTYPE,
    "old file": tarfile.AREGTYPE,
}
EVIL: dict[str, Change] = {}
for label, evil in EVIL_NAMES.items():
    EVIL[f"{label}, undeclared"] = lambda members, evil=evil: [*members, plain_member(evil, b"evil")]
    EVIL[f"{label}, declared"] = lambda members, evil=evil: declared([*members, plain_member(evil, b"evil")])
    EVIL[f"{label}, first"] = lambda members, evil=evil: [plain_member(evil, b"evil"), *members]
for label, kind in KINDS.items():
    # In place of the manifest, with its name: what is written next through a link would land elsewhere.
    EVIL[f"{label} in place"] = lambda members, kind=kind: [
        plain_member(member.name, b"", kind, "/tmp") if member.name == "sweep/manifest.json" else (member, content)
        for member, content in members
    ]
    EVIL[f"{label} before"] = lambda members, kind=kind: [
        members[0],
        plain_member("sweep/manifest.json", b"", kind, "/tmp"),
        *members[1:],
    ]


def evil_change(function: Change) -> Change:
    EVIL[function.__name__.replace("_", " ")] = function
    return function


@evil_change
def twice_the_same_member(members: list[Member]) -> list[Member]:
    return [*members, members[-1]]


@evil_change
def twice_in_a_row(members: list[Member]) -> list[Member]:
    return [members[0], members[1], *members[1:]]


@evil_change
def a_member_is_missing(members: list[Member]) -> list[Member]:
    return members[:-1]


@evil_change
def another_order(members: list[Member]) -> list[Member]:
    return [members[0], *reversed(members[1:])]


@evil_change
def no_index(members: list[Member]) -> list[Member]:
    return members[1:]


@evil_change
def nothing_in_it(members: list[Member]) -> list[Member]:
    return []


@evil_change
def other_content_of_the_same_size(members: list[Member]) -> list[Member]:
    member, content = members[-1]
    return [*members[:-1], (member, content[:-1] + bytes([content[-1] ^ 1]))]


@evil_change
def longer_than_declared(members: list[Member]) -> list[Member]:
    return [*members[:-1], plain_member(members[-1][0].name, members[-1][1] + b"x")]


@evil_change
def another_format(members: list[Member]) -> list[Member]:
    return declared(members, format="something else")


@evil_change
def a_later_version(members: list[Member]) -> list[Member]:
    return declared(members, version=2)


@evil_change
def a_sweep_with_a_path(members: list[Member]) -> list[Member]:
    return declared(members, sweep="../../evil")


@evil_change
def a_sweep_that_is_no_name(members: list[Member]) -> list[Member]:
    return declared(members, sweep=["one"])


@evil_change
def files_that_are_none(members: list[Member]) -> list[Member]:
    return declared(members, files=[1, 2])


@evil_change
def a_negative_size(members: list[Member]) -> list[Member]:
    return declared(members, files={"sweep/manifest.json": {"sha256": "0" * 64, "bytes": -1}})


@evil_change
def an_index_nested_beyond_reason(members: list[Member]) -> list[Member]:
    return [plain_member(INDEX, b"[" * 100_000 + b"]" * 100_000), *members[1:]]


@evil_change
def an_index_beyond_reason(members: list[Member]) -> list[Member]:
    return [plain_member(INDEX, members[0][1] + b" " * archive.LARGEST_INDEX), *members[1:]]


@evil_change
def a_wrong_number_in_a_record(members: list[Member]) -> list[Member]:
    """Declared with right checksums in the index, but not in those of the records."""
    changed = [
        (member, content) if "/records/" not in member.name else plain_member(member.name, content.replace(b"95", b"96"))
        for member, content in members
    ]
    assert changed != members
    return declared(changed)


@evil_change
def another_key_for_a_model(members: list[Member]) -> list[Member]:
    return declared(renamed(f"victim-{key('badnets')}", f"victim-{key('evil')}", members))


@evil_change
def half_a_model(members: list[Member]) -> list[Member]:
    return declared([pair for pair in members if not pair[0].name.endswith("tensors.safetensors")])


@evil_change
def a_model_that_no_cell_uses(members: list[Member]) -> list[Member]:
    victim = [(m, c) for m, c in members if m.name.startswith("store/victim")]
    return declared([*members, *(plain_member(m.name.replace("victim", "purified"), c) for m, c in victim)])


@evil_change
def no_records(members: list[Member]) -> list[Member]:
    return declared([pair for pair in members if "/records/" not in pair[0].name])


@evil_change
def no_manifest(members: list[Member]) -> list[Member]:
    return declared([pair for pair in members if pair[0].name != "sweep/manifest.json"])


@pytest.mark.parametrize("name", EVIL)
def test_what_an_archive_may_not_hold_ends_the_import(
    name: str, archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = EVIL[name](unpacked(archives["models"]))
    assert members is not None
    path = packed(members, tmp_path / "evil.tar.gz")
    outputs = tmp_path / "deep" / "er" / "outputs"
    write_outputs(outputs)
    before = tree(tmp_path)
    assert receive_archive(path, outputs) == 2
    assert tree(tmp_path) == before
    assert not Path("/tmp/ntml_store_evil").exists()
    said = capsys.readouterr().err
    assert said.startswith("ntml-store: ")
    assert len(said.splitlines()) == 1


def test_what_is_packed_here_is_refused_for_what_was_changed_only(archives: dict[str, Path], tmp_path: Path) -> None:
    path = packed(declared(unpacked(archives["models"])), tmp_path / "good.tar.gz")
    assert receive_archive(path, write_outputs(tmp_path / "outputs")) == 0


def refused(path: Path, outputs: Path, words: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    """The import ends with these words, and leaves nothing."""
    before = tree(outputs) if outputs.exists() else {}
    assert receive_archive(path, outputs, *arguments) == 2
    assert words in capsys.readouterr().err
    assert tree(outputs) == before


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extended_headers_are_refused(
    form: int, archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may be of any size and rename what follows."""
    members = unpacked(archives["records"])
    long = plain_member("sweep/" + "x" * 300, b"evil")
    for changed in ([members[0], long, *members[1:]], [long, *members]):
        refused(packed(changed, tmp_path / "long.tar.gz", form), tmp_path / "outputs", "where ", capsys)
    members[1][0].pax_headers = {"path": "../../evil"}
    if form == tarfile.PAX_FORMAT:
        refused(packed(members, tmp_path / "pax.tar.gz", form), tmp_path / "outputs", "where ", capsys)


@pytest.mark.parametrize("zeros", [10**6, 3 * 10**8])
def test_a_bomb_is_not_unpacked_beyond_what_is_declared(
    zeros: int, archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gzip.decompress(archives["records"].read_bytes())
    read: list[int] = []
    genuine = archive.Archive._read_up_to

    def counted(self: archive.Archive, size: int) -> bytes:
        read.append(size)
        return genuine(self, size)

    monkeypatch.setattr(archive.Archive, "_read_up_to", counted)
    squeezed = zlib.compressobj(9, wbits=31)
    path = tmp_path / "bomb.tar.gz"
    with path.open("wb") as file:
        file.write(squeezed.compress(plain))
        for _ in range(zeros // 10**6):
            file.write(squeezed.compress(bytes(10**6)))
        file.write(squeezed.flush())
    refused(path, tmp_path / "outputs", "it holds more than it declares", capsys)
    assert sum(read) <= len(plain) + tarfile.RECORDSIZE


def test_what_is_too_large_is_refused_before_it_is_unpacked(
    archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs"

    def never(*_: Any) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(archive.Archive, "unpack", never)
    refused(archives["models"], outputs, "more than 1.0 kB; --max-size allows more", capsys, "--max-size", "1kB")
    refused(archives["models"], outputs, "'much' is not a size", capsys, "--max-size", "much")
    members = unpacked(archives["records"])
    index = json.loads(members[0][1])
    index["files"]["sweep/stages.md"] = {"sha256": "0" * 64, "bytes": 10**15}
    path = packed([plain_member(INDEX, json.dumps(index).encode()), *members[1:]], tmp_path / "huge.tar.gz")
    refused(path, outputs, "unpacks to 1000 TB, more than 10.7 GB", capsys)
    refused(path, outputs, "has ", capsys, "--max-size", "9999TB")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(receive.shutil, "disk_usage", lambda _: usage(10**4, 9000, 1000))
    refused(archives["models"], outputs, "has 1.0 kB left", capsys)


def test_what_is_no_archive_is_named(archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, outputs = archives["records"].read_bytes(), tmp_path / "outputs"
    damaged = {
        "": "ends early",
        "text": "Not a gzipped file",
        "cut": "damaged",
        "tar without gzip": "Not a gzipped file",
        "something behind": "damaged",
        "a second one behind": "it holds more than it declares",
    }
    contents = {
        "": b"",
        "text": b"not an archive at all",
        "cut": content[: len(content) // 2],
        "tar without gzip": gzip.decompress(content),
        "something behind": content + b"evil",
        "a second one behind": content + content,
    }
    for name, words in damaged.items():
        path = tmp_path / "file"
        path.write_bytes(contents[name])
        refused(path, outputs, words, capsys)
    refused(tmp_path / "nowhere", outputs, "cannot read", capsys)
    refused(tmp_path, outputs, "is a directory", capsys)


@pytest.fixture(scope="module")
def right(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    outputs = tmp_path_factory.mktemp("right")
    assert receive_archive(archives["models"], outputs) == 0
    return tree(outputs)


@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3),
    cut=st.none() | st.floats(0, 1),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_end_in_an_error_or_the_very_same_content(
    archives: dict[str, Path],
    right: dict[str, bytes | None],
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[float, int]],
    cut: float | None,
) -> None:
    content = bytearray(archives["models"].read_bytes())
    for share, flip in changes:
        content[int(share * len(content))] ^= flip
    if cut is not None:
        del content[int(cut * len(content)) :]
    place = tmp_path_factory.mktemp("flipped")
    (place / "file.tar.gz").write_bytes(content)
    code = receive_archive(place / "file.tar.gz", place / "outputs")
    assert (code, tree(place / "outputs")) in ((2, {}), (0, right))
    shutil.rmtree(place)


@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(deadline=None, max_examples=60)
def test_flipped_bytes_that_gzip_does_not_see_end_so_too(
    archives: dict[str, Path], right: dict[str, bytes | None], tmp_path_factory: pytest.TempPathFactory, share: float, flip: int
) -> None:
    """As somebody would who changes a number and packs it again."""
    content = bytearray(gzip.decompress(archives["models"].read_bytes()))
    index_ends = content.index(b"sweep/cells.csv", 2 * tarfile.BLOCKSIZE)
    place = index_ends + int(share * (len(content) - index_ends))
    content[place] ^= flip
    folder = tmp_path_factory.mktemp("repacked")
    (folder / "file.tar.gz").write_bytes(gzip.compress(content, 1))
    code = receive_archive(folder / "file.tar.gz", folder / "outputs")
    assert (code, tree(folder / "outputs")) in ((2, {}), (0, right))
    shutil.rmtree(folder)


@pytest.mark.parametrize("read", [2, 12, 40])
def test_an_import_that_is_stopped_while_it_unpacks_leaves_nothing(
    read: int, archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs"
    genuine, reads = archive.Archive._read_up_to, []

    def stop(self: archive.Archive, size: int) -> bytes:
        reads.append(size)
        if len(reads) == read:
            raise KeyboardInterrupt
        return genuine(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(archive.Archive, "_read_up_to", stop)
        assert receive_archive(archives["models"], outputs) == 130
    assert len(reads) == read
    assert tree(outputs) == {}
    assert receive_archive(archives["models"], outputs) == 0


@pytest.mark.parametrize("stopped", [1, 3, 6])
def test_an_import_that_is_stopped_between_two_models_leaves_whole_ones(
    stopped: int, archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs"
    genuine, placed = Store.place, []

    def place(self: Store, *arguments: Any) -> bool:
        placed.append(arguments)
        if len(placed) == stopped:
            raise KeyboardInterrupt
        return genuine(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "place", place)
        assert receive_archive(archives["models"], outputs) == 130
    assert len(stored(outputs)) == stopped - 1
    assert not (outputs / "reference").exists()
    assert not list(outputs.glob(".staging-*"))
    assert all(Store(outputs / "store").load(*name.split("-")) is not None for name in stored(outputs))
    assert receive_archive(archives["models"], outputs) == 0
    assert len(stored(outputs)) == 6


def test_what_a_killed_import_left_is_removed_by_the_next(archives: dict[str, Path], tmp_path: Path) -> None:
    left = tmp_path / "outputs" / ".staging-0123"
    left.mkdir(parents=True)
    (left / "file").write_text("half")
    assert receive_archive(archives["records"], tmp_path / "outputs") == 0
    assert not left.exists()


def test_one_import_at_a_time(archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = tmp_path / "outputs"
    with receive._locked(outputs):
        refused(archives["records"], outputs, "another archive is being imported", capsys)


def test_a_full_disk_ends_an_import_with_a_line(
    archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if mode == "xb" and path.name == "tensors.safetensors":
            raise OSError(errno.ENOSPC, "whatever")
        return genuine(path, mode, *arguments, **named)

    monkeypatch.setattr(Path, "open", full)
    refused(archives["models"], tmp_path / "outputs", "no space left on device", capsys)
    target = tmp_path / "target.tar.gz"
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, *rest, **named: _raise() if path.name.startswith(".target") else genuine(path, *rest, **named),
    )
    assert main(["export", "one", "--outputs", str(write_outputs(tmp_path / "home")), "--to", str(target)]) == 2
    assert f"cannot write {target}: no space left on device" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tar.gz"))


def _raise() -> Any:
    raise OSError(errno.ENOSPC, "whatever")
