"""Published numbers beside ours: a leaderboard's results and settings (data), the comparison, its renderings.

A reference NAME is two files of this folder: `NAME.csv` has its results, `NAME.json` says what they are, with which
settings they were made, and what cannot be compared.
"""
