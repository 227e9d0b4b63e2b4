"""What a method is: its options, what a client does with its texts, and what the server does with the results.

A method is a folder beside this file and a line in `registry`. It knows nothing of NVFlare: `engine` runs its rounds
over any transport.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from flaretune.aggregation.registry import find_rule
from flaretune.config.client import ClientConfig
from flaretune.config.server import ServerConfig
from flaretune.errors import UserError
from flaretune.host import no_garbage_collection
from flaretune.methods.exchanged import (
    Arrays,
    CalibrateResult,
    EvaluateResult,
    FitRequest,
    FitResult,
    InitializeResult,
    Numbers,
)

if TYPE_CHECKING:
    from typing import Protocol

    from flaretune.methods.classifier import Classifier
    from flaretune.privacy.release import Releases
    from flaretune.tasks.spec import TaskSpec

    class Artifact(Protocol):
        """A result without its model: of any method, its task and the model that it was found with."""

        model: dict[str, Any]

        @property
        def spec(self) -> TaskSpec: ...


# ---- the client's side ----


@dataclass(frozen=True)
class ClientContext:
    """Where a client is.

    Attributes:
        name: of the client.
        clients: names of all clients of the job, in the order of their shares of a common data set.
        state_folder: what its next process needs lies there; it need not exist.
        after_round: of the run that the job resumes; 0 for a new one.
        takes_over: whether another process of this client was initialized before, in this job.
    """

    name: str
    clients: Sequence[str]
    state_folder: Path
    after_round: int = 0
    takes_over: bool = False


class Client(ABC):
    """A client of a method: its data and its model, and what it does in each task of a job."""

    @abstractmethod
    def calibrate(self, prior: np.ndarray | None) -> None:
        """Divide a prior of the classes, float (C,), out of all predictions from now on; None for none."""

    @abstractmethod
    def initialize(self) -> InitializeResult:
        """Evaluate where the job starts, and report what the clients of a job must agree on."""

    @abstractmethod
    def fit(self, request: FitRequest) -> FitResult:
        """Work for a round.

        Raises:
            UserError, FloatingPointError: this client has nothing to send.
        """

    def log_probs(self, arrays: Arrays) -> CalibrateResult:
        """What the prior of what the server sent is made from, where `Strategy.recalibrates`; nothing is divided out.

        Raises:
            UserError: the method makes no prior but that of the start.
        """
        raise UserError("the server asks for a new prior, and this method makes none after the start")

    @abstractmethod
    def evaluate(self, arrays: Arrays) -> EvaluateResult:
        """Count correct predictions on validation and test data, for what the last round ended with."""

    @abstractmethod
    def noised(self, result: FitResult, request: FitRequest, releases: Releases) -> tuple[dict, dict, int]:
        """A fit result as it may leave a client whose data is to be protected: arrays, numbers, and queries.

        Everything that depends on the client's data passes through `Releases.release` or is left out; queries are told
        where the options alone say how many, else 0. The caller takes care of the other counters and the evaluation.
        """


# ---- the server's side ----


@dataclass(frozen=True, eq=False)
class Resumed:
    """What a strategy goes on from: an earlier part of the run.

    Attributes:
        arrays, state: what its `state` gave.
        artifact: file or folder of the best result so far; None if there was none.
    """

    arrays: Arrays
    state: Mapping[str, Any]
    artifact: Path | None


class Strategy(ABC):
    """The server's side of a method, over plain arrays.

    Args:
        config: the server's options.

    Attributes:
        settings: what the clients agree on; set by `start`.
        starts_as_initialized: whether the clients have evaluated what the job starts from when they were initialized.
        recalibrates: whether the prior is made anew for what a round starts from and the last one ends with.
        start_classifies: whether that tells classes apart at all; else there is no metric of it.
    """

    settings: Mapping[str, Any]
    starts_as_initialized: bool = True
    recalibrates: bool = False
    start_classifies: bool = True

    def __init__(self, config: ServerConfig):
        self.config = config
        self.rule = find_rule(config.aggregation)

    @property
    def num_rounds(self) -> int:
        """Rounds of the job."""
        return self.config.num_rounds

    @abstractmethod
    def start(self, results: Mapping[str, InitializeResult], resumed: Resumed | None, folder: Path) -> dict[str, str]:
        """Begin with what the clients report.

        Args:
            results: by client; all agree on their settings.
            resumed: an earlier part of the run; None for a new one.
            folder: of the job's results, for what the method records there.

        Returns:
            Why clients cannot take part, by client.

        Raises:
            UserError: the job cannot begin.
        """

    def objection(self, client: str, result: InitializeResult) -> str:
        """Why a client that is ready late cannot join; "" if it can. Settings have been compared already."""
        return ""

    def steps(self, round_number: int) -> Sequence[str]:
        """Names of the messages to and fro that a round takes, round 0 being what the job starts from: one, and none.

        Each is configured, checked and aggregated by itself.
        """
        return ("",) if round_number else ()

    @abstractmethod
    def configure(self, round_number: int, step: str) -> tuple[Arrays, Numbers]:
        """What the clients start a step from: `FitRequest.arrays` and `FitRequest.numbers`."""

    @abstractmethod
    def check(self, result: FitResult, step: str) -> FitResult:
        """A client's result, once it is known to be such as a client of this job can send.

        Raises:
            ValueError: something is missing, too much, of another shape, not finite, or out of its range.
        """

    @abstractmethod
    def aggregate(self, round_number: int, step: str, results: Mapping[str, FitResult]) -> list[str]:
        """End a step with the clients' results, in the order of the clients.

        Returns:
            The clients whose updates were clipped.
        """

    @abstractmethod
    def evaluated_arrays(self) -> Arrays:
        """What the clients need in order to evaluate what the last round ended with."""

    @abstractmethod
    def save(self, path: Path, result: Mapping[str, Any]) -> bool:
        """Write what the last round ended with as an artifact; False if there is nothing to write yet.

        Args:
            path: file or folder.
            result: what is known of it, plain JSON values.
        """

    @abstractmethod
    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays and plain JSON values that `start` resumes from."""

    def metrics(self, results: Mapping[str, FitResult], private: bool) -> tuple[Numbers, Mapping[str, Numbers]]:
        """What the record of a round says of the method, and, by name, of each client.

        Args:
            results: by client, of the step "" or, in a round without, of the first; empty for round 0.
            private: whether clients do not tell of their data.
        """
        return {}, {}

    def summary(self, metrics: Numbers) -> dict[str, Any]:
        """What summary.json says of the method besides its rounds, given `metrics` of the last one."""
        return {}


