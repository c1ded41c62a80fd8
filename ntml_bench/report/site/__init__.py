"""The site: an index over the kept tables of some folders, and the report of each."""
