"""What the server of every method is told."""

from __future__ import annotations

from typing import Literal

from flaretune.config.groups import SERVER
from flaretune.config.options import Options, option


class ServerConfig(Options):
    """What a job's server is told."""

    num_rounds: int = option(10, "number of rounds", group=SERVER, main=True, at_least=1)
    min_clients: int = option(
        1, "clients whose results a round needs; with fewer the job fails", group=SERVER, at_least=1
    )
    round_timeout: int = option(
        3600, "seconds after which a round goes on without the clients that have not replied", group=SERVER, at_least=1
    )
    setup_timeout: int = option(
        3600, "the same for initialization, in which clients load model and data", group=SERVER, at_least=1
    )

    aggregation: Literal["mean", "clipped", "median"] = option(
        "clipped",
        "how the clients' results are aggregated: mean, as published; clipped, as published after clients beyond twice "
        "the lower median are clipped to it; median, coordinate by coordinate, whatever a client claims",
        group=SERVER,
    )
    checkpoint: str = option(
        "",
        "folder on the server that the run is kept in after every round; a job that is told the same folder goes on "
        "from there",
        group=SERVER,
        main=True,
    )
