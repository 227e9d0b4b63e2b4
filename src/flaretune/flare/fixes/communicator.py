"""Two corrections of how NVFlare 2.9's server hands out tasks (`WFCommServer`).

It looks every 0.2 seconds whether a task has finished, and whoever waits for the task as often again. The controller's
argument for it is written to an attribute that nothing reads.

A site whose request for a task has timed out asks again, and is sent the same task again. If another task is open that
is not for this site, as while a site that is late gets ready, the first is put on its own list a second time. When it
ends, the thread that ends tasks dies of removing it twice, and the job hangs, since no later task ends. With several
late sites, the answer of one can also count for two, and the task ends without the others.
"""

from __future__ import annotations

from typing import Any

CHECK_PERIOD = 0.02  # seconds


def correct(communicator: Any) -> None:
    """Let the communicator of a job's controller look for finished tasks often, and list each that it sends once.

    Args:
        communicator: a `WFCommServer`; any other is left as it is.
    """
    if hasattr(communicator, "_task_check_period"):
        communicator._task_check_period = CHECK_PERIOD
    hand_out = getattr(communicator, "_do_process_task_request", None)
    if hand_out is None:
        return

    def hand_out_and_list_once(*asked: Any) -> Any:
        """Is called by NVFlare while no other thread may change the lists."""
        handed_out = hand_out(*asked)
        for task in list(communicator._tasks):
            task.client_tasks[:] = dict.fromkeys(task.client_tasks)
        return handed_out

    communicator._do_process_task_request = hand_out_and_list_once
