"""What a cell leaves to look at: images under the trigger, and what a model makes of clean and triggered images."""

EXHIBIT_VERSION = 1
"""Counts changes that change galleries or exhibits: part of their keys."""
