"""docs/methods.md: it is what the classes and YAML files say, of every method, and reads as it was written."""

import re
import sys
from html import unescape
from pathlib import Path

import pytest
from builders import CONF
from markdown_it import MarkdownIt

from ntml_bench.attacks import ATTACKS, Attack
from ntml_bench.attacks.badnets import BadNets
from ntml_bench.catalogue.__main__ import main
from ntml_bench.catalogue.docstrings import is_item, meanings, text_of
from ntml_bench.catalogue.families import FAMILIES, OTHER, family_of
from ntml_bench.catalogue.markdown import paragraphs
from ntml_bench.catalogue.methods import Method, methods, written
from ntml_bench.catalogue.page import ORIGINS, methods_page
from ntml_bench.defenses import DEFENSES, Defense
from ntml_bench.defenses.ft import FineTuning

PAGE = CONF.parent / "docs" / "methods.md"
METHODS = [method for group in FAMILIES for method in methods(group)]
IDS = [f"{method.option.group}={method.name}" for method in METHODS]


def test_the_page_says_what_classes_and_yaml_files_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == methods_page(), "make docs writes it anew"


def test_every_method_of_the_package_has_a_section() -> None:
    headings = re.findall(r"^### `(.+)`$", methods_page(), re.MULTILINE)
    assert headings == IDS
    own = {
        f"{group}={name}"
        for group, registry in (("attack", ATTACKS), ("defense", DEFENSES))
        for name in registry
        if registry[name].__module__.startswith("ntml_bench.")
    }
    assert own == set(IDS)


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_a_method_says_what_it_is(method: Method) -> None:
    assert method.family in FAMILIES[method.option.group]
    assert method.cls.origin in {"publication", *ORIGINS}
    assert method.option.source or method.cls.origin == "ours"
    text = method.text
    assert text.title.endswith(".")
    explained = {name for block in method.remarks for name in re.findall(r"`(\w+)`", block)}
    assert [setting.name for setting in method.settings if not setting.meaning and setting.name not in explained] == []
    # Rendered, it is the text that stands in the file.
    blocks = [text.title, *(block for block in text.blocks if not is_item(block))]
    rendered = re.sub(r"<[^>]+>", "", MarkdownIt().render(paragraphs(blocks)))
    assert unescape(rendered).split() == " ".join(blocks).replace("`", "").split()


def test_settings_have_the_values_of_the_file_and_the_words_of_the_schema() -> None:
    page = methods_page()
    assert "| `trigger_size` | 3 | at least 1 | side of the square in pixels |" in page
    assert "| `rounds` | 1000 | at least 1 | passes over the target class that make delta |" in page
    group = "[a group of settings](#recipes-and-other-groups-of-settings)"
    assert f"| `adversary` | epsilon 8, step_size 2, steps 7 | {group} |" in page
    assert "(ours: the official 0.1 is RAdam's)" in page  # a comment of the YAML file
    assert "Strength for `tuning=price`: `threshold`, from weak to strong 0.05, 0.1, 0.2, 0.3, 0.4, 0.5" in page
    assert "Other values: [`digit_scenes`](../conf/dataset/digit_scenes/defense/nt_ml.yaml), " in page


def test_a_family_is_named_by_the_class_or_follows_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [family_of(ATTACKS[name]) for name in ("badnets", "sig", "wanet", "none")] == [
        "dirty label",
        "clean label",
        "training-controlled",
        "none",
    ]
    monkeypatch.setattr(FineTuning, "family", None)
    assert family_of(FineTuning) == OTHER
    # One that nobody here has heard of has a chapter of its own, before what does nothing.
    monkeypatch.setattr(BadNets, "family", "a new one")
    chapters = re.findall(r"^## (.+)$", methods_page(), re.MULTILINE)
    assert chapters.index("Attacks: a new one") == chapters.index("No attack") - 1
    assert chapters.index("Defenses: other") == chapters.index("No defense") - 1


def test_a_method_that_explains_nothing_has_a_section_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[BadNets.__module__], "__doc__", None)
    monkeypatch.setattr(BadNets.Config, "__doc__", None)
    section = methods_page().partition("### `attack=badnets`")[2].partition("###")[0]
    assert "| `trigger_size` | 3 | at least 1 |  |" in section
    assert "Try: `ntml-bench attack=badnets`" in section


def test_the_meaning_of_a_setting_goes_to_the_next_one() -> None:
    docstring = """`one`, `two`: of both, as
    `one` has it; `three`: (null: none).

    What else there is to say. `four`: up to the end.
    """
    assert meanings([docstring, "`one`: another"]) == {
        "one": "of both, as `one` has it",
        "two": "of both, as `one` has it",
        "three": "(null: none)",
        "four": "up to the end",
    }
    assert meanings([None, "", "No setting at all."]) == {}


def test_lists_of_a_docstring_stay_lists() -> None:
    text = text_of("A title: what.\n\nDeviations:\n- one\n  goes on\n- two\n\nThe end,\nof all.")
    assert text.title == "A title: what."
    assert text.blocks == ("Deviations:", "- one goes on", "- two", "The end, of all.")
    assert paragraphs(text.blocks) == "**Deviations:**\n\n- one goes on\n- two\n\nThe end, of all."


def test_values_are_written_as_in_yaml() -> None:
    assert written({"a": [1.0, 2], "b": None, "c": True, "d": "text"}) == "a [1.0, 2], b null, c true, d text"


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--to", str(tmp_path / "methods.md")]) == 0
    assert (tmp_path / "methods.md").read_text(encoding="utf-8") == methods_page()
    assert main(["--to", str(tmp_path / "nowhere" / "methods.md")]) == 2
    assert "nowhere; --to FILE names another place" in capsys.readouterr().err


def test_methods_from_outside_need_neither_family_nor_origin() -> None:
    for base in (Attack, Defense):
        assert base.family is None
        assert base.origin == "publication"
