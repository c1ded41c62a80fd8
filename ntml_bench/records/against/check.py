"""The check of a sweep against a kept reference, as data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ntml_bench.errors import UserError, unknown
from ntml_bench.records.against.cells import Count, Ranged, Repeated, counts_of, ranged_cells, repeated_cells
from ntml_bench.records.against.columns import Tested, judged_columns, standing_of
from ntml_bench.records.against.pairing import Unpaired, paired, refusal
from ntml_bench.records.against.runs import Runs, read_runs
from ntml_bench.records.against.series import series_of
from ntml_bench.records.manifest import MANIFEST
from ntml_bench.statistics import ALPHA
from ntml_bench.statistics.permutation import Standing

Verdict = Literal["reproduced", "not reproduced", "not decided", "not comparable"]
EXIT_CODES: dict[Verdict, int] = {"reproduced": 0, "not reproduced": 1, "not decided": 2, "not comparable": 2}


@dataclass(frozen=True)
class Check:
    """All that a rendering shows. `refused`: why nothing is compared, empty where something is.

    `compared`: cells of the sweep that are done and have a partner of the same settings, of `planned`.
    """

    ours: Runs
    theirs: Runs
    refused: str
    unpaired: tuple[Unpaired, ...]
    compared: int
    repeated: tuple[Repeated, ...]
    ranged: tuple[Ranged, ...]
    counts: tuple[Count, ...]
    tested: tuple[Tested, ...]
    standing: Standing | None = None

    @property
    def all_equal(self) -> bool:
        """Whether every compared cell is the kept one to the last digit."""
        return self.compared == len(self.repeated) > 0 and all(cell.equal for cell in self.repeated)

    @property
    def failed(self) -> list[Tested]:
        return [column for column in self.tested if not column.inside]

    @property
    def stands_out(self) -> bool:
        """Whether the new runs stand out among all runs, as far as their number can show it."""
        return self.standing is None or self.standing.p <= max(ALPHA, self.standing.smallest)

    @property
    def verdict(self) -> Verdict:
        """Equal digits throughout are a reproduction whatever the averages say; else the averages decide."""
        if self.refused or not self.compared:
            return "not comparable"
        if self.all_equal:
            return "reproduced"
        if not self.tested:
            return "not decided"
        return "not reproduced" if self.failed and self.stands_out else "reproduced"


def find_reference(name: str, outputs: Path) -> Path:
    """The folder of a kept table: a name in OUTPUTS/reference, or any folder with a manifest; UserError where there is none."""
    home = outputs / "reference"
    for folder in (home / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    raise unknown("reference", name, {path.parent.name for path in home.glob(f"*/{MANIFEST}")})


def check(folder: Path, reference: Path) -> Check:
    """Hold the sweep in `folder` against the one in `reference`. Raises UserError where one of them cannot be read."""
    if folder.resolve() == reference.resolve():
        raise UserError(f"{folder} is the reference itself; --against wants another sweep of the same settings")
    ours, theirs = read_runs(folder), read_runs(reference)
    refused = refusal(ours, theirs)
    if refused:
        return Check(ours, theirs, refused, (), 0, (), (), (), ())
    pairs, unpaired = paired(ours, theirs)
    series = series_of(pairs)
    ranged, tested = ranged_cells(series), judged_columns(series)
    return Check(
        ours=ours,
        theirs=theirs,
        refused="",
        unpaired=tuple(unpaired),
        compared=sum(len(pair.ours.runs) for pair in pairs),
        repeated=tuple(repeated_cells(pairs)),
        ranged=tuple(ranged),
        counts=tuple(counts_of(ranged)),
        tested=tuple(tested),
        standing=standing_of(tested),
    )
