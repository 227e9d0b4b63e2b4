"""What a round leaves: a record, a line for people, and numbers for TensorBoard."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from flaretune.methods.base import Method


@dataclass
class RoundRecord:
    """One round: what it took, and how good its result is.

    Attributes:
        round: 0 is where the job starts.
        seconds: of the whole round; ``overhead_seconds`` is what the slowest client did not spend on its tasks, None
            where clients do not tell.
        clients: whose replies counted.
        bytes_down, bytes_up: of the round's messages, as they travelled: mean over the clients that were sent them, and
            over those that replied; the evaluation that closes the job, and initializing to resume one, belong to no
            round.
        queries: candidates evaluated, or training steps, over all clients.
        example_forwards: examples sent through the model for them, over all clients.
        memory_mb, server_memory_mb: the most that a client's process, and the server's, has held so far, in MiB.
        accuracy: the task's metric on test data of what the round ended with; None without test data.
        validation_accuracy: the same on the validation data; None without any.
        standard_error, validation_standard_error: of the two (see `tasks.metrics`).
        validation_loss: mean cross entropy on it.
        client_accuracy: on the validation data, by client; ``client_standard_error`` is that of each.
        excluded: the clients whose replies did not count, and why not.
        clipped: the clients whose updates counted only as far as the aggregation rule lets them.
        releases: the most noised results that a client has sent until then; 0 where nothing is noised.
        epsilon: what they have cost (see `privacy.accountant`); None where nothing is noised.
        metrics: numbers of the method; ``client_metrics`` the same by client.
    """

    round: int
    seconds: float
    overhead_seconds: float | None
    clients: list[str]
    bytes_down: float
    bytes_up: float
    queries: int
    example_forwards: int
    memory_mb: float
    server_memory_mb: float = 0.0
    accuracy: float | None = None
    standard_error: float | None = None
    validation_accuracy: float | None = None
    validation_standard_error: float | None = None
    validation_loss: float | None = None
    client_accuracy: dict[str, float] = field(default_factory=dict)
    client_standard_error: dict[str, float] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    clipped: list[str] = field(default_factory=list)
    releases: int = 0
    epsilon: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    client_metrics: dict[str, dict[str, float]] = field(default_factory=dict)


def round_line(
    record: RoundRecord, method: Method, metric: str, *, last_round: int, n_clients: int, is_best: bool
) -> str:
    """The progress line of a round.

    Args:
        record: of the round.
        method: whose.
        metric: the metric's title.
        last_round: of the job.
        n_clients: clients of the job; a round before it was resumed may have had more.
        is_best: whether no earlier round was better on validation data.
    """
    n_clients = max(n_clients, len(record.clients) + len(record.excluded))
    parts = [
        f"round {record.round:>{len(str(last_round))}}/{last_round}",
        f"{metric} {as_text(record.accuracy)}  validation {as_text(record.validation_accuracy)}"
        f"{'*' if is_best else ' '}",
        *method.round_texts(record.metrics, private=record.epsilon is not None),
        *([] if record.epsilon is None else [f"ε {record.epsilon:.3g}"]),
        f"{_kilobytes(record.bytes_down)} down, {_kilobytes(record.bytes_up)} up",
        f"{record.seconds:6.1f} s",
        f"{len(record.clients)}/{n_clients} clients: {', '.join(record.clients)}",
        *([f"clipped: {', '.join(record.clipped)}"] if record.clipped else []),
    ]
    return "  ".join(parts)


def scalars(record: RoundRecord) -> dict[str, float]:
    """The numbers of a round by the names that TensorBoard shows; those that are missing are left out."""
    values = {k: v for k, v in asdict(record).items() if isinstance(v, int | float) and k not in ("round", "releases")}
    values |= record.metrics
    for name, by_client in {"validation_accuracy": record.client_accuracy, **record.client_metrics}.items():
        values |= {f"{name}/{client}": value for client, value in by_client.items()}
    return {name: float(value) for name, value in values.items()}


def as_text(value: float | None, standard_error: float | None = None) -> str:
    """A metric with three digits, and its standard error if that is known; a hyphen of the same width for none."""
    if value is None:
        return "  -  "
    return f"{value:.3f}" if standard_error is None else f"{value:.3f} ± {standard_error:.3f}"


def _kilobytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e3:,.{1 if n_bytes < 1e5 else 0}f} kB"
