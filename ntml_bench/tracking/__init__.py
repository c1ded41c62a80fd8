"""Weights & Biases: a run a cell, and a run with the table at the end of a sweep. The records never depend on it."""

from ntml_bench.tracking.tracker import Tracker, TrackingConfig

__all__ = ["Tracker", "TrackingConfig"]
