"""Low-parameter federated learning with soft labels (LP-FL, arXiv 2307.13896)."""
