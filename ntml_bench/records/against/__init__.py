"""A sweep held against a kept one of the same settings: does it reproduce?

`runs` reads both sides, `pairing` says what can be compared, `check` computes the verdict, `view` has the words.
"""
