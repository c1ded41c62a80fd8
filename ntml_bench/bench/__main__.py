"""`python -m ntml_bench.bench`."""

import sys

from ntml_bench.bench.main import main

# Guarded: the workers of a data loader may import this module.
if __name__ == "__main__":
    sys.exit(main())
