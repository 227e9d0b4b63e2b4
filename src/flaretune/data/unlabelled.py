"""Texts without labels, as a client of LP-FL has many of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """A pool of texts that nobody labelled, or whose labels an experiment hides.

    Attributes:
        texts: of each example, text column → text; length N.
        truth: the hidden class ids, int64, shape (N,), where the pool was cut from a labelled set; for reports
            only, never to train or to choose by. None for a real pool.
    """

    texts: tuple[dict[str, str], ...] = ()
    truth: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.truth is not None and self.truth.shape != (len(self.texts),):
            raise ValueError(f"{len(self.texts)} texts need hidden labels of shape ({len(self.texts)},)")

    def __len__(self) -> int:
        return len(self.texts)
