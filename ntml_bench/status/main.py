"""`ntml-status`: how far the cells of a sweep are, what failed and why, what is being run and where."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.records.find import find_sweep
from ntml_bench.records.status import status_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when shown, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="ntml-status", description=__doc__)
    parser.add_argument("sweep", help="name of a sweep, or any folder with a manifest")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs were written (default: outputs)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        status = status_of(find_sweep(options.sweep, options.outputs))
    except UserError as error:
        print(f"ntml-status: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(asdict(status), indent=1))
        return 0
    # Imported here so that --json and --help are quick.
    from rich.console import Console

    from ntml_bench.status.terminal import print_status

    print_status(status, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
