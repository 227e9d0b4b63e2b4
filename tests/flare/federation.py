"""A job's controller and its sites in this process: messages are serialised, but nothing is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from flaretune.flare.progress import Progress
from flaretune.flare.rounds_controller import RoundsController
from flaretune.flare.site_script import HasHandlers
from nvflare.app_common.abstract.fl_model import FLModel

from flaretune.flare import rounds_controller
from tests.flare.sending import through_nvflare

# Makes of a site's answer what the server gets: (site, task, round, answer) → answer, or None for no answer.
Change = Callable[[str, str, int, FLModel], FLModel | None]


@dataclass
class Told:
    """What the server said and was told.

    Attributes:
        tasks: (task, round, message) in their order.
        answers: (site, task, round, message) as they reached it.
        panics: reasons for which it gave up.
        scalars: (tag, value, round) for TensorBoard.
    """

    tasks: list[tuple[str, int, FLModel]] = field(default_factory=list)
    answers: list[tuple[str, str, int, FLModel]] = field(default_factory=list)
    panics: list[str] = field(default_factory=list)
    scalars: list[tuple[str, float, int]] = field(default_factory=list)


def federate(
    controller: RoundsController,
    sites: Mapping[str, HasHandlers],
    folder: Path,
    monkeypatch,
    change: Change | None = None,
) -> Told:
    """Run a job to its end; its results are then in `folder`. Needs the fixture ``as_in_a_job``.

    Args:
        controller: the server's part.
        sites: what answers the tasks, by site.
        folder: for the results.
        monkeypatch: pytest's.
        change: see `Change`; None to leave answers as they are.
    """
    told = Told()

    def begin() -> None:
        controller._sites = controller._shares = list(sites)
        controller._progress = Progress(list(sites), controller.num_rounds, dict)
        controller._needed = min(controller.min_clients, len(sites))
        controller._meter = SimpleNamespace(take=lambda: {"down": (1000 * len(sites), 1), "up": (500 * len(sites), 1)})

    def broadcast_model(
        data: FLModel, task_name: str, targets: list[str], timeout: int, blocking: bool = True, callback=None
    ) -> list[FLModel]:
        told.tasks.append((task_name, data.current_round, data))
        results = []
        for site in reversed(targets):  # answers come in any order
            round_number = data.current_round
            names = list(data.meta["flaretune"]["sites"])
            answer = sites[site].handlers()[task_name](through_nvflare(data), site, names)
            if change is not None:
                answer = change(site, task_name, round_number, answer)
            if answer is not None:
                answer = through_nvflare(answer)
                answer.meta["client_name"] = site
                told.answers.append((site, task_name, round_number, answer))
                results.append(answer)
            data.current_round = round_number  # which `through_nvflare` sets
        if not blocking:
            for result in results:
                callback(result)
        return results

    def send_analytic_dxo(_component, dxo, _fl_ctx) -> None:
        values = dxo.data
        told.scalars.append((values["track_key"], values["track_value"], values["global_step"]))

    monkeypatch.setattr(rounds_controller, "send_analytic_dxo", send_analytic_dxo)
    controller.begin = begin
    controller.communicator = SimpleNamespace()
    controller.broadcast_model = broadcast_model
    controller.results_folder = lambda: folder
    controller.panic = told.panics.append
    controller.abort_signal = SimpleNamespace(triggered=False)
    controller.engine = SimpleNamespace(new_context=lambda: nullcontext(None))
    controller.run()
    return told
