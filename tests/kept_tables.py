"""Kept tables, as `ntml-table --keep` leaves them: records beside a manifest, no model and nothing to look at."""

from pathlib import Path
from typing import Any

from report_pages import table_sweep

from ntml_bench.records.keep import keep_sweep


def kept(folder: Path, work: Path, **how: Any) -> Path:
    """The sweep of `table_sweep(..., **how)` kept in `folder`, whose name it has; `work`: where it is made first."""
    keep_sweep(table_sweep(work, name=how.pop("name", folder.name), **how), folder)
    return folder
