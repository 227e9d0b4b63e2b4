"""Shares of a common data set for the clients of a job: alike (IID), or with skewed labels (Dirichlet).

Every client computes all shares from the job's seed and keeps its own, so nothing has to be sent.
"""

from __future__ import annotations

import numpy as np

from flaretune.errors import UserError


def iid_shares(labels: np.ndarray, n_clients: int, seed: int, *, allow_empty: bool = False) -> list[np.ndarray]:
    """Deal examples out so that every client gets the same mix of classes.

    Args:
        labels: class ids, shape (N,).

    Returns:
        For each client, ascending indices into ``labels``, int64. Each index is in exactly one share. Between
        any two shares the count of each class differs by at most 1, and so does the total.

    Raises:
        UserError: n_clients < 1, or fewer examples than clients while no share may be empty.
    """
    _check_sites(n_clients)
    labels = np.asarray(labels)
    if labels.size < n_clients and not allow_empty:
        raise UserError(
            f"{labels.size} examples are not enough for {n_clients} clients; use at most {labels.size} clients or a "
            "larger k"
        )
    shuffled = np.random.default_rng(seed).permutation(labels.size)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Dealing the classes out one behind the other, without a new start, keeps both kinds of counts even.
    return [np.sort(by_class[client::n_clients]) for client in range(n_clients)]


def dirichlet_proportions(n_classes: int, n_clients: int, alpha: float, seed: int) -> np.ndarray:
    """Draw which part of each class every client gets; a class's row is one draw from Dirichlet(alpha, …).

    Small ``alpha`` gives each class to few clients, large ``alpha`` spreads it evenly (Hsu et al., arXiv
    1909.06335, with the draw per class, as FedBPT's experiments have it).

    Returns:
        float64, shape (n_classes, n_clients); every row sums to 1.

    Raises:
        UserError: n_clients < 1, or alpha not a positive finite number.
    """
    _check_sites(n_clients)
    if not (np.isfinite(alpha) and alpha > 0):
        raise UserError(f"alpha = {alpha} is no Dirichlet concentration; choose a number above 0, such as 0.5")
    return np.random.default_rng(seed).dirichlet(np.full(n_clients, float(alpha)), size=n_classes)


def dirichlet_shares(
    labels: np.ndarray, proportions: np.ndarray, seed: int, *, alpha: float, allow_empty: bool = False
) -> list[np.ndarray]:
    """Split examples over clients by given proportions of each class.

    Training and development examples split with the same ``proportions`` have the same label skew at each
    client.

    Args:
        labels: class ids below n_classes, shape (N,).
        proportions: from ``dirichlet_proportions``, shape (n_classes, n_clients).
        alpha: what the proportions were drawn with; for the message only.

    Returns:
        For each client, ascending indices into ``labels``, int64. Each index is in exactly one share, and a
        client's count of a class is within 1 of its proportion times the size of the class.

    Raises:
        UserError: a share is empty and may not be.
    """
    labels, proportions = np.asarray(labels), np.asarray(proportions)
    n_classes, n_clients = proportions.shape
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must be class ids from 0 to {n_classes - 1}")
    rng = np.random.default_rng(seed)
    pieces: list[list[np.ndarray]] = [[] for _ in range(n_clients)]
    for class_id in range(n_classes):
        of_class = rng.permutation(np.flatnonzero(labels == class_id))
        ends = np.rint(np.cumsum(proportions[class_id]) * of_class.size).astype(np.int64)
        for client, piece in enumerate(np.split(of_class, ends[:-1])):
            pieces[client].append(piece)
    shares = [np.sort(np.concatenate(of_site)) for of_site in pieces]
    empty = [client + 1 for client, share in enumerate(shares) if share.size == 0]
    if empty and not allow_empty:
        raise UserError(
            f"share {empty[0]} of {n_clients} got none of the {labels.size} examples in the Dirichlet split "
            f"with alpha = {alpha}; use a larger alpha, a larger k, fewer clients or another seed"
        )
    return shares


def _check_sites(n_clients: int) -> None:
    if n_clients < 1:
        raise UserError(f"{n_clients} clients cannot share data; use at least 1")
