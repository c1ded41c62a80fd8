"""What every rendering shows, as text: headers, the words in a cell, the caption, the list of what is unfinished."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from ntml_bench.errors import unknown
from ntml_bench.objective import described
from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import option_of
from ntml_bench.records.rates import rate_lines
from ntml_bench.records.scatter import NO_NUMBER, UNSTABLE, best_of, fewer_seeds, interval_text, scatter_notes
from ntml_bench.records.summary import METRICS, RETUNED, Block, Entry, Row, Summary
from ntml_bench.records.targets import target_lines
from ntml_bench.records.tuned_view import all_tuned, tuning_lines

SHORT = {
    "clean_accuracy": "ACC",
    "attack_success_rate": "ASR",
    "robust_accuracy": "RA",
    "defense_effectiveness_rating": "DER",
    RETUNED: "RASR",
}
STAGE_METRICS = {metric: SHORT[metric] for metric in METRICS[:3]} | {"true_class_probability": "true-class probability"}
"""What is shown of models between the stages of a defense, and how it is headed."""
LEGEND = {
    "ACC": "clean test images classified right",
    "ASR": "triggered test images of other classes classified as the attacker's target",
    "RA": "those same triggered images classified as their true class",
    "DER": "defense effectiveness rating, (max(0, ASR drop) - max(0, ACC drop) + 100) / 2 in percent; 50 is no effect",
    "RASR": "ASR of the model once it was fine-tuned again on a few poisons (re-tuning attack)",
}
NEEDS = {"clean_budget": ("B", "the clean budget"), "poisoned_training_set": ("P", "the poisoned training set")}
DROP = "↓"
DROP_POINTS = 10.0
"""A clean accuracy this many points below the undefended model's gets a mark: a low ASR alone is no success."""

Sections = tuple[tuple[str, ...], ...]
DEFAULT_METRICS = "acc/asr,ra/der"


def parse_sections(text: str) -> Sections:
    """`acc/asr,ra/der` as metric names: a section a comma, a slash within a cell. UserError for an unknown metric."""
    names = {short.lower(): metric for metric, short in SHORT.items()}
    sections = []
    for part in text.lower().split(","):
        for name in part.split("/"):
            if name.strip() not in names:
                raise unknown("metric", name.strip(), names)
        sections.append(tuple(names[name.strip()] for name in part.split("/")))
    return tuple(sections)


DEFAULT_SECTIONS = parse_sections(DEFAULT_METRICS)


def sections_of(summary: Summary) -> Sections:
    """What is shown of a sweep where nothing else is asked for."""
    return (*DEFAULT_SECTIONS, (RETUNED,)) if RETUNED in summary.metrics else DEFAULT_SECTIONS


def title_of(section: Sequence[str]) -> str:
    return " / ".join(SHORT[metric] for metric in section)


@dataclass(frozen=True)
class Column:
    """A column's head: the option, the settings that tell it from others of that option, the codes of its needs."""

    name: str
    settings: tuple[str, ...]
    needs: str
    kind: Literal["floor", "undefended", "defense"]

    @property
    def heading(self) -> str:
        return f"{self.name} ({', '.join(self.settings)})" if self.settings else self.name


@dataclass(frozen=True)
class Shown:
    """A cell of the table in words: numbers, their deviations and intervals, and a note where seeds are missing.

    `best`: the best of the row, or not distinguishable from it.
    """

    numbers: str
    deviations: str
    note: str
    best: bool
    attack_success_rate: float | None
    intervals: str = ""
    unstable: bool = False

    @property
    def remarks(self) -> list[str]:
        """What a reader must know before believing the numbers."""
        return [text for text in (self.note, UNSTABLE if self.unstable else "") if text]


def columns_of(block: Block) -> list[Column]:
    """Floor and undefended first, then the defenses in grid order."""
    heads = [Column("floor", ("clean model",), "", "floor"), Column("none", ("undefended",), "", "undefended")]
    for label in block.defenses:
        name, settings = split_label(label)
        heads.append(Column(name, settings, needs_code(block.needs[label]), "defense"))
    return heads


def split_label(label: str) -> tuple[str, tuple[str, ...]]:
    """`nt_ml (a=1, b=2)` as `nt_ml` and its settings."""
    name = option_of(label)
    inside = label[len(name) :].strip().removeprefix("(").removesuffix(")")
    return name, tuple(inside.split(", ")) if inside else ()


