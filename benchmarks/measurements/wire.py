"""Bytes of FedBPT's messages by the form in which the covariance travels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markdown_table import markdown_table

from flaretune.errors import UserError
from flaretune.methods.fedbpt.distribution import COVARIANCE_FORMS
from measurements.machine import circumstances
from measurements.message_sizes import fedbpt_round_bytes

DIMS = (50, 100, 200, 500)


def wire(dims: Sequence[int] = DIMS, n_clients: int = 10) -> dict[str, Any]:
    """Bytes per client and round.

    Args:
        dims: intrinsic dimensions d.
        n_clients: of the job, whose names a task lists.

    Returns:
        What `measure.py wire --json` prints: under ``bytes`` by form and dimension (as text) ``down``, ``up``,
        ``total``.

    Raises:
        UserError: a dimension or the number of clients is below 1.
    """
    for name, values in (("intrinsic_dim", dims), ("n_clients", [n_clients])):
        for value in values:
            if value < 1:
                raise UserError(f"--{name} {value}: must be at least 1")
    found: dict[str, dict[str, dict[str, int]]] = {}
    for form in COVARIANCE_FORMS:
        found[form] = {}
        for dim in dims:
            down, up = fedbpt_round_bytes(dim, form, n_clients)
            found[form][str(dim)] = {"down": down, "up": up, "total": down + up}
    return {"bytes": found, "n_clients": n_clients, **circumstances()}


def wire_table(result: Mapping[str, Any]) -> str:
    """What `wire` gave as a table in Markdown."""
    dims = list(next(iter(result["bytes"].values())))
    heads = ["covariance", *(f"d = {dim}" for dim in dims)]
    rows = [
        [form, *(f"{by_dim[dim]['down']:,} + {by_dim[dim]['up']:,}" for dim in dims)]
        for form, by_dim in result["bytes"].items()
    ]
    note = (
        "Bytes down + up of a client's messages in a round, as NVFlare "
        f"{result['versions']['nvflare']} serialises them in a job of {result['n_clients']} clients; {result['date']}."
    )
    return markdown_table(heads, rows, "lr", note)
