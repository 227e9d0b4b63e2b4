"""Shares of a common data set for the sites of a job: alike (IID), or with skewed labels (Dirichlet).

Every site computes all shares from the job's seed and keeps its own, so nothing has to be sent.
"""

from __future__ import annotations

import numpy as np

from flaretune.errors import UserError


def iid_shares(labels: np.ndarray, n_sites: int, seed: int, *, allow_empty: bool = False) -> list[np.ndarray]:
    """Deal examples out so that every site gets the same mix of classes.

    Args:
        labels: class ids, shape (N,).
        n_sites: number of shares.
        seed: equal seeds give equal shares.
        allow_empty: whether a share may be empty, as a development share may.

    Returns:
        For each site, ascending indices into ``labels``, int64. Each index is in exactly one share. Between
        any two shares the count of each class differs by at most 1, and so does the total.

    Raises:
        UserError: n_sites < 1, or fewer examples than sites while no share may be empty.
    """
    _check_sites(n_sites)
    labels = np.asarray(labels)
    if labels.size < n_sites and not allow_empty:
        raise UserError(
            f"{labels.size} examples are not enough for {n_sites} sites; use at most {labels.size} sites or a larger k"
        )
    shuffled = np.random.default_rng(seed).permutation(labels.size)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Dealing the classes out one behind the other, without a new start, keeps both kinds of counts even.
    return [np.sort(by_class[site::n_sites]) for site in range(n_sites)]


def dirichlet_proportions(n_classes: int, n_sites: int, alpha: float, seed: int) -> np.ndarray:
    """Draw which part of each class every site gets; a class's row is one draw from Dirichlet(alpha, …).

    Small ``alpha`` gives each class to few sites, large ``alpha`` spreads it evenly (Hsu et al., arXiv
    1909.06335, with the draw per class, as FedBPT's experiments have it).

    Returns:
        float64, shape (n_classes, n_sites); every row sums to 1.

    Raises:
        UserError: n_sites < 1, or alpha not a positive finite number.
    """
    _check_sites(n_sites)
    if not (np.isfinite(alpha) and alpha > 0):
        raise UserError(f"alpha = {alpha} is no Dirichlet concentration; choose a number above 0, such as 0.5")
    return np.random.default_rng(seed).dirichlet(np.full(n_sites, float(alpha)), size=n_classes)


def dirichlet_shares(
    labels: np.ndarray, proportions: np.ndarray, seed: int, *, alpha: float, allow_empty: bool = False
) -> list[np.ndarray]:
    """Split examples over sites by given proportions of each class.

    Training and development examples split with the same ``proportions`` have the same label skew at each
    site.

    Args:
        labels: class ids below n_classes, shape (N,).
        proportions: from ``dirichlet_proportions``, shape (n_classes, n_sites).
        seed: equal seeds give equal shares.
        alpha: what the proportions were drawn with; for the message only.
        allow_empty: whether a share may be empty, as a development share may.

    Returns:
        For each site, ascending indices into ``labels``, int64. Each index is in exactly one share, and a
        site's count of a class is within 1 of its proportion times the size of the class.

    Raises:
        UserError: a share is empty and may not be.
    """
    labels, proportions = np.asarray(labels), np.asarray(proportions)
    n_classes, n_sites = proportions.shape
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must be class ids from 0 to {n_classes - 1}")
    rng = np.random.default_rng(seed)
    pieces: list[list[np.ndarray]] = [[] for _ in range(n_sites)]
    for class_id in range(n_classes):
        of_class = rng.permutation(np.flatnonzero(labels == class_id))
        ends = np.rint(np.cumsum(proportions[class_id]) * of_class.size).astype(np.int64)
        for site, piece in enumerate(np.split(of_class, ends[:-1])):
            pieces[site].append(piece)
    shares = [np.sort(np.concatenate(of_site)) for of_site in pieces]
    empty = [site + 1 for site, share in enumerate(shares) if share.size == 0]
    if empty and not allow_empty:
        raise UserError(
            f"share {empty[0]} of {n_sites} got none of the {labels.size} examples in the Dirichlet split "
            f"with alpha = {alpha}; use a larger alpha, a larger k, fewer sites or another seed"
        )
    return shares


def _check_sites(n_sites: int) -> None:
    if n_sites < 1:
        raise UserError(f"{n_sites} sites cannot share data; use at least 1")
