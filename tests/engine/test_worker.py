"""What a client's process holds between two tasks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from flaretune.engine import codec
from flaretune.engine.worker import Worker
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.distribution import Distribution, pack
from tests.flare.light_client import LightFedBPT

COMMON = codec.task(["a"], "0f", 0, None)
MIB = 2**20


def resident() -> float:
    """Memory that this process holds, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


class LeavesPieces(LightFedBPT):
    """Its client's rounds leave 300 MB free, in pieces between what is still in use."""

    def client(self, config, context):
        client = super().client(config, context)
        fit = client.fit

        def fit_and_leave_pieces(request):
            self.in_use = [b"x" * 100_000 for _ in range(3000)][::100]
            self.left = resident()
            return fit(request)

        client.fit = fit_and_leave_pieces
        return client


def test_memory_that_a_round_has_freed_is_given_back(tmp_path):
    method = LeavesPieces()
    worker = Worker(method, FedBPTConfig(intrinsic_dim=5, local_iter=1), "a", tmp_path / "states", tmp_path / "runs")
    worker(codec.INITIALIZE, codec.initialize_message(COMMON, 1))
    before = resident()
    point = pack(Distribution(np.zeros(5), 1.0), "identity")
    worker(codec.FIT, codec.fit_message(COMMON, FitRequest(1, point, {}, evaluate=False)))
    assert method.left - before > 200
    assert resident() - before < 50
