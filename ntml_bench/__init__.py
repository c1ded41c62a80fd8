"""ntml-bench: a Hydra-configured reproducibility benchmark of backdoor attacks and defenses."""

__version__ = "0.1.0"
