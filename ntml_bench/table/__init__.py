"""The table of a sweep in all its formats. Nothing here trains or imports a model."""
