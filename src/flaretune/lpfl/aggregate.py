"""What the server of an LP-FL job needs to know of adapters: their names, and which of them travel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def travelling(arrays: Mapping[str, np.ndarray], freeze_a: bool) -> dict[str, np.ndarray]:
    """The arrays that are trained and sent.

    Averaging A and B each is not averaging their product B·A, which is what the model adds to its weights. With A
    frozen and the same everywhere it is exact: mean(B_k)·A = mean(B_k·A) (FFA-LoRA, arXiv 2403.12313).
    """
    return {name: values for name, values in arrays.items() if not (freeze_a and ".lora_A." in name)}
