"""What is said of the scatter over seeds, in words."""

from ntml_bench.records.statistic import UNSTABLE_WIDTH, Statistic
from ntml_bench.records.summary import Block, Summary
from ntml_bench.statistics import FEWEST

NO_NUMBER = "\N{EN DASH}"
UNSTABLE = "unstable"


def interval_text(found: Statistic | None) -> str:
    """`[12.3, 45.6]`, as far as a percentage goes."""
    if found is None or found.interval is None:
        return NO_NUMBER
    low, high = found.interval
    return f"[{max(low, 0.0):.1f}, {min(high, 100.0):.1f}]"


def best_of(summary: Summary) -> str:
    if not any(repeated(block) for block in summary.blocks):
        return "best defense of the row, the highest mean DER"
    return (
        "the highest mean DER of the row, and the defenses that are not distinguishable from it (one-sided paired t test over"
        " the seeds at 5 % over the number of rivals: the truly best one is marked with a probability of at least 95 %)"
    )


def scatter_notes(summary: Summary) -> list[str]:
    """What is said of the scatter over seeds, or why nothing is."""
    lines = []
    if any(repeated(block) for block in summary.blocks):
        lines.append(
            "[low, high], here or in statistics.md: 95 % interval of the mean (Student t)."
            f" {UNSTABLE}: an interval of these metrics is wider than {UNSTABLE_WIDTH:.0f} points."
        )
    if not all(repeated(block) for block in summary.blocks):
        lines.append(f"Fewer than {FEWEST} seeds: no intervals and no tests; a difference may be chance.")
    return lines


def repeated(block: Block) -> bool:
    """Whether there are seeds enough to say how they scatter."""
    return len(block.seeds) >= FEWEST


def fewer_seeds(summary: Summary) -> list[str]:
    """The columns that are of fewer seeds than their block, as of a defense that was added later, in a sentence; or nothing.

    `nad (1, 2)`: of these seeds under every attack; `nad on sig (1)`: under that one.
    """
    parts = []
    for block in summary.blocks:
        cells = summary.cells_of(block)
        for defense in dict.fromkeys(cell.defense for cell in cells):
            found: dict[str, set[int]] = {}
            for cell in cells:
                if cell.defense == defense:
                    found.setdefault(cell.attack, set()).add(cell.seed)
            texts = {attack: ", ".join(map(str, sorted(seeds))) for attack, seeds in found.items()}
            if len(set(texts.values())) == 1:
                texts = {"": next(iter(texts.values()))}
            whole = ", ".join(map(str, block.seeds))
            parts += [f"{defense}{attack and f' on {attack}'} ({seeds})" for attack, seeds in texts.items() if seeds != whole]
    return [f"Of fewer seeds than the others: {'; '.join(parts)}."] if parts else []