def needs_code(needs: Sequence[str]) -> str:
    return "+".join(NEEDS.get(need, (need, ""))[0] for need in needs) or "0"


def shown_row(row: Row, section: Sequence[str], *, average: bool = False) -> list[Shown]:
    """The cells of a row, in the order of `columns_of`."""
    reference = row.undefended.mean("clean_accuracy")
    shown = [_shown(row.floor, section, average=average), _shown(row.undefended, section, average=average)]
    for name, entry in row.defenses.items():
        # One alone has nothing to be better than.
        best = len(row.defenses) > 1 and row.leads(name)
        shown.append(_shown(entry, section, reference, best=best, average=average))
    return shown


def _shown(
    entry: Entry, section: Sequence[str], reference: float | None = None, *, best: bool = False, average: bool = False
) -> Shown:
    if entry.done == 0:
        return Shown(NO_NUMBER if average else entry.state or NO_NUMBER, "", "", False, None)
    if average and not entry.complete:
        # An average over some of the attacks is not to be held against one over all.
        reference = None
    numbers, deviations, intervals = [], [], []
    found_values = [entry.values.get(metric) for metric in section]
    for metric, found in zip(section, found_values, strict=True):
        numbers.append(NO_NUMBER if found is None else f"{found.mean:.1f}")
        deviations.append(NO_NUMBER if found is None or found.deviation is None else f"±{found.deviation:.1f}")
        intervals.append(interval_text(found))
        if metric == "clean_accuracy" and found and reference is not None and reference - found.mean >= DROP_POINTS:
            numbers[-1] += DROP
    return Shown(
        " / ".join(numbers),
        " / ".join(deviations) if any(text != NO_NUMBER for text in deviations) else "",
        "" if entry.complete else f"{entry.done} of {entry.planned}",
        best,
        entry.mean("attack_success_rate"),
        " / ".join(intervals) if any(text != NO_NUMBER for text in intervals) else "",
        any(found is not None and found.unstable for found in found_values),
    )


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


RECONSTRUCTIONS = {
    "nt_ml": "nt_ml is a reconstruction from the abstract of NT-ML (arXiv 2508.05404), not the authors' code;"
    " its numbers are not the paper's.",
    "nt_ml_selective": "nt_ml_selective is an extension of nt_ml of our own, which the abstract of NT-ML does not carry.",
}


PICKED = {
    "nt_ml": (
        " Its values were picked in a trial on test images, with the triggers known; its rivals' were not.",
        " The strengths of all defenses were chosen alike; what is not its strength stands as it was picked in a trial on test"
        " images, with the triggers known.",
    )
}
"""How a defense came to its values: in any table, and in one whose defenses are all tuned at a price."""


def status(summary: Summary) -> str:
    """One sentence on how far the sweep is."""
    total, done = len(summary.cells), summary.count("done")
    if done == total:
        return f"Sweep {summary.sweep}: all {total} cells done."
    rest = [f"{summary.count(state)} {state}" for state in ("failed", "running", "missing") if summary.count(state)]
    return f"Sweep {summary.sweep}: {done} of {total} cells done, {', '.join(rest)}."


def heading_of(block: Block) -> str:
    """Dataset, model and seeds of a block; a single run is called one."""
    if len(block.seeds) == 1:
        return f"{block.dataset}, {block.model}, 1 seed ({block.seeds[0]}): single runs, no deviations"
    seeds = ", ".join(map(str, block.seeds))
    return f"{block.dataset}, {block.model}, {len(block.seeds)} seeds ({seeds}): mean and sample standard deviation"


