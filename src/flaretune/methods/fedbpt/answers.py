"""What a site tells the server, as plain values; `flare.fedbpt_messages` makes messages of them."""

from __future__ import annotations

from dataclasses import dataclass

from flaretune.methods.fedbpt.local_search import LocalResult
from flaretune.tasks.evaluation import Counters, Evaluation


@dataclass(frozen=True)
class SearchAnswer:
    """Where a site's search of a round ended, over `n_train` examples.

    Attributes:
        evaluation: of the mean that the round started from, if it was asked for; its forward passes are not
            among the counters' (`seconds` are of both).
    """

    result: LocalResult
    n_train: int
    counters: Counters
    evaluation: Evaluation | None