# ---- the method ----


class Parts(NamedTuple):
    """Where the parts of a method stand, each as "module:name"."""

    strategy: str
    client: str
    read: str
    open: str


class Method:
    """A method, as everything else sees it; what it needs is imported when it is used.

    Attributes:
        name: its folder's, template's and scripts' (``<name>_train.py``).
        title: as people write it.
        client_config, server_config: its options.
        format: what a result says of its own format.
        best: file or folder name of the best result.
        last: of the last round's result; "" if it is not kept.
        kind: what the result is called.
        shares_model: whether its clients can use a model server.
        kept_options: of the server, those that must be the same where a run is resumed.
        parts: what the methods of these names call.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    client_config: ClassVar[type[ClientConfig]]
    server_config: ClassVar[type[ServerConfig]]
    format: ClassVar[str]
    best: ClassVar[str]
    last: ClassVar[str] = ""
    kind: ClassVar[str]
    shares_model: ClassVar[bool] = False
    kept_options: ClassVar[tuple[str, ...]] = ("aggregation",)
    parts: ClassVar[Parts]

    def strategy(self, config: ServerConfig) -> Strategy:
        """The server's side."""
        return resolve_name(self.parts.strategy)(config)

    @no_garbage_collection()
    def client(self, config: ClientConfig, context: ClientContext) -> Client:
        """The client's side: loads data and model, or finds the server that has it.

        Raises:
            UserError: whatever the user can correct.
        """
        return resolve_name(self.parts.client)(config, context)

    def read(self, path: Path) -> Artifact:
        """A result without its model.

        Raises:
            UserError: it is damaged, or of another version.
        """
        return resolve_name(self.parts.read)(path)

    @no_garbage_collection()
    def open(self, artifact: Artifact, path: Path, model_name: str, dtype: str, device: str) -> Classifier:
        """A result that was read from `path` with its model, ready to predict.

        Raises:
            UserError: the model cannot be loaded, or is not the one it was found with.
        """
        return resolve_name(self.parts.open)(artifact, path, model_name, dtype, device)

    def on_this_machine(self, config: ServerConfig) -> ServerConfig:
        """The server's options with paths that are there made absolute, since a job runs in another folder."""
        return config

    def releases(self, num_rounds: int, after_round: int) -> int:
        """Noised results that a client sends in a job of so many rounds, which goes on after a round."""
        return num_rounds - after_round

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Check what a client says that its settings are, beyond what all methods have.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: something is missing, or cannot be.
        """

    def round_texts(self, metrics: Numbers, private: bool) -> list[str]:
        """What the progress line of a round says of `Strategy.metrics`."""
        return []

    def start_entries(self, options: Mapping[str, Any], accuracy: float | None) -> dict[str, Any]:
        """What summary.json says of where the job starts, given the clients' options and the test metric of round 0."""
        return {}

    def report_rows(self, summary: Mapping[str, Any]) -> dict[str, str]:
        """What the report at the end of a job says of the method: heading and text."""
        return {}

    @property
    def client_script(self) -> str:
        """File name of the clients' script."""
        return f"{self.name}_train.py"

    @property
    def job_script(self) -> str:
        """File name of the script that runs a job."""
        return f"{self.name}_job.py"
