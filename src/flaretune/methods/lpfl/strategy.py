"""The server's side of LP-FL: FedAvg (arXiv 1602.05629) of what the clients have trained, or something sturdier."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.aggregation.base import federated_average
from flaretune.aggregation.pieces import coordinate_median
from flaretune.errors import UserError, shown
from flaretune.methods.artifact_parts import saved_prior, told_parts
from flaretune.methods.base import Resumed, Strategy
from flaretune.methods.exchanged import Arrays, FitResult, InitializeResult, Numbers
from flaretune.methods.lpfl.artifact import AdapterArtifact, load_adapter, save_adapter
from flaretune.methods.lpfl.lower_rank import IN_A, check_factors, check_product, product_average, shapes_at
from flaretune.methods.lpfl.subspace import THETA, WIRE, Subspace, shapes_of_b
from flaretune.methods.message import check_few_shots, read_arrays, read_natural, read_number

log = logging.getLogger("flaretune.server")

NUMBERS = {"labelled", "soft_labelled", "soft_labels_correct", "loss"}


class LPFLStrategy(Strategy):
    """Averages the clients' arrays; see `Strategy`.

    Averaging A and B each is not averaging their product B·A, which is what the model adds to its weights; with A
    frozen and the same everywhere it is: mean(B_k)·A = mean(B_k·A) (FFA-LoRA, arXiv 2403.12313). Where a client has a
    rank of its own, products are averaged, see `lower_rank`; where a few numbers stand for B, they are, see `subspace`.
    """

    def start(self, results: Mapping[str, InitializeResult], resumed: Resumed | None, folder: Path) -> dict[str, str]:
        """Take the whole adapter that the job starts from: that of an earlier run, or the one that the clients drew."""
        self.settings = next(iter(results.values())).settings
        self._shapes = read_shapes(self.settings["parameters"])  # of what is trained
        self._ranks: set[int] = set()  # that clients have of their own
        initial = [r.arrays for r in results.values()]
        # equal seeds give equal ones: then the median is the first client's too
        self._whole = dict(initial[0]) if self.config.aggregation == "mean" else coordinate_median(initial)
        self._subspace = _subspace(self.settings)
        self.recalibrates = self.settings["options"]["calibrate"] == "batch"
        frozen = self._frozen()
        if self.config.init_adapter:
            self._whole = _adapter_to_go_on_from(self.config.init_adapter, self.settings, self._whole)
            self.starts_as_initialized = False
        elif frozen and resumed and resumed.artifact:
            arrays = load_adapter(resumed.artifact).arrays
            self._whole |= {name: arrays[name] for name in frozen}
        elif frozen:
            self._whole |= _most_common([{name: arrays[name] for name in frozen} for arrays in initial])
        objections = {client: self.objection(client, result) for client, result in results.items()}
        objections = {client: sentence for client, sentence in objections.items() if sentence}
        if 2 * len(objections) >= len(results):
            raise UserError(next(iter(objections.values())))
        self._arrays: Arrays = {name: values for name, values in self._whole.items() if name in self._shapes}
        if self._subspace is not None:
            self._arrays = {THETA: self._theta_to_start_from(self._subspace)}
        if resumed:
            self._arrays = read_arrays(resumed.arrays, self._shapes)
        return objections

    def objection(self, client: str, result: InitializeResult) -> str:
        """Why a client does not go with the job, as a sentence: a frozen part, or its rank; "" if it does."""
        for name in self._frozen():
            if not np.array_equal(self._whole[name], result.arrays[name]):
                by = f"--subspace_dim {self.settings['options']['subspace_dim']}"
                start = "the job's start"
                if self.config.init_adapter:
                    start = f"--init_adapter {self.config.init_adapter}"
                return (
                    f"{by}: {name} at {client} is another than that of {start}; every client needs the same seed, rank "
                    "and version of PEFT and torch"
                )
        if rank := result.settings.get("rank"):
            if self.rule.name not in ("mean", "clipped"):
                return (
                    f"--aggregation {self.rule.name}: {client} has --client_rank {rank}, and adapters of several ranks "
                    "cannot be compared number by number; use clipped or mean, or the same rank everywhere"
                )
            self._ranks.add(rank)
        return ""

    def _frozen(self) -> list[str]:
        """Names of arrays that stay as they are: in a subspace A's, as B is made from what is trained."""
        made = {} if self._subspace is None else self._subspace.shapes
        return sorted(set(self._whole) - set(self._shapes) - set(made))

    def _theta_to_start_from(self, subspace: Subspace) -> np.ndarray:
        """Zeros, or that of the adapter to go on from."""
        if not self.config.init_adapter:
            return np.zeros(subspace.dim, WIRE)
        try:
            return subspace.theta(self._whole).astype(WIRE)
        except ValueError as error:
            raise UserError(f"--init_adapter: {self.config.init_adapter} does not fit this job: {error}") from error

    def configure(self, round_number: int, step: str) -> tuple[Arrays, Numbers]:
        return self._arrays, {}

    def check(self, result: FitResult, step: str) -> FitResult:
        numbers = result.numbers
        if extra := sorted(set(numbers) - NUMBERS):
            raise ValueError(f"{extra[0]!r} is none of the numbers that are sent")
        labelled, soft_labelled = read_natural(numbers, "labelled"), read_natural(numbers, "soft_labelled")
        read_number(numbers, "loss", at_least=0)
        if labelled + soft_labelled == 0:
            raise ValueError("it trained on no examples")
        if "soft_labels_correct" in numbers and (n := read_natural(numbers, "soft_labels_correct")) > soft_labelled:
            raise ValueError(f"'soft_labels_correct' is {n} of {soft_labelled} soft-labelled texts, which cannot be")
        check_few_shots(self.settings, labelled=labelled)
        arrays = read_arrays(result.arrays, self._shapes_of(result.arrays))
        arrays = {name: _as_float32(name, values) for name, values in arrays.items()}
        if self._ranks:
            check_product(arrays)
        return FitResult(arrays, dict(numbers), result.counters, result.evaluation)

    def _shapes_of(self, arrays: Arrays) -> Mapping[str, tuple[int, ...]]:
        """Shapes of an adapter of the rank that these arrays have.

        Raises:
            ValueError: no client has told that it has this rank.
        """
        if not self._ranks:
            return self._shapes
        name = next(name for name in self._shapes if IN_A in name)
        expected = {*self._ranks, self._shapes[name][0]}
        rank = len(np.atleast_1d(arrays[name])) if name in arrays else max(expected)
        if rank not in expected:
            ranks = ", ".join(map(str, sorted(expected)))
            raise ValueError(f"its adapter has the rank {rank}, and the clients of this job have {ranks}")
        return shapes_at(self._shapes, rank)

    def aggregate(self, round_number: int, step: str, results: Mapping[str, FitResult]) -> list[str]:
        updates, texts = [r.arrays for r in results.values()], [_n_texts(r) for r in results.values()]
        average = product_average if self._ranks else federated_average
        self._arrays, is_limited = average(self.rule, self._arrays, updates, texts)
        if self._subspace is not None:  # what is saved is what is sent and evaluated
            self._arrays = {THETA: self._arrays[THETA].astype(WIRE)}
        return [client for client, limited in zip(results, is_limited, strict=True) if limited]

    def evaluated_arrays(self) -> Arrays:
        return self._arrays

    def save(self, path: Path, result: Mapping[str, Any]) -> bool:
        trained = self._arrays if self._subspace is None else self._subspace.adapter(self._arrays[THETA])
        whole = {**self._whole, **trained}
        if whole:  # nothing where every parameter is trained and none has been yet
            parts = told_parts(self.settings)
            save_adapter(AdapterArtifact(whole, self.settings["adapter"] or None, **parts, result=dict(result)), path)
        return bool(whole)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        return self._arrays, {}

    def metrics(self, results: Mapping[str, FitResult], private: bool) -> tuple[Numbers, Mapping[str, Numbers]]:
        if not results or private:  # then clients do not say how many texts they have, and with what loss
            return {}, {}
        told = [r.numbers for r in results.values()]
        known = [n for n in told if "soft_labels_correct" in n]
        n_known = sum(n["soft_labelled"] for n in known)
        agreement = sum(n["soft_labels_correct"] for n in known) / n_known if n_known else None
        losses = {client: float(r.numbers["loss"]) for client, r in results.items()}
        numbers = {
            "train_loss": float(np.average(list(losses.values()), weights=[_n_texts(r) for r in results.values()])),
            "labelled": sum(n["labelled"] for n in told),
            "soft_labelled": sum(n["soft_labelled"] for n in told),
            **({} if agreement is None else {"soft_label_agreement": agreement}),
        }
        return numbers, {"train_loss": losses}

    def summary(self, metrics: Numbers) -> dict[str, Any]:
        return {
            "labelled": metrics.get("labelled", 0),
            "soft_labelled": metrics.get("soft_labelled", 0),
            "soft_label_agreement": metrics.get("soft_label_agreement"),
            "trained_parameters": sum(int(np.prod(shape)) for shape in self._shapes.values()),
        }


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check what a client says of the arrays that are trained; see `Method.check_settings`."""
    shapes = read_shapes(settings["parameters"])
    if not isinstance(settings["adapter"], dict):
        raise TypeError("'adapter' is no table")
    if dim := settings["options"]["subspace_dim"]:
        shapes_of_b(read_shapes(settings["initial"]), dim)
        if shapes != {THETA: (dim,)}:
            raise ValueError(f"with --subspace_dim {dim}, {THETA!r} alone is trained, with as many numbers")
    if "rank" in settings:
        rank, most = settings["rank"], settings["options"]["lora_rank"]
        if type(rank) is not int or not 0 < rank < most:
            raise ValueError(f"'rank' is {shown(rank)}, expected a whole number of at least 1 below the job's {most}")
        check_factors(shapes, most)
    if settings["options"]["tuning"] == "lora" and not dim and shapes != read_shapes(settings["initial"]):
        raise ValueError("without --subspace_dim the whole adapter is trained, and 'parameters' are not 'initial'")


def read_shapes(told: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Shapes of arrays by name, as a message has them."""
    for name, shape in told.items():
        if not isinstance(name, str) or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"array {shown(name)} has the shape {shown(shape)}")
    return {name: tuple(shape) for name, shape in told.items()}


