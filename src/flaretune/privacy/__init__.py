"""Differential privacy of what a client sends: clipping, Gaussian noise, and what a run has cost.

The guarantee is for a client: all of its texts and labels may be replaced by others, and what it sends in a run is
about as probable as before (local (ε, δ)-differential privacy), whatever the server and the other clients do; see
docs/operations/privacy.md.
"""
