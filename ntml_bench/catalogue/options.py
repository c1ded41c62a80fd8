"""A YAML file of `conf` as a reader sees it: what its header says, its values, and the comments on them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from omegaconf import OmegaConf

from ntml_bench.app.composition import config_folder

KEY = re.compile(r"( *)(\w+):(?: .*?)??(?: +# (.*))?")
COMMAND = re.compile(r"ntml-bench( [\w.]+=[^\s`]+)+")
SOURCE = re.compile(r"\(([^()]*(?:\b(?:19|20)\d\d\b|arXiv)[^()]*)\)")


@dataclass(frozen=True)
class Option:
    """One of the options of a group: `conf/GROUP/NAME.yaml`."""

    group: str
    name: str

    @property
    def place(self) -> str:
        """The file's path in the repository."""
        return f"conf/{self.group}/{self.name}.yaml"

    @cached_property
    def lines(self) -> list[str]:
        return (config_folder("conf") / self.group / f"{self.name}.yaml").read_text(encoding="utf-8").splitlines()

    @cached_property
    def header(self) -> list[str]:
        """The comment at the head of the file, without its marks."""
        head = []
        for line in self.lines:
            if not line.startswith("#"):
                break
            head.append(line.removeprefix("#").strip())
        return head

    @property
    def about(self) -> str:
        """What the header says before its first command, as one line."""
        words = []
        for line in self.header:
            before, command, _ = line.partition("ntml-bench ")
            words.append(before.strip().removesuffix(":"))
            if command:
                break
        return " ".join(words).strip()

    @property
    def source(self) -> str | None:
        """The publication that the header names in brackets; None where it names none."""
        found = SOURCE.search(self.about)
        return found and found[1]

    @property
    def command(self) -> str:
        """A command that uses the option: the first of its header, the shortest one where there is none."""
        found = COMMAND.search("\n".join(self.header))
        return found[0] if found else f"ntml-bench {self.group}={self.name}"

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The values that the file itself holds."""
        return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create("\n".join(self.lines))))

    @cached_property
    def comments(self) -> Mapping[str, str]:
        """The comment on each value of the highest level that has one: behind it, or on the line above."""
        found: dict[str, str] = {}
        above = ""
        for line in self.lines[len(self.header) :]:
            if line.startswith("# "):
                above = line.removeprefix("# ")
                continue
            key = KEY.fullmatch(line)
            comment = key and (key[3] or above).removesuffix(".")
            if key and not key[1] and comment:
                found[key[2]] = comment
            above = ""
        return found


def options(group: str, name: str = "*") -> list[Option]:
    """The options that come with the package, of a group or of all that a pattern such as `dataset/*/attack` means."""
    conf = config_folder("conf")
    return [Option(path.parent.relative_to(conf).as_posix(), path.stem) for path in sorted(conf.glob(f"{group}/{name}.yaml"))]
