"""The one exception for a user's mistake, and the words that help to mend it."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(Exception):
    """Something that was asked for cannot be done; the message says what, why and what is allowed.

    Entry points print the message without a traceback and exit with a code other than 0.
    """


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """An error for a name that does not exist: what was given, the nearest valid name, all valid names."""
    names = sorted(allowed)
    return UserError(f"unknown {kind} '{given}'.{did_you_mean(given, names)} Available: {', '.join(names) or '(none)'}.")


def did_you_mean(given: str, names: Sequence[str], cutoff: float = 0.6) -> str:
    """` Did you mean 'NAME'?`, or nothing where no name is as near as `cutoff`, 0 to 1 (the same)."""
    close = get_close_matches(given, names, n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """` (did you mean 'NAME'?)`, or nothing where no name is near."""
    close = get_close_matches(given, sorted(allowed), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
