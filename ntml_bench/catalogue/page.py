"""docs/methods.md: what there is at a glance, a chapter a family, a section a method; data sets and nets at the end."""

from dataclasses import fields
from itertools import groupby
from typing import get_type_hints

from ntml_bench.attacks import Attack
from ntml_bench.attacks.given import FoldersConfig
from ntml_bench.attacks.perturbation import Perturbation
from ntml_bench.attacks.trigger_image import TriggerImageConfig
from ntml_bench.catalogue.docstrings import meanings
from ntml_bench.catalogue.families import FAMILIES
from ntml_bench.catalogue.markdown import code, linked, paragraphs, prose, table
from ntml_bench.catalogue.methods import GROUP, Method, Setting, methods
from ntml_bench.catalogue.options import Option, options
from ntml_bench.training import Recipe, SteppedRecipe

TITLES = {"attack": "Attacks", "defense": "Defenses"}
ORIGINS = {"reconstruction": "**a reconstruction**", "ours": "ours"}
"""What stands in the place of the publication, or before it."""
NEEDS = {"clean_budget": "clean budget", "poisoned_training_set": "poisoned training set"}

HEAD = """\
# Attacks and defenses

Every attack and defense that comes with ntml-bench: its source, what it needs, its settings, and where it deliberately differs
from its publication. `make docs` writes this page from the head of each method's file, its schema and its YAML file, and a test
holds the page against them. [extending.md](extending.md) says how to add a method, [protocol.md](protocol.md) how values came
about.

The values here are those of `conf/attack` and `conf/defense`. A data set or a family of values (`presets=small`) may have
others; each section links their files, which give the reason. `attack.SETTING=VALUE` and `defense.SETTING=VALUE` change a
setting, and `ntml-bench --cfg job attack=NAME defense=NAME` prints all that a run would take."""

ABOUT = {
    "attack": "*Published rate* is the share of the whole training set that the publication poisons.",
    "defense": """\
A defense is given a backdoored model and what it needs, never the trigger, the list of poisons or a test image. The clean
budget is a list of clean training images (`clean_budget`, a share of the training set). In a table `B` marks a defense that
needs the clean budget, `P` one that needs the poisoned training set.""",
}

GROUPS_OF_SETTINGS = """\
## Recipes and other groups of settings

A recipe stands for a training by SGD; `defense.recipe.epochs=10` changes one of its settings. Only `nad` has `full_rate`."""


def methods_page() -> str:
    """The whole page."""
    found = {group: methods(group) for group in TITLES}
    glances = [f"## {TITLES[group]} at a glance\n\n{ABOUT[group]}\n\n{_glance(listed)}" for group, listed in found.items()]
    chapters = [
        _chapter(group, family, list(members))
        for group, listed in found.items()
        for family, members in groupby(listed, key=lambda method: method.family)
    ]
    return "\n\n".join([HEAD, *glances, *chapters, _groups_of_settings(), _data_sets(), _nets()]) + "\n"


def _glance(listed: list[Method]) -> str:
    attacks = issubclass(listed[0].cls, Attack)
    heads = ["family", "name", "what it does", "source", "published rate" if attacks else "needs"]
    rows, last = [], ""
    for method in listed:
        family, last = "" if method.family == last else method.family, method.family
        name = linked(code(method.name), f"#{_anchor(method)}")
        rows.append([family, name, prose(_what(method)), _source(method), _given(method)])
    return table(heads, rows)


def _what(method: Method) -> str:
    """The first line of its file, without the name in front of it."""
    before, colon, after = method.text.title.partition(": ")
    return (after if colon else before).removesuffix(".")


def _source(method: Method) -> str:
    words = [ORIGINS.get(method.cls.origin, ""), prose(method.option.source or "")]
    return ": ".join(word for word in words if word)


def _given(method: Method) -> str:
    if issubclass(method.cls, Attack):
        rate = method.cls.published_rate
        return "" if rate is None else f"{100 * rate:g} %"
    return " + ".join(NEEDS.get(need, need) for need in method.cls.needs) or "nothing"


def _chapter(group: str, family: str, members: list[Method]) -> str:
    about = FAMILIES[group].get(family)
    title = f"No {group}" if family == "none" else f"{TITLES[group]}: {family}"
    return "\n\n".join([f"## {title}", *([about] if about else []), *map(_section, members)])


def _section(method: Method) -> str:
    group = method.option.group
    parts = [f"### `{group}={method.name}`", f"**{prose(method.text.title)}**", paragraphs(method.text.blocks)]
    if method.settings:
        rows = [[code(one.name), prose(one.value), _allowed(one), prose(one.meaning)] for one in method.settings]
        parts.append(table(["setting", "value", "allowed", "meaning"], rows))
    parts += [paragraphs(method.remarks), _facts(method)]
    return "\n\n".join(part for part in parts if part)


def _allowed(setting: Setting) -> str:
    return linked(GROUP, "#recipes-and-other-groups-of-settings") if setting.allowed == GROUP else setting.allowed


def _facts(method: Method) -> str:
    given = _given(method)
    facts = []
    if issubclass(method.cls, Attack):
        facts += [f"Published rate: {given}"] if given else []
    else:
        facts.append(f"Needs: {given}")
    if method.cls.origin == "reconstruction":
        facts.append("**This is a reconstruction**")
    if (strength := method.strength) is not None:
        values = ", ".join(map(str, strength["values"]))
        facts.append(f"Strength for `tuning=price`: `{strength['setting']}`, from weak to strong {values}")
    if method.elsewhere:
        links = ", ".join(linked(code(_setter(option)), f"../{option.place}") for option in method.elsewhere)
        facts.append(f"Other values: {links}")
    facts.append(f"Files: {linked('class', f'../{method.place}')}, {linked('values', f'../{method.option.place}')}")
    facts.append(f"Try: {code(method.option.command)}")
    return "\n".join(f"- {fact}" for fact in facts)


def _setter(option: Option) -> str:
    """Whose values a file elsewhere holds: presets/cpu/dataset/gtsrb/attack are those of cpu on gtsrb."""
    return " on ".join(option.group.split("/")[1::2])


def _anchor(method: Method) -> str:
    """That of the heading of its section, by GitHub's rule."""
    return f"{method.option.group}{method.name}".lower()


FILES = (("image of `given`, `patch_image`", TriggerImageConfig), ("folders of `given`", FoldersConfig))


def _groups_of_settings() -> str:
    said = meanings(
        [SteppedRecipe.__doc__, Recipe.__doc__, Perturbation.__doc__, TriggerImageConfig.__doc__, FoldersConfig.__doc__]
    )
    rows = []
    for title, group in (("recipe", SteppedRecipe), ("adversary of `lc`", Perturbation), *FILES):
        for entry in fields(group):
            kind = get_type_hints(group)[entry.name]
            allowed = entry.metadata["check"].allowed if "check" in entry.metadata else "true, false" if kind is bool else ""
            rows.append([title, code(entry.name), allowed, prose(said[entry.name])])
    return f"{GROUPS_OF_SETTINGS}\n\n{table(['group', 'setting', 'allowed', 'meaning'], rows)}"


def _data_sets() -> str:
    return f"## Data sets\n\n{_options('dataset')}"


def _nets() -> str:
    return f"## Nets\n\n{_options('model')}"


def _options(group: str) -> str:
    rows = [[linked(code(one.name), f"../{one.place}"), prose(one.about), code(one.command)] for one in options(group)]
    return table(["name", "what it is", "command"], rows)
