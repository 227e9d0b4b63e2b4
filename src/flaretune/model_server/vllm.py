"""A stock vLLM server as it is asked here: log-probabilities of chosen words behind prompts, over its completions API.

vLLM normalises them over the whole vocabulary and leaves out temperature and biases. Prompts are token ids, texts, or
embeddings (vLLM's ``--enable-prompt-embeds``); those of a request are of one kind, since vLLM would reply to each kind
in turn, without a word, where a request brings two.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from flaretune.config.served_model import VLLM
from flaretune.errors import UserError, shown
from flaretune.model_server.connection import TOKEN_VARIABLE, Connection, body_of, what_it_says

log = logging.getLogger("flaretune.client")

MODELS_PATH, COMPLETIONS_PATH = "/v1/models", "/v1/completions"
MOST_WORDS = 128  # of a request, which is vLLM's limit
WHOLE_FROM = 8192  # words, where the whole vocabulary is less work than pieces of it
MOST_PROMPTS, MOST_BYTES = 128, 16 * 2**20  # of a request, which is ours
LEAST = -9000.0  # vLLM has -9999 in place of anything below
QUIET_SECONDS = 5.0  # after which a server may be another one; a vLLM server does not start so fast

Prompt = list[int] | str | bytes  # token ids, a text, or an array of embeddings as `torch.save` writes it


class VllmServer:
    """A model that a vLLM server has loaded.

    Args:
        url: as in --model_server, with or without ``vllm+``.
        token: its API key; "" for none.
        patience, answer_seconds: see `Connection`; and `be_patient`.
        by_name: whether the served model must be called as the client calls it, where only one is served.

    Attributes:
        name: how messages call it.
        max_length: positions that it has for a prompt and the word behind it; None where it does not say.
        recheck: called before it is asked after a pause, and before an answer counts that came after an interruption.

    Raises:
        UserError: it does not reply, is no such server, or serves other models.
    """

    def __init__(
        self, url: str, token: str, model_name: str, patience: float, answer_seconds: float, *, by_name: bool = False
    ):
        self.name = f"--model_server {VLLM}{url.removeprefix(VLLM).rstrip('/')}"
        advice = (
            "start vLLM with `python -m vllm.entrypoints.openai.api_server`, or let every client load the model with "
            "--model_server local"
        )
        url = url.removeprefix(VLLM)
        self._connection = Connection(url, token, patience, answer_seconds, name=self.name, advice=advice)
        self._answer_seconds = answer_seconds
        self._interruptions = 0
        self._gives_all = True  # until it refuses to
        self.recheck: Callable[[], None] = lambda: None
        self.model, self.max_length = self._choose_model(model_name, by_name)
        self._interruptions = self._connection.interruptions

    def log_probs(self, prompts: Iterable[Prompt], token_ids: np.ndarray) -> np.ndarray:
        """Log-probabilities of words as the next token.

        Args:
            prompts: N prompts of one kind.
            token_ids: int, shape (V,).

        Returns:
            float32, shape (N, V).

        Raises:
            UserError: the server does not reply, refuses, or its answer cannot be used.
        """
        wanted = np.unique(np.asarray(token_ids, dtype=np.int64))
        found = [np.zeros((0, len(wanted)), dtype=np.float32)]
        for some in _in_requests(prompts, 1 if len(wanted) >= WHOLE_FROM else MOST_PROMPTS):
            if time.monotonic() - self._connection.answered > QUIET_SECONDS:
                self.recheck()
            found.append(self._ask_all(some, wanted))
            while self._connection.interruptions != self._interruptions:  # also while it is asked once more
                self._interruptions = self._connection.interruptions
                self.recheck()
        return np.concatenate(found)[:, np.searchsorted(wanted, token_ids)]

    def _ask_all(self, prompts: Sequence[Prompt], token_ids: np.ndarray) -> np.ndarray:
        """Log-probabilities of any number of words, float32 (N, V), in one request or in several."""
        if len(token_ids) >= WHOLE_FROM and self._gives_all:
            try:
                return self.ask(prompts, token_ids, whole=True)[0]
            except UserError as error:
                self._gives_all = False
                log.warning(
                    "%s; so %d words are asked for in %d requests for each of some texts: vLLM that is started with "
                    "--max-logprobs -1 gives them in one",
                    *(error, len(token_ids), -(-len(token_ids) // MOST_WORDS)),
                )
        pieces = [token_ids[start : start + MOST_WORDS] for start in range(0, len(token_ids), MOST_WORDS)]
        return np.concatenate([self.ask(prompts, piece)[0] for piece in pieces], axis=1)

    def ask(self, prompts: Sequence[Prompt], token_ids: np.ndarray, whole: bool = False) -> tuple[np.ndarray, int]:
        """One request: log-probabilities, float32 (N, V), of words that differ; and how many tokens N prompts have.

        Raises:
            UserError: see `log_probs`.
        """
        entry = "prompt_embeds" if isinstance(prompts[0], bytes) else "prompt"
        sent = [base64.b64encode(p).decode("ascii") if isinstance(p, bytes) else p for p in prompts]
        message = {
            "model": self.model,
            entry: sent,
            "max_tokens": 1,
            "logprobs": -1 if whole else len(token_ids),
            **({} if whole else {"logprob_token_ids": [int(token) for token in token_ids]}),
            "return_tokens_as_token_ids": True,
            # what a model's generation_config.json may set, for servers that tell of the words they draw from
            "temperature": 0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
        return self._read(self._exchange(COMPLETIONS_PATH, message), len(prompts), token_ids)

    def be_patient(self) -> None:
        """Wait for it as long as for a reply from now on: a vLLM server that is started anew loads its model first."""
        self._connection.patience = self._answer_seconds

    def check_length(self, n_tokens: int) -> None:
        """Whether a prompt of so many tokens fits.

        Raises:
            UserError: it does not.
        """
        if self.max_length is not None and n_tokens + 1 > self.max_length:
            raise UserError(
                f"{self.name}: a text takes {n_tokens} tokens with its template and prompt, and one more is for the "
                f"word behind it, but the server takes {self.max_length}; start it with --max-model-len "
                f"{n_tokens + 1} or more, if the model has as many"
            )

    def _choose_model(self, model_name: str, by_name: bool) -> tuple[str, int | None]:
        served = self._exchange(MODELS_PATH).get("data")
        if not isinstance(served, list) or not all(
            isinstance(m, dict) and isinstance(m.get("id"), str) for m in served
        ):
            raise UserError(f"{self.name}: it does not say which models it serves, as a vLLM server does")
        named = [m for m in served if model_name in (m["id"], m.get("root"))]
        chosen = named or ([] if by_name else served)
        if len(chosen) != 1 and not named:
            names = ", ".join(shown(m["id"]) for m in served) or "no model"
            raise UserError(
                f"{self.name}: it serves {names}, and --model_name is {model_name}; start it with --served-model-name "
                f"{model_name}"
            )
        most = chosen[0].get("max_model_len")
        return chosen[0]["id"], most if type(most) is int else None

    def _exchange(self, path: str, message: dict[str, Any] | None = None) -> dict[str, Any]:
        response = self._connection.exchange(path, message)
        status, body = response.status_code, body_of(response)
        if status == 200:
            return body
        said = what_it_says(body) or f"it answers with status {status}, as no vLLM server does"
        if status in (401, 403):
            said = (
                f"it refuses the token in the environment variable {TOKEN_VARIABLE}; give it the --api-key that vLLM "
                "was started with"
            )
        elif status == 413:
            said = "the request is larger than what stands before the server lets through"
        raise UserError(f"{self.name}: {said}")

    def _read(self, body: dict[str, Any], n_prompts: int, token_ids: np.ndarray) -> tuple[np.ndarray, int]:
        try:
            choices = sorted(body["choices"], key=lambda choice: choice["index"])
            if [choice["index"] for choice in choices] != list(range(n_prompts)):
                raise ValueError(f"it holds {len(choices)} choices for {n_prompts} prompts")
            said = [choice["logprobs"]["top_logprobs"][0] for choice in choices]
            absent = [int(t) for t in token_ids if any(f"token_id:{t}" not in words for words in said)]
            if absent:
                raise ValueError(
                    f"it lacks the log-probability of token {absent[0]}, as of servers that do not know "
                    "logprob_token_ids; vLLM 0.32 does"
                )
            values = np.array([[words[f"token_id:{t}"] for t in token_ids] for words in said], dtype=np.float64)
            tokens = int(body["usage"]["prompt_tokens"])
        except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"it lacks an entry ({shown(str(error))})"
            raise UserError(f"{self.name}: its answer cannot be used: {reason}") from error
        if not (np.all(np.isfinite(values)) and values.min() > LEAST):
            raise UserError(f"{self.name}: its answer cannot be used: it holds log-probabilities that are no numbers")
        if values.max() > 1e-3 or np.exp(values).sum(axis=1).max() > 1.01:
            raise UserError(
                f"{self.name}: its answer cannot be used: probabilities of words add up to more than 1; start vLLM "
                "with --logprobs-mode raw_logprobs, its default"
            )
        return values.astype(np.float32), tokens


def _in_requests(prompts: Iterable[Prompt], most: int) -> Iterator[list[Prompt]]:
    """As many at a time as one request takes."""
    some: list[Prompt] = []
    size = 0
    for prompt in prompts:
        n_bytes = len(prompt) if isinstance(prompt, bytes) else 0
        if some and (len(some) == most or size + n_bytes > MOST_BYTES):
            yield some
            some, size = [], 0
        some.append(prompt)
        size += n_bytes
    if some:
        yield some
