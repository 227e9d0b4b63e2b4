"""Clients of FedBPT without a model, honest and other ones, for tests of what one of them can do to a job.

A point's prompt is the better the nearer it is to 1 in all coordinates, at each client to something else near 1, as
their data would differ: all of them search in the same directions. Clients misbehave by their names, see `FAULTS`.
"""

from __future__ import annotations

import numpy as np

from flaretune.engine import codec
from flaretune.methods.base import Client, ClientContext
from flaretune.methods.client_data import Labelled
from flaretune.methods.fedbpt import FedBPT
from flaretune.methods.fedbpt.client import FedBPTClient
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.message import Message
from flaretune.models.prompt_settings import ModelFacts
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import load_task

LABELS = np.arange(20) % 2
SIGMA = 1.0


class Nearness:
    """Gives logits (0, 0) at a distance of √d from the client's best point, the label's the higher the nearer."""

    def __init__(self, name: str):
        self.example_forwards = 0
        self._seed = derive_seed(0, "best point", name)

    def label_logits(self, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
        self.example_forwards += len(points) * len(labels)
        best = 1 + 0.2 * np.random.default_rng(self._seed).standard_normal(points.shape[1])  # (d,)
        height = 3 * (1 - np.square(points - best).mean(axis=1))  # (λ,)
        return (height[:, None, None] * np.eye(2)[labels][None]).astype(np.float32)


def open_client(config: FedBPTConfig, context: ClientContext) -> FedBPTClient:
    """In place of `methods.fedbpt.open.open_client`."""
    data = Labelled(LABELS, LABELS)
    return FedBPTClient(
        config,
        context.name,
        load_task("sst2"),
        ModelFacts("light", kind="masked", model_type="light", hidden_size=8, dtype="float32"),
        Nearness(context.name),
        train=data,
        validation=data,
        test=data,
        perturbed=lambda _seed: LABELS,
        zero_shot=lambda: np.zeros((len(LABELS), 2)),
    )


class LightFedBPT(FedBPT):
    """FedBPT with these clients."""

    def client(self, config: FedBPTConfig, context: ClientContext) -> Client:
        return open_client(config, context)


def damage(reply: Message, round_number: int) -> None:
    """Another thing in every round that no honest client sends."""
    arrays, d = reply.arrays, reply.arrays["mean"].size
    if round_number == 1:
        arrays["mean"] = np.full(d, np.nan, dtype=np.float32)
    elif round_number == 2:
        arrays["fitness"] = np.array([-np.inf])
    elif round_number == 3:
        arrays["mean"] = np.zeros(d + 1, dtype=np.float32)
    elif round_number == 4:
        reply.fields["schema"] = 999
    elif round_number == 5:
        arrays["fitness"] = np.array([-1e9])


def lie(reply: Message, _round: int) -> None:
    """The best fitness that can be, a million σ away, with the step size that this takes."""
    reply.arrays["fitness"] = np.array([0.0])
    reply.arrays["mean"] = np.full(reply.arrays["mean"].size, -1e6 * SIGMA, dtype=np.float32)
    reply.arrays["sigma_square_sum"] = np.array([1e12])


FAULTS = {"damaged": damage, "liar": lie, "liar-2": lie}


def misbehave(client: str, task: str, round_number: int, reply: Message) -> Message:
    """What a client sends in place of its honest reply (`in_process.Change`)."""
    if task == codec.FIT and client in FAULTS:
        FAULTS[client](reply, round_number)
    return reply
