"""What every rendering of a comparison shows, as text."""

from collections import Counter
from collections.abc import Iterable
from typing import get_args

from ntml_bench.records.published.comparison import Comparison, Line, Verdict
from ntml_bench.records.published.reference import COMPARED
from ntml_bench.records.view import NO_NUMBER, SHORT, title_of

HEADINGS = ("attack", "defense", *(title_of((metric,)) for metric in COMPARED), "verdict", "note")


def headline(comparison: Comparison) -> str:
    """How many cells have a published number, and how they fare."""
    total = len(comparison.lines)
    missing = comparison.count("no published number")
    if missing == total:
        return f"None of the {total} cells has a published number."
    counts = [(comparison.count(verdict), verdict) for verdict in get_args(Verdict) if verdict != "no published number"]
    fates = ", ".join(f"{verdict}: {count}" for count, verdict in counts if count)
    return f"{total - missing} of {total} cells have a published number ({fates})."


def preface(comparison: Comparison) -> list[str]:
    """What the published numbers are, how to read a cell, and the tolerance with its reason."""
    reference = comparison.reference
    allowed = ", ".join(f"{SHORT[metric]} ±{points:g}" for metric, points in reference.tolerance.items())
    return [
        f"Published: {reference.citation}. {reference.numbers.capitalize()}.",
        "A cell: ours (mean over seeds) / published (ours less published), in percent and points.",
        f"Tolerance in points: {allowed}. {reference.tolerance_reason}",
        "Within or outside: only where the settings are the published ones. Else the note names what differs (listed with"
        " the table) or cannot be compared (in the remarks).",
    ]


def numbers(line: Line, metric: str, decimals: int) -> str:
    """`91.86 / 91.32 (+0.54)`."""
    ours, published, difference = line.ours.mean(metric), line.published_value(metric), line.difference(metric)
    texts = [NO_NUMBER if value is None else f"{value:.{decimals}f}" for value in (ours, published)]
    return " / ".join(texts) + ("" if difference is None else f" ({difference:+.{decimals}f})")


def note(line: Line) -> str:
    """The reason of the verdict, and how many seeds it is from where some are missing."""
    some = 0 < line.ours.done < line.ours.planned
    seeds = f"{line.ours.done} of {line.ours.planned} seeds" if some else ""
    return "; ".join(text for text in (line.reason, seeds) if text)


def remarks(comparison: Comparison) -> list[str]:
    """What is to be known of the methods that have a published number here."""
    lines = []
    for name, option in comparison.options():
        if option.not_comparable:
            lines.append(f"{name}: not comparable: {option.not_comparable}")
        if option.note:
            lines.append(f"{name}: {option.note}")
    return lines


def differing(differences: dict[str, list[str]]) -> list[str]:
    """A line an owner."""
    return [f"{owner}: {', '.join(texts)}" for owner, texts in differences.items()]


def unpublished(lines: Iterable[Line]) -> str:
    """The lines without a published number, counted by reason; empty where there are none."""
    reasons = Counter(line.reason for line in lines if line.published is None)
    return "; ".join(f"{reason} ({count} {'cell' if count == 1 else 'cells'})" for reason, count in reasons.items())
