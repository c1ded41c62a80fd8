"""Pure statistics on arrays of numbers: nothing here knows what a cell, a defense or a table is.

scipy is imported where it is used: it takes the better part of a second, which neither `--help` nor a table of single
runs needs.
"""

ALPHA = 0.05
"""Of every test and interval, for the whole family of comparisons that it belongs to."""
FEWEST = 3
"""Runs that an interval or a test is made of. Of two, a Student interval is 9 deviations wide to each side: it says nothing."""
