"""Sweeps in which settings vary within an option: what the metrics are at each value, as a table and as a plot."""
