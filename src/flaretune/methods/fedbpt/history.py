"""What the server of a FedBPT job records besides its results: the clients' results, and the search distribution."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flaretune.files import atomic_write
from flaretune.methods.fedbpt.distribution import Distribution


def keep_results(
    folder: Path,
    round_number: int,
    clients: Sequence[str],
    means: np.ndarray,
    fitness: np.ndarray,
    square_sums: np.ndarray,
) -> None:
    """Record what the clients of a round sent: the server's CMA-ES is deterministic, and can be replayed."""
    (folder / "rounds").mkdir(parents=True, exist_ok=True)
    file = folder / "rounds" / f"round_{round_number:04d}.npz"
    _write_arrays(file, clients=np.array(clients), means=means, fitness=fitness, sigma_square_sums=square_sums)


def keep_distribution(folder: Path, distribution: Distribution) -> None:
    """Record the search distribution after the last update."""
    _write_arrays(
        folder / "distribution.npz",
        mean=distribution.mean,
        sigma=np.array(distribution.sigma),
        covariance=distribution.covariance_matrix(),
    )


def _write_arrays(file: Path, **arrays: np.ndarray) -> None:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    atomic_write(file, stream.getvalue())
