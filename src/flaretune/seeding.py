"""One way to get a seed: from the job's seed and what the numbers are for."""

from __future__ import annotations

import hashlib


def derive_seed(job_seed: int, *labels: str | int) -> int:
    """Derive an independent seed from the job's seed and labels such as a purpose, a round or a client's name.

    Equal arguments give equal seeds on every machine and Python version; different labels give
    unrelated ones, so that, say, the projection does not change when the data split is drawn first.

    Args:
        job_seed: the seed of the job, as the user gave it.
        labels: what the random numbers are for, most general first, e.g. ``"search", round, client``.

    Returns:
        An integer in [1, 2**32), a valid seed for numpy, torch and pycma (where 0 means "from the clock").
    """
    text = "\x1f".join([str(int(job_seed)), *(f"{type(label).__name__}:{label}" for label in labels)])
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return max(number, 1)
