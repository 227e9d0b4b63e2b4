"""A client of FedBPT in a process of its own, without NVFlare's server: orders on stdin, results on stdout, as JSON.

It is run with PYTHONPATH set to the version of flaretune that is measured.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil


def main() -> None:
    """Initialize, then a round for every line."""
    # what a job's client imports, whose memory is measured
    import nvflare.client  # noqa: F401

    import flaretune.flare.client_script
    import flaretune.flare.transport  # noqa: F401
    from flaretune.methods.base import ClientContext
    from flaretune.methods.exchanged import FitRequest
    from flaretune.methods.fedbpt.config import FedBPTConfig
    from flaretune.methods.fedbpt.objective import loss
    from flaretune.methods.fedbpt.open import open_client

    order = json.loads(sys.stdin.readline())
    config = FedBPTConfig(**order["options"])
    client = open_client(config, ClientContext(order["name"], order["clients"], Path(order["folder"])))
    client.initialize()
    d = config.intrinsic_dim
    start = {"mean": np.zeros(d, np.float32), "sigma": np.ones(1, np.float32), "covariance": np.ones(d, np.float32)}
    tell({})
    for line in sys.stdin:
        number = json.loads(line)["round"]
        first: list[np.ndarray] = []

        def label_logits(points: np.ndarray, texts: Any, ask=client._black_box.label_logits, first=first) -> np.ndarray:
            logits = ask(points, texts)
            if texts is client._train.texts and not first:
                first.append(loss("ce", logits, client._train.labels))
            return logits

        box = client._black_box
        box.label_logits = label_logits
        used = time.process_time()
        result = client.fit(FitRequest(number, start, {}, evaluate=True))
        del box.label_logits
        tell(
            {
                "cpu_seconds": time.process_time() - used,
                "example_forwards": result.counters.example_forwards,
                "mean": result.arrays["mean"].tolist(),
                "first_losses": first[0].tolist(),
                "mb": psutil.Process().memory_info().rss / 2**20,
            }
        )


def tell(what: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
