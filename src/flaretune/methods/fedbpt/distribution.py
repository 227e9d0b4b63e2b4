"""The search distribution N(mean, sigma² C) that the server and the clients exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flaretune.errors import UserError
from flaretune.methods.message import read_array

CovarianceForm = Literal["full", "diagonal", "identity"]
COVARIANCE_FORMS: tuple[CovarianceForm, ...] = ("full", "diagonal", "identity")


@dataclass(frozen=True)
class Distribution:
    """A normal search distribution over d numbers.

    Attributes:
        mean: m, float64, shape (d,).
        sigma: the step size σ > 0 that a client starts its search with.
        covariance: C, float64, symmetric positive definite, shape (d, d); or its diagonal, shape (d,);
            or None for the identity.
    """

    mean: np.ndarray
    sigma: float
    covariance: np.ndarray | None = None

    @property
    def dim(self) -> int:
        """d, the intrinsic dimension."""
        return int(self.mean.shape[0])

    def covariance_matrix(self) -> np.ndarray:
        """C as a float64 matrix of shape (d, d), whatever form it is kept in."""
        if self.covariance is None:
            return np.eye(self.dim)
        return np.diag(self.covariance) if self.covariance.ndim == 1 else self.covariance


def pack(distribution: Distribution, form: CovarianceForm) -> dict[str, np.ndarray]:
    """Turn a distribution into the arrays that travel, all float32.

    Returns:
        ``mean`` (d,), ``sigma`` (1,), and ``covariance``: for ``full`` the lower triangle row by row,
        shape (d(d+1)/2,); for ``diagonal`` shape (d,); for ``identity`` it is left out.
    """
    arrays = {
        "mean": distribution.mean.astype(np.float32),
        "sigma": np.array([distribution.sigma], dtype=np.float32),
    }
    if form == "full":
        matrix = distribution.covariance_matrix()
        arrays["covariance"] = matrix[np.tril_indices(distribution.dim)].astype(np.float32)
    elif form == "diagonal":
        arrays["covariance"] = np.diag(distribution.covariance_matrix()).astype(np.float32)
    elif form != "identity":
        raise UserError(f"covariance form {form!r} is unknown: use one of {', '.join(COVARIANCE_FORMS)}")
    return arrays


def unpack(arrays: Mapping[str, np.ndarray]) -> Distribution:
    """Read a distribution back from the arrays of `pack`.

    Raises:
        ValueError: an array is missing, has another shape than the others imply, or holds a number that
            is not finite (or a step size or variance that is not positive).
    """
    mean = _read(arrays, "mean")
    sigma = _read(arrays, "sigma")
    if mean.ndim != 1 or mean.size == 0:
        raise ValueError(f"'mean' has shape {mean.shape}, expected (d,)")
    if sigma.shape != (1,) or sigma[0] <= 0:
        raise ValueError(f"'sigma' is {sigma.tolist()}, expected one positive number")
    d = mean.size
    if "covariance" not in arrays:
        return Distribution(mean, float(sigma[0]))
    values = _read(arrays, "covariance")
    if values.shape == (d,):
        variances = covariance = values
    elif values.shape == (d * (d + 1) // 2,):
        covariance = np.zeros((d, d))
        covariance[np.tril_indices(d)] = values
        covariance += np.tril(covariance, -1).T
        variances = np.diag(covariance)
    else:
        raise ValueError(
            f"'covariance' has shape {values.shape}, expected ({d},) for a diagonal or ({d * (d + 1) // 2},)"
        )
    if np.any(variances <= 0):
        raise ValueError(f"'covariance' holds a variance of {variances.min():g}, expected positive ones")
    return Distribution(mean, float(sigma[0]), covariance)


def _read(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return read_array(arrays, name, np.shape(arrays.get(name, ()))).astype(np.float64)
