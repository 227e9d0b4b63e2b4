"""Adapters of clients whose ranks differ: averaged through their products, and cut down to what a client can train.

The server averages B·A, takes it back to the job's rank by a singular value decomposition (FlexLoRA, arXiv 2402.11505),
and never forms the whole matrix; a client of a lower rank cuts what it is sent down in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flaretune.aggregation.base import FACTOR, AggregationRule, Arrays
from flaretune.errors import UserError

if TYPE_CHECKING:  # the server needs neither
    import torch

    from flaretune.models.lora import LoraParameters

IN_A, IN_B = ".lora_A.", ".lora_B."
ROW = 3**-0.5  # length of the rows that PEFT draws for A, so that B is trained as fast as from the start
MOST = ROW * float(np.finfo(np.float32).max)  # of a product


def truncated(b: np.ndarray, a: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The factors of a rank whose product is the closest to b·a, float32; rows of A are orthogonal and of length `ROW`.

    Args:
        b: shape (O, R).
        a: shape (R, I).
        rank: of the result; where b·a has fewer, columns of B are zero, and rows of A are still some of those that
            rows of `a` span, so that they can be trained.
    """
    q_b, core, q_a = _core(b, a)
    u, singular, v = np.linalg.svd(core)  # (S, S), (min(S, T),), (T, T)
    found_b, found_a = np.zeros((len(b), rank), np.float32), np.zeros((rank, a.shape[1]), np.float32)
    n = min(rank, len(singular))
    found_b[:, :n] = q_b @ (u[:, :n] * singular[:n]) / ROW
    found_a[: len(v)] = ROW * v[:rank] @ q_a.T
    return found_b, found_a


def _core(b: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """b·a as Q_b·core·Q_aᵀ, with orthogonal columns of length 1 in Q_b (O, S) and Q_a (I, T), float64."""
    q_b, r_b = np.linalg.qr(b.astype(np.float64))  # (O, S), (S, R)
    q_a, r_a = np.linalg.qr(a.astype(np.float64).T)  # (I, T), (T, R)
    return q_b, r_b @ r_a.T, q_a


def product_average(
    rule: AggregationRule, start: Arrays, updates: Sequence[Arrays], sizes: Sequence[float]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """As `federated_average`, of products: the closest adapter of the start's rank.

    What is averaged is what clients have added to what they had: what one of a lower rank cannot hold stays as it was.

    Args:
        rule: one that holds clients to each other by how far they are from the start, here in Euclidean distance of
            products, and not number by number.
        start: the adapter that the round began with, by PEFT's names; it gives the rank.
        updates: what M clients have made of it, of any ranks.
        sizes: the numbers of texts that they were made with, shape (M,).

    Returns:
        The arrays, float32; and which clients were far above the others, bool, shape (M,).
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    squares = np.zeros(len(updates))
    for names in pairs(start):
        for k, update in enumerate(updates):
            squares[k] += np.sum(_core(*_change(start, update, names))[1] ** 2)
    # one number stands for an update that is as far from the start: distances are all that the rule goes by
    lengths = [{"length": np.array([length])} for length in np.sqrt(squares)]
    factors = rule.limit_updates({"length": np.zeros(1)}, lengths).factors
    size_factors = rule.limit_sizes(sizes, down_to=FACTOR)
    weights = sizes * size_factors
    shares, average = factors * weights / weights.sum(), {}
    for names in pairs(start):
        name_b, name_a = names
        changes = [_change(start, update, names) for update in updates]
        b = np.hstack([start[name_b], *(share * b for share, (b, _) in zip(shares, changes, strict=True))])
        a = np.vstack([start[name_a], *(a for _, a in changes)])
        average[name_b], average[name_a] = truncated(b, a, len(start[name_a]))
    return average, (factors < 1) | (size_factors < 1)


def _change(start: Arrays, update: Arrays, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Factors of what a client has added to a layer's product: to what it had of the start, at the rank of its own."""
    (b, a), (own_b, own_a) = ([arrays[name] for name in names] for arrays in (start, update))
    if len(own_a) < len(a):
        b, a = truncated(b, a, len(own_a))
    return np.hstack([own_b, -b]), np.vstack([own_a, a])


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names of each layer's B and A."""
    return [(name.replace(IN_A, IN_B), name) for name in names if IN_A in name]


def shapes_at(shapes: Mapping[str, tuple[int, ...]], rank: int) -> dict[str, tuple[int, ...]]:
    """Shapes of an adapter's arrays if it had another rank."""
    return {name: (rank, shape[1]) if IN_A in name else (shape[0], rank) for name, shape in shapes.items()}


def check_factors(shapes: Mapping[str, tuple[int, ...]], rank: int) -> None:
    """Check that arrays are an adapter's: A and B of a rank, for each layer.

    Raises:
        ValueError: names the first that is not.
    """
    for name, shape in shapes.items():
        other = name.replace(IN_A, IN_B) if IN_A in name else name.replace(IN_B, IN_A)
        if len(shape) != 2 or shape[0 if IN_A in name else 1] != rank or other == name or other not in shapes:
            raise ValueError(f"{name} has the shape {tuple(shape)}, which is no factor of a product of rank {rank}")


def check_product(arrays: Arrays) -> None:
    """Check that what `truncated` makes of an adapter can be written in float32.

    Raises:
        ValueError: numbers are so large that it may not be.
    """
    for name_b, name_a in pairs(arrays):
        if np.prod([np.linalg.norm(arrays[n].astype(np.float64)) for n in (name_b, name_a)]) > MOST:
            raise ValueError(f"array {name_b!r} and its A have a product that is not finite in float32")


class LowerRank:
    """`LoraParameters` of an adapter of a lower rank than the job's: loads the job's, cut down, and gives its own.

    Args:
        parameters: the adapter that is trained here.
        initial: the job's, new.
        rank: of the former.
        job_rank: of the latter.

    Raises:
        UserError: it has arrays that are no factors, as of experts which share one parameter.
    """

    def __init__(self, parameters: LoraParameters, initial: Arrays, rank: int, job_rank: int):
        self._parameters, self._rank = parameters, rank
        self._shapes = {name: values.shape for name, values in initial.items()}
        try:
            check_factors(self._shapes, job_rank)
        except ValueError as error:
            raise UserError(
                f"--client_rank {rank}: {error}; name other layers by --target_modules, or leave it out"
            ) from error

    def trained(self) -> list[torch.nn.Parameter]:
        return self._parameters.trained()

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        optimiser.step()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of what is loaded."""
        return self._shapes

    def arrays(self) -> dict[str, np.ndarray]:
        return self._parameters.arrays()

    def load(self, arrays: Arrays) -> None:
        found = {}
        for name_b, name_a in pairs(arrays):
            found[name_b], found[name_a] = truncated(arrays[name_b], arrays[name_a], self._rank)
        self._parameters.load(found)
