"""Registry: names to classes; and the fields of a class that others read."""

import sys
from pathlib import Path

import pytest

from ntml_bench.defenses import DEFENSES, Defense
from ntml_bench.errors import UserError
from ntml_bench.registry import Registry, import_package_modules


class Thing:
    pass


def test_register_and_find() -> None:
    things: Registry[Thing] = Registry("thing")

    @things.register("b")
    class One(Thing):
        pass

    @things.register("a")
    class Other(Thing):
        pass

    assert things["b"] is One
    assert things["a"] is Other
    assert list(things) == ["a", "b"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown defense 'nt_mll'\. Did you mean 'nt_ml'\? Available: anp, "):
        _ = DEFENSES["nt_mll"]
    with pytest.raises(UserError, match=r"unknown thing 'x'\. Available: \(none\)\."):
        _ = Registry("thing")["x"]


def test_a_name_is_given_once() -> None:
    things: Registry[Thing] = Registry("thing")
    things.register("a")(Thing)

    class Impostor(Thing):
        pass

    with pytest.raises(ValueError, match=f"thing 'a' is already registered by {Thing.__module__}"):
        things.register("a")(Impostor)
    assert things["a"] is Thing


def test_a_module_may_be_imported_again() -> None:
    things: Registry[Thing] = Registry("thing")

    def import_it() -> type[Thing]:
        @things.register("a")
        class Reloaded(Thing):
            pass

        return Reloaded

    first, second = import_it(), import_it()
    assert first is not second
    assert things["a"] is second


def test_a_file_in_the_folder_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package_of_things"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "some_thing.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_package_modules("package_of_things", [str(package)])
    assert sys.modules["package_of_things.some_thing"].LOADED
    for name in ("package_of_things", "package_of_things.some_thing"):
        monkeypatch.delitem(sys.modules, name)


def test_the_defenses_of_the_table_are_there() -> None:
    assert {"none", "ft", "fp", "nad", "anp", "i_bau", "nt_ml"} <= set(DEFENSES)
    assert all(issubclass(DEFENSES[name], Defense) for name in DEFENSES)
    assert DEFENSES["nt_ml"].needs == ("clean_budget", "poisoned_training_set")
    assert all(DEFENSES[name].needs == ("clean_budget",) for name in ("ft", "fp", "nad", "anp", "i_bau"))
    assert DEFENSES["none"].needs == DEFENSES["clp"].needs == ()
    assert DEFENSES["ep"].needs == ("poisoned_training_set",)
