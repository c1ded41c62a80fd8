"""What there is to say of an attack or a defense, from its class, its module, its schema and its YAML file."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any, cast, get_type_hints

from ntml_bench.attacks import ATTACKS, Attack
from ntml_bench.catalogue.docstrings import Text, meanings, text_of
from ntml_bench.catalogue.families import FAMILIES, family_of
from ntml_bench.catalogue.options import Option, options
from ntml_bench.defenses import DEFENSES, Defense
from ntml_bench.schema import Check

GROUP = "a group of settings"
WORD = re.compile(r"\w+")
REGISTRIES = {"attack": ATTACKS, "defense": DEFENSES}
ELSEWHERE = ("dataset/*", "presets/*", "presets/*/dataset/*")
"""Folders `attack` and `defense` in these hold values of a data set, of a family of values, or of a family on a data set."""


@dataclass(frozen=True)
class Setting:
    """A setting with its value as the YAML file writes it, what is allowed (empty: any of its type, or `GROUP`) and what it
    means.
    """

    name: str
    value: str
    allowed: str
    meaning: str


@dataclass(frozen=True)
class Method:
    """An attack or a defense that comes with the package."""

    option: Option
    cls: type[Attack] | type[Defense]

    @property
    def name(self) -> str:
        return self.option.name

    @property
    def family(self) -> str:
        return family_of(self.cls)

    @property
    def text(self) -> Text:
        """What the head of its file says; the docstring of its class where the file has none."""
        return text_of(sys.modules[self.cls.__module__].__doc__ or self.cls.__doc__)

    @property
    def place(self) -> str:
        """The file of its class in the repository."""
        return f"{self.cls.__module__.replace('.', '/')}.py"

    @property
    def settings(self) -> list[Setting]:
        """All but the name."""
        return [self._setting(entry) for entry in fields(self.cls.Config) if entry.name != "name"]

    @property
    def remarks(self) -> list[str]:
        """The docstring of the schema, where that explains a setting otherwise than as `setting`: meaning."""
        unexplained = [setting for setting in self.settings if not setting.meaning]
        text = text_of(self.cls.Config.__doc__)
        return [text.title, *text.blocks] if unexplained and text.title else []

    @property
    def strength(self) -> Mapping[str, Any] | None:
        """What `tuning=price` goes through; None where the YAML file names no strength (some method has a setting of that
        name).
        """
        own = {entry.name for entry in fields(self.cls.Config)}
        return None if "strength" in own else self.option.values.get("strength")

    @property
    def elsewhere(self) -> list[Option]:
        """The files with other values for a data set or a family of values."""
        return [option for what in ELSEWHERE for option in options(f"{what}/{self.option.group}", self.name)]

    def _setting(self, entry: Field[Any]) -> Setting:
        value = self.option.values[entry.name]
        kind = get_type_hints(self.cls.Config)[entry.name]
        check = cast("Check | None", entry.metadata.get("check"))
        allowed = "true, false" if kind is bool else check.allowed if check else GROUP if is_dataclass(kind) else ""
        said = meanings([schema.__doc__ for schema in self.cls.Config.__mro__ if is_dataclass(schema)]).get(entry.name, "")
        comment = self.option.comments.get(entry.name, "")
        more = comment if set(WORD.findall(comment)) - set(WORD.findall(said)) else ""
        return Setting(entry.name, written(value), allowed, f"{said} ({more})" if said and more else said or more)


def written(value: Any) -> str:
    """A value as one writes it in YAML; a group as its settings, one behind the other."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {written(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def methods(group: str) -> list[Method]:
    """The attacks or the defenses that come with the package, by family."""
    found = [Method(option, REGISTRIES[group][option.values["name"]]) for option in options(group)]
    order = [*FAMILIES[group]]
    last = order.pop()  # what does nothing stands behind families that nobody here has heard of

    def place(method: Method) -> tuple[int, str, str]:
        known = order.index(method.family) if method.family in order else len(order) + (method.family == last)
        return known, method.family, method.name

    return sorted(found, key=place)