def _subspace(settings: Mapping[str, Any]) -> Subspace | None:
    """What B is made from, where it is not what is trained."""
    options = settings["options"]
    if not options["subspace_dim"]:
        return None
    return Subspace(read_shapes(settings["initial"]), options["subspace_dim"], options["seed"])


def _n_texts(result: FitResult) -> int:
    return result.numbers["labelled"] + result.numbers["soft_labelled"]


def _as_float32(name: str, values: np.ndarray) -> np.ndarray:
    """To be averaged; raises ValueError where the average may be beyond what its type holds in the next message."""
    wire = np.dtype(WIRE if name == THETA else np.float32)
    if values.dtype != wire and np.abs(values.astype(np.float64)).max(initial=0.0) > np.finfo(wire).max:
        raise ValueError(f"array {name!r} holds values that are not finite in {wire}")
    return values.astype(np.float32, copy=False)


# ---- what a job starts from ----


def _most_common(drawn: Sequence[Arrays]) -> Arrays:
    """Of arrays that M clients have drawn from the job's seed, those that most have, to the bit."""
    bits = [tuple(arrays[name].tobytes() for name in sorted(arrays)) for arrays in drawn]
    return drawn[bits.index(Counter(bits).most_common(1)[0][0])]


def _adapter_to_go_on_from(folder: str, settings: Mapping[str, Any], initial: Arrays) -> dict[str, np.ndarray]:
    """The arrays of an earlier run's adapter.

    Args:
        folder: the adapter's.
        settings: what the clients of this job agree on.
        initial: the new adapter that they would start from; empty where every parameter is trained.

    Raises:
        UserError: it is not there, or does not fit.
    """
    try:
        earlier = load_adapter(folder)
        arrays = _fitting_arrays(earlier, folder, settings, initial)
        is_calibrated = saved_prior(earlier.result, earlier.spec.n_classes) is not None
    except UserError as error:
        raise UserError(f"--init_adapter: {error}") from error
    if is_calibrated and settings["options"]["calibrate"] == "none":
        log.warning(
            "--init_adapter %s had --calibrate batch, and this job divides nothing out of its predictions", folder
        )
    return arrays


def _fitting_arrays(
    earlier: AdapterArtifact, folder: str, settings: Mapping[str, Any], initial: Arrays
) -> dict[str, np.ndarray]:
    """Its arrays; raises UserError if it is of another model, shape or scale."""
    ours = {name: values.shape for name, values in initial.items()}
    ours = ours or {name: tuple(shape) for name, shape in settings["parameters"].items()}
    theirs = {name: values.shape for name, values in earlier.arrays.items()}
    if ours != theirs:
        name = next(name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name))
        raise UserError(
            f"{folder} does not fit this job: {name} has the shape {theirs.get(name)} there and {ours.get(name)} at "
            "the clients; start from an adapter of the same model, rank and target modules"
        )
    told, before = (config.get("lora_alpha") for config in (settings["adapter"], earlier.adapter_config or {}))
    if told != before:
        raise UserError(
            f"{folder} does not fit this job: it was trained with --lora_alpha {before} and the clients were told "
            f"{told}, by which it would be scaled otherwise; give them the same"
        )
    return earlier.arrays
