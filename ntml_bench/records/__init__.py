"""The records of a sweep: manifest, cells, labels, status, summary, kept and published numbers, and the words for them.

Read by table, report, status, tracking and housekeeping, which stand side by side on it. Nothing here trains, imports
a model or knows how a table is drawn.
"""
