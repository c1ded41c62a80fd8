"""Imports that last: no collection of garbage within them, collections as usual behind them, and a quiet end."""

import gc
import subprocess
import sys

from ntml_bench.app.imports import lasting_imports

PROCESS = """
import gc
from ntml_bench.app.imports import lasting_imports
with lasting_imports():
    print(gc.isenabled())
    import decimal
print(gc.isenabled(), gc.get_freeze_count() > 0)
import atexit; atexit._run_exitfuncs()
print(gc.get_freeze_count())
"""


def test_nothing_is_collected_within_and_what_was_made_is_left_out_behind() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["False", "True", "True", "0"], "")


def test_where_pytorch_is_there_nothing_changes() -> None:
    frozen = gc.get_freeze_count()
    with lasting_imports():
        assert gc.isenabled()
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, frozen)


def test_a_cell_with_a_net_of_ours_needs_no_timm() -> None:
    heavy = "{'timm', 'torchvision', 'wandb', 'matplotlib', 'sklearn'}"
    program = f"import sys, ntml_bench.app.session, ntml_bench.app.planning; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "set()"