def legend(summary: Summary, sections: Sections, best_mark: str) -> list[str]:
    """What the abbreviations and marks mean; `best_mark` is how the rendering marks the best defense."""
    used = dict.fromkeys(SHORT[metric] for section in sections for metric in section)
    lines = ["All numbers are percent. " + " ".join(f"{short}: {LEGEND[short]}." for short in used)]
    lines.append(
        "floor: a clean model of the same recipe under the same trigger (mean only); no defense can be expected below it."
        " none: the backdoored model, undefended."
    )
    marks = f"{best_mark}: {best_of(summary)}."
    if "ACC" in used:
        marks += f" {DROP}: ACC at least {DROP_POINTS:.0f} points below the undefended model."
    if any(block.average for block in summary.blocks):
        marks += " average: over the attacks; 'k of n': only k of n attacks are complete."
    lines += [marks, *scatter_notes(summary), *fewer_seeds(summary)]
    lines += [f"{line[0].upper()}{line[1:]}." for line in target_lines(cell.target for cell in summary.cells)]
    lines += rate_lines(summary.cells)
    needs = dict.fromkeys(need for block in summary.blocks for found in block.needs.values() for need in found)
    if any(block.defenses for block in summary.blocks):
        codes = [f"{code}: {words}" for need in needs for code, words in [NEEDS.get(need, (need, need))]]
        if any(not found for block in summary.blocks for found in block.needs.values()):
            codes.append("0: nothing")
        lines.append(f"What a defense needs besides the model: {'; '.join(codes)}.")
    lines += [*_origin(summary), *_computed(summary), *searched(summary)]
    lines += tuning_lines(summary.cells)
    return lines + reconstructions(summary)


def reconstructions(summary: Summary) -> list[str]:
    """What must be said of the defenses that are shown."""
    options = {option_of(defense) for block in summary.blocks for defense in block.defenses}
    tuned = all_tuned(summary.cells)
    return [text + PICKED.get(name, ("", ""))[tuned] for name, text in RECONSTRUCTIONS.items() if name in options]


def searched(summary: Summary) -> list[str]:
    """By what the cells were chosen, where they are the trials of a search."""
    if summary.objective is None:
        return []
    return [f"The cells are trials of a search by {summary.objective} ({described(summary.objective)})."]


def _origin(summary: Summary) -> list[str]:
    """The family of values and the recipes of the trainings, as far as the cells say them."""
    families = dict.fromkeys(cell.settings["presets"] for cell in summary.cells if "presets" in cell.settings)
    recipes = dict.fromkeys(
        f"{recipe.get('name', 'training')} ({recipe['epochs']} epochs of batch {recipe['batch_size']})"
        for cell in summary.cells
        if (recipe := cell.settings.get("training") or {}).keys() >= {"epochs", "batch_size"}
    )
    parts = [f"Values of the methods: {'; '.join([', '.join(families), *_fitted(summary)])}."] if families else []
    return [" ".join([*parts, f"Recipe of the trainings: {', '.join(recipes)}."])] if recipes else parts


SETTERS = {"presets": "of this family", "dataset": "fitted to the data set"}
"""What is said of values that are not those of the method's own option, by who set them."""


def _fitted(summary: Summary) -> list[str]:
    """Which methods have which values of another than their own option: `fitted to the data set: badnets (trigger_size)`."""
    parts = []
    for setter, words in SETTERS.items():
        names: dict[str, dict[str, None]] = {}
        for group in ("attack", "defense"):
            for cell in summary.cells:
                found = cell.fitted.get(group, {}).get(setter, ())
                if found:
                    names.setdefault(option_of(getattr(cell.options, group)), {}).update(dict.fromkeys(found))
        if names:
            methods = [f"{name} ({', '.join(keys)})" for name, keys in names.items()]
            parts.append(f"{words}: {', '.join(methods)}")
    return parts


def _computed(summary: Summary) -> list[str]:
    """In which ways the cells were computed, where there are several: each rounds otherwise."""
    ways = Counter(cell.computed for cell in summary.cells if cell.computed is not None)
    if len(ways) < 2:
        return []
    parts = "; ".join(f"{way} ({count} {'cell' if count == 1 else 'cells'})" for way, count in ways.most_common())
    return [f"Cells were computed in different ways, which alone can move single cells by tens of points: {parts}."]


def unfinished(summary: Summary) -> list[str]:
    """What is not done: a line a failed cell with its error, a line a row for running and missing ones."""

    def place(cell: Cell) -> str:
        several = len(summary.blocks) > 1
        return (f"{cell.dataset}, {cell.model}, " if several else "") + cell.attack

    lines = [
        f"failed: {place(cell)}: {cell.defense} seed {cell.seed}: {cell.error}"
        for cell in summary.unfinished
        if cell.state == "failed"
    ]
    for state in ("running", "missing"):
        for where, cells in groupby((cell for cell in summary.unfinished if cell.state == state), key=place):
            lines.append(f"{state}: {where}: " + ", ".join(f"{cell.defense} seed {cell.seed}" for cell in cells))
    return lines
