"""The script of light clients (see light_client.py) as real processes, some of which are slow, late or die.

The test names the server's results in $FLARETUNE_TEST_RESULTS: ``late`` gets ready in the second round, in which
``slow`` does not reply in time, and ``killed`` does not survive the third. Rounds take $FLARETUNE_TEST_SECONDS.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from light_client import misbehave, open_client  # which lies beside it in the job

from flaretune.engine import codec, worker
from flaretune.flare.client_script import main
from flaretune.methods.fedbpt import open as open_module
from flaretune.methods.message import Message

SLOW_HAS_BEGUN = "slow_has_begun"  # a file


def wait_for(file: str) -> None:
    """Until a file is there in the server's results."""
    while not (Path(os.environ["FLARETUNE_TEST_RESULTS"]) / file).exists():
        time.sleep(0.1)


class LightWorker(worker.Worker):
    """Replies to tasks, as the module says."""

    _initializations = 0

    def __call__(self, task: str, message: Message) -> Message:
        name, round_number = self._name, message.fields["round"]
        if (name, task) == ("late", codec.INITIALIZE):
            self._initializations += 1
            if self._initializations == 1:  # which no server can read, and is there at once
                return Message()
            wait_for(SLOW_HAS_BEGUN)
        if (name, task, round_number) == ("slow", codec.FIT, 2):
            (Path(os.environ["FLARETUNE_TEST_RESULTS"]) / SLOW_HAS_BEGUN).touch()
            wait_for("rounds/round_0002.npz")
        if (name, task, round_number) == ("killed", codec.FIT, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        if task == codec.FIT:
            time.sleep(float(os.environ.get("FLARETUNE_TEST_SECONDS", "0")))
        return misbehave(name, task, round_number, super().__call__(task, message))


if __name__ == "__main__":
    open_module.open_client = open_client
    worker.Worker = LightWorker
    main("fedbpt")
