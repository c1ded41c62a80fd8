"""`make bench`: how fast this machine trains and evaluates beside an ordinary PyTorch loop, and what a sweep costs besides."""
