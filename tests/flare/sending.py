"""Messages as they are after NVFlare has sent them, and what stands in all of them.

Tests that use this need the fixture ``as_in_a_job`` of conftest.py.
"""

from __future__ import annotations

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs

from flaretune.tasks.evaluation import Counters, Evaluation

COUNTERS = Counters(queries=41, example_forwards=1312, seconds=3.25, memory_mb=812.5)
TASK = {"metric": "accuracy", "label_values": [0, 1]}
EVALUATION = Evaluation(np.array([20, 32]), 17.5, 32, np.array([71, 100]))


def through_nvflare(model: FLModel) -> FLModel:
    """What arrives when NVFlare has sent it."""
    model.current_round, model.total_rounds = 3, 10
    return FLModelUtils.from_shareable(fobs.loads(serialised(model)))


def serialised(model: FLModel) -> bytes:
    return fobs.dumps(FLModelUtils.to_shareable(model))
