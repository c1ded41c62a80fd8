"""From the records of a sweep to its table: read, summarise, render. Nothing here trains or imports a model."""
