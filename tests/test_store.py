"""Keys, and artifacts that are there whole or not at all, whoever is killed or races."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntml_bench.data.base import AugmentationConfig
from ntml_bench.integrity import CHECKSUMS
from ntml_bench.store import RECORD, TENSORS, Artifact, Store, key_of, plain, write_json

FILES = (CHECKSUMS, RECORD, TENSORS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
SETTINGS = st.dictionaries(st.text(max_size=4), JSON, max_size=5)


def turned(value: Any) -> Any:
    """The same, with the keys of every mapping the other way round and lists as tuples."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return tuple(turned(item) for item in value) if isinstance(value, list) else value


@given(SETTINGS)
@settings(deadline=None)
def test_the_key_does_not_depend_on_the_order_of_keys(settings: dict[str, Any]) -> None:
    assert key_of(settings) == key_of(turned(settings))


@given(SETTINGS, SETTINGS)
@settings(deadline=None)
def test_different_settings_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (key_of(one) == key_of(other)) == same


@given(SETTINGS, st.text(max_size=4), st.integers())
@settings(deadline=None)
def test_one_changed_value_changes_the_key(settings: dict[str, Any], name: str, value: int) -> None:
    assert key_of(settings | {name: value}) != key_of(settings | {name: value + 1})
    assert key_of({"in": {**settings, name: value}}) != key_of({"in": {**settings, name: value + 1}})


def test_the_key_is_made_of_sixteen_hex_digits_and_stays() -> None:
    # The start of the SHA-256 of {"a":1,"b":[2.5,null]}, known to whoever has results stored under it.
    assert key_of({"b": (2.5, None), "a": 1}) == "fbb68c4db7e0dd9e"


def test_settings_become_plain_values() -> None:
    config = AugmentationConfig(crop_padding=2, horizontal_flip=True)
    assert plain({"a": config, 1: (Path("x/y"), None)}) == {
        "a": {"crop_padding": 2, "horizontal_flip": True},
        "1": ["x/y", None],
    }
    assert key_of({"a": config}) == key_of({"a": {"horizontal_flip": True, "crop_padding": 2}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_key_of_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        key_of({"a": [value]})


def artifact() -> Artifact:
    weights = torch.arange(24, dtype=torch.float32).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    tensors = {
        "weights": weights,
        "view": torch.arange(10)[2:5],
        "learned": torch.ones(2, requires_grad=True),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
    }
    return Artifact({"number": 1.5, "nothing": None, "list": [1, 2], "text": "é"}, tensors)


def check_same(found: Artifact | None) -> None:
    assert found is not None
    expected = artifact()
    assert found.record == expected.record
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "store")
    assert store.load("thing", "key") is None
    assert store.record("thing", "key") is None
    check_same(store.get_or_make("thing", "key", artifact))
    check_same(Store(tmp_path / "new" / "store").load("thing", "key"))
    assert store.record("thing", "key") == artifact().record
    assert store.load("thing", "other") is None
    assert store.load("other", "key") is None


def test_made_once(tmp_path: Path) -> None:
    store, made = Store(tmp_path), []

    def make() -> Artifact:
        made.append(1)
        return artifact()

    for _ in range(3):
        check_same(store.get_or_make("thing", "key", make))
    assert made == [1]
    store.get_or_make("thing", "key2", make)
    assert made == [1, 1]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make("thing", "key", artifact)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert [name for name in files if not name.endswith(".lock")] == [f"thing-key/{name}" for name in FILES]
    assert all((tmp_path / name).stat().st_size == 0 for name in files if name.endswith(".lock"))
    header_size = int.from_bytes((tmp_path / "thing-key" / TENSORS).read_bytes()[:8], "little")
    assert json.loads((tmp_path / "thing-key" / TENSORS).read_bytes()[8 : 8 + header_size])["weights"]["shape"] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "thing-key" / RECORD).read_text()) == artifact().record


def test_no_number_in_a_record_is_refused_and_leaves_no_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.get_or_make("thing", "key", lambda: Artifact({"accuracy": float("nan")}, {}))
    assert store.load("thing", "key") is None
    assert not store.locked("thing", "key")
    check_same(store.get_or_make("thing", "key", artifact))
    assert list(tmp_path.glob(".*.tmp-*")) == []


def test_a_maker_that_fails_leaves_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail() -> Artifact:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.get_or_make("thing", "key", fail)
    assert store.load("thing", "key") is None
    assert not store.locked("thing", "key")


def test_locked_while_held(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.locked("thing", "key")
    assert list(tmp_path.iterdir()) == []
    with store.lock("thing", "key"):
        assert store.locked("thing", "key")
        assert not store.locked("thing", "other")
    assert not store.locked("thing", "key")


def test_one_artifact_may_need_another(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def outer() -> Artifact:
        return Artifact({"inner": store.get_or_make("inner", "key", artifact).record}, {})

    assert store.get_or_make("outer", "key", outer).record["inner"] == artifact().record


def test_write_json_replaces_the_whole_file_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"b": 1, "a": (1, 2)})
    assert json.loads(path.read_text()) == {"a": [1, 2], "b": 1}
    for wrong in (float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, {"value": wrong})
    assert json.loads(path.read_text()) == {"a": [1, 2], "b": 1}
    write_json(path, [])
    assert path.read_text() == "[]\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def start(program: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


STUCK = """
import sys, time, torch
from pathlib import Path
from ntml_bench import store

genuine = Path.write_bytes

def stop(path, content):
    if path.name == store.RECORD:  # after the tensors
        print("stuck", flush=True)
        time.sleep(600)
    return genuine(path, content)

Path.write_bytes = stop
store.Store(Path(sys.argv[1])).get_or_make("thing", "key", lambda: store.Artifact({}, {"x": torch.zeros(1000)}))
"""


def test_a_writer_killed_in_the_middle_leaves_no_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    process = start(STUCK, tmp_path)
    try:
        assert said(process) == "stuck"
        assert store.locked("thing", "key")
        assert store.load("thing", "key") is None
    finally:
        process.kill()
        process.communicate()
    assert not store.locked("thing", "key")
    assert store.load("thing", "key") is None
    assert len(list(tmp_path.glob(".thing-key.tmp-*"))) == 1
    check_same(store.get_or_make("thing", "key", artifact))
    check_same(store.load("thing", "key"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".thing-key.lock", "thing-key"]


RACER = """
import os, sys, time
from pathlib import Path
from ntml_bench.store import Artifact, Store
import safetensors.torch, torch

root = Path(sys.argv[1])

def make():
    with (root / "made").open("a") as log:
        log.write("made\\n")
    time.sleep(0.5)
    value = int.from_bytes(os.urandom(6), "big")
    return Artifact({"value": value}, {"value": torch.tensor(value)})

print("ready", flush=True)
sys.stdin.readline()
found = Store(root / "store").get_or_make("thing", "key", make)
assert found.tensors["value"].item() == found.record["value"]
print(found.record["value"], flush=True)
"""


def test_of_two_processes_one_makes_and_both_read_the_same(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [said(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    values = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert values[0] == values[1]
    assert (tmp_path / "made").read_text() == "made\n"


def test_a_weight_that_is_used_in_two_places_is_stored_for_both(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    store = Store(tmp_path)
    store.get_or_make("victim", "a1", lambda: Artifact({}, {"one": weight, "other": weight, "part": weight[1]}))
    found = store.read("victim", "a1")
    assert found is not None
    assert torch.equal(found.tensors["one"], weight)
    assert torch.equal(found.tensors["other"], weight)
    assert torch.equal(found.tensors["part"], weight[1])
