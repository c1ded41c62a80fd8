"""The report of a sweep: one page that opens from disk, and its figures for a paper."""
