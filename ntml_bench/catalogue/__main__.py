"""`python -m ntml_bench.catalogue`: write docs/methods.md (`make docs`)."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ntml_bench.catalogue.page import methods_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when written, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m ntml_bench.catalogue", description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("docs/methods.md"), help="the file (default: %(default)s)")
    target: Path = parser.parse_args(arguments).to
    if not target.parent.is_dir():
        print(f"ntml_bench.catalogue: there is no folder {target.parent}; --to FILE names another place", file=sys.stderr)
        return 2
    target.write_text(methods_page(), encoding="utf-8")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
