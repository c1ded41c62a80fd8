"""The application: from a composed Hydra config to records, cell by cell."""
