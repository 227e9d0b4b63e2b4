"""What a site of an LP-FL job tells the server, as plain values; `flare.lpfl_messages` makes messages of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flaretune.tasks.evaluation import Counters, Evaluation, SetupAnswer


@dataclass(frozen=True)
class LPFLSetupAnswer:
    """A site that is ready.

    Attributes:
        setup: as of any method.
        initial: the whole adapter that the job's seed gives, float32 by PEFT's names; empty where every parameter
            is trained, which starts from the pretrained ones.
    """

    setup: SetupAnswer
    initial: dict[str, np.ndarray]

    @property
    def counters(self) -> Counters:
        return self.setup.counters

    @property
    def evaluation(self) -> Evaluation:
        return self.setup.evaluation

    @property
    def dtype(self) -> str | None:
        return self.setup.dtype


@dataclass(frozen=True)
class TrainAnswer:
    """What a site's training of a round came to.

    Attributes:
        arrays: what was trained, float32, by PEFT's names (those of the model, where every parameter is trained).
        labelled, soft_labelled: texts of both kinds that it was trained on.
        soft_labels_right: of the soft-labelled texts, those whose most probable class is the hidden truth; None where
            there is no truth to compare with.
        loss: mean over the last epoch.
        counters: what it cost; `queries` are training steps.
        evaluation: of the received model, if it was asked for.
    """

    arrays: dict[str, np.ndarray]
    labelled: int
    soft_labelled: int
    soft_labels_right: int | None
    loss: float
    counters: Counters
    evaluation: Evaluation | None
