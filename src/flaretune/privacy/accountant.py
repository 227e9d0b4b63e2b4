"""What noise is worth: (ε, δ) of a client's results, by Google's dp-accounting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flaretune.errors import UserError

DELTA = 1e-5  # δ: well below 1 / number of clients
UNIT = "all data of one client, replaced by other data"


def epsilon(dp_noise: float, dp_delta: float, releases: int) -> float:
    """ε of (ε, δ)-differential privacy after a number of results, each of which may depend on those before.

    Every result is a Gaussian mechanism whose noise has `dp_noise` times the standard deviation of its sensitivity;
    they are composed by Rényi differential privacy (Mironov, arXiv 1702.07476) and converted as in Canonne et al.,
    arXiv 2004.00010.

    Args:
        dp_noise: standard deviation of the noise, in sensitivities; above 0.
        dp_delta: δ.
        releases: how many results.

    Raises:
        UserError: the library is not installed.
    """
    if releases == 0:
        return 0.0
    try:
        from dp_accounting import GaussianDpEvent
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise UserError(
            f"--dp_noise {dp_noise:g} needs the package dp-accounting, by which ε is counted ({error}); install "
            "requirements.txt"
        ) from error
    return float(RdpAccountant().compose(GaussianDpEvent(dp_noise), releases).get_epsilon(dp_delta))


def account(options: Mapping[str, Any], releases: int) -> dict[str, Any] | None:
    """What a run's result says of privacy, plain JSON values; None where nothing is noised.

    Args:
        options: of the clients.
        releases: the most noised results that one client has given.

    Raises:
        UserError: see `epsilon`.
    """
    noise, clip = (options.get(name, 0.0) for name in ("dp_noise", "dp_clip"))
    if not noise:
        return None
    return {
        "epsilon": round(epsilon(noise, DELTA, releases), 4),
        "delta": DELTA,
        "unit": UNIT,
        "releases": releases,
        "noise_deviation": noise * 2 * clip,
        "dp_noise": noise,
        "dp_clip": clip,
        "public_test": bool(options.get("dp_public_test")),
    }


def sentence(privacy: Mapping[str, Any]) -> str:
    """The same for people."""
    return (
        f"ε = {privacy['epsilon']:.4g}, δ = {privacy['delta']:g} for all that a client sends ({UNIT}), "
        f"{privacy['releases']} noised results"
    )
