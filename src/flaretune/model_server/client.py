"""The model server as a client sees it: a black box like that of `models.prompted`, without torch and a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.model_server.connection import (
    CONNECT_SECONDS,
    PATIENCE,
    TOKEN_VARIABLE,
    Connection,
    Token,
    body_of,
    proxies,
    what_it_says,
)
from flaretune.model_server.protocol import (
    HEALTH_PATH,
    QUERY_PATH,
    Named,
    Query,
    black_box_content,
    named,
    query_message,
    read_logits,
    texts_content,
)
from flaretune.models.prompt_settings import ModelFacts, PromptSettings
from flaretune.tasks.spec import TaskSpec


class QueryConnection(Connection):
    """Sends queries to a model server of flaretune; see `Connection`."""

    def __init__(self, url: str, token: str, patience: float, answer_seconds: float):
        advice = (
            "start it with `python -m flaretune serve`, or let every client load the model with --model_server local"
        )
        super().__init__(url, token, patience, answer_seconds, name=f"--model_server {url.rstrip('/')}", advice=advice)

    def send(self, query: Query) -> dict[str, Any]:
        """The reply to a query, whose contents are sent only if the server does not know them.

        Raises:
            UserError: nobody replies, the token is refused, or the server says what is wrong with the query.
        """
        response = self.exchange(QUERY_PATH, query_message(query, in_full=False))
        if response.status_code == 404 and "unknown" in body_of(response):
            response = self.exchange(QUERY_PATH, query_message(query, in_full=True))
        body = body_of(response)
        if response.status_code == 200 and body:
            return body
        raise UserError(f"{self.name}: {_complaint(response, body)}")


@dataclass(frozen=True)
class RemoteTexts:
    """Texts registered with the model server: their handle, and their number."""

    texts: Named

    def __len__(self) -> int:
        return len(self.texts.content["rows"])


class RemoteBlackBox:
    """`models.black_box.BlackBox` at the other end of a connection.

    Args:
        n_classes: C.
    """

    def __init__(self, connection: QueryConnection, black_box: Named, n_classes: int):
        self._connection = connection
        self._black_box = black_box
        self._n_classes = n_classes
        self.example_forwards = 0

    def label_logits(self, points: np.ndarray, texts: RemoteTexts) -> np.ndarray:
        """Logits of the label words, float32 (λ, N, C), for search points, float (λ, d); see `BlackBox`.

        Raises:
            UserError: see `QueryConnection.send`; or a reply that fits no query.
        """
        reply = self._connection.send(Query(self._black_box, texts.texts, np.asarray(points, dtype=np.float64)))
        self.example_forwards += len(points) * len(texts)
        try:
            return read_logits(reply.get("logits"), (len(points), len(texts), self._n_classes))
        except (ValueError, TypeError) as error:
            raise UserError(f"--model_server {self._connection.url}: its answer cannot be used: {error}") from error


class RemotePromptedModel:
    """`models.prompted.PromptedModel` at the other end of a connection."""

    def __init__(self, connection: QueryConnection, black_box: Named, spec: TaskSpec):
        self._spec = spec
        self.black_box = RemoteBlackBox(connection, black_box, spec.n_classes)
        model = connection.send(Query(black_box, None, None)).get("model")
        try:
            self.facts = ModelFacts(**model)
        except TypeError as error:
            raise UserError(f"--model_server {connection.url}: no model server of flaretune ({error})") from error

    def register(self, examples: Examples) -> RemoteTexts:
        """Give texts a handle; they travel with the first query about them."""
        return self._named(examples.texts, prompt=True)

    def register_perturbed(self, examples: Examples, rate: float, seed: int) -> RemoteTexts:
        """The same for the examples with tokens replaced at random, which the server does."""
        return self._named(examples.texts, prompt=True, perturbed=(rate, seed))

    def zero_shot_logits(self, examples: Examples) -> np.ndarray:
        """Label-word logits of the model and the template alone, float32, shape (N, C)."""
        return self.black_box.label_logits(np.zeros((1, 1)), self._named(examples.texts, prompt=False))[0]

    def _named(
        self, texts: Sequence[dict[str, str]], *, prompt: bool, perturbed: tuple[float, int] | None = None
    ) -> RemoteTexts:
        return RemoteTexts(named(texts_content(texts, self._spec.text_columns, prompt=prompt, perturbed=perturbed)))


def open_remote_model(
    url: str,
    token: str,
    spec: TaskSpec,
    model_name: str,
    dtype: str,
    settings: PromptSettings,
    *,
    quantize: str = "none",
    patience: float = PATIENCE,
    answer_seconds: float = 600,
) -> RemotePromptedModel:
    """A black box for a task, of the model that a model server has loaded.

    Args:
        url, token, patience, answer_seconds: see `Connection`.
        dtype: what it must compute in; auto: whatever it does.
        quantize: how its weights must be quantised.

    Raises:
        UserError: there is no token; see `QueryConnection.send`.
    """
    if not token:
        raise UserError(
            f"--model_server {url} needs the model server's token in the environment variable {TOKEN_VARIABLE}"
        )
    connection = QueryConnection(url, token, patience, answer_seconds)
    content = black_box_content(model_name, dtype, spec, settings, quantize)
    return RemotePromptedModel(connection, named(content), spec)


def is_ready(url: str, token: str, verify: bool = True) -> bool:
    """Whether a model server replies there and its workers have loaded the model."""
    try:
        asked = {"auth": Token(token), "proxies": proxies(url), "timeout": CONNECT_SECONDS, "verify": verify}
        return requests.get(url + HEALTH_PATH, **asked).ok
    except requests.RequestException:
        return False


def _complaint(response: requests.Response, body: dict[str, Any]) -> str:
    if response.status_code == 401:
        return f"it refuses the token in the environment variable {TOKEN_VARIABLE}; give both sides the same"
    if response.status_code == 413:
        return "the message is larger than it reads; start it with a larger --max_mb"
    return what_it_says(body) or f"it answers with status {response.status_code}, as no model server of flaretune does"
