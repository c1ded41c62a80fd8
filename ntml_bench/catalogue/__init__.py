"""What there is: every attack, defense, data set and net on a page, from their classes and YAML files."""
