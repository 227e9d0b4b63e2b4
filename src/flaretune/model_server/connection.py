"""HTTP messages to a model server, sent anew while it is being restarted."""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from flaretune.errors import UserError

TOKEN_VARIABLE = "FLARETUNE_MODEL_SERVER_TOKEN"  # the environment variable that holds it, on both sides
OLD_TOKEN_VARIABLE = "FLARETUNE_LM_TOKEN"  # its name in version 0.1, taken for one release
CONNECT_SECONDS = 5
PATIENCE = 60.0  # seconds, see `Connection`
PAUSE_SECONDS = 1.0
OVERLOADED = (500, 502, 503, 504)  # what may pass: a server that starts, or whose worker has ended
WAITED_LONG = 504  # of our server: in its queue, longer than it lets a query wait
NEEDS_LONGER = (
    "where the model server needs longer, for many test texts or clients perhaps, give it longer with "
    "--model_server_timeout, which `python -m flaretune serve` has too"
)


class Connection:
    """Sends messages to a model server, and waits for one that is being restarted.

    Args:
        url: such as http://127.0.0.1:8765.
        token: what it wants to see; "" for nothing.
        patience: seconds for which a message is sent anew, from the first time that there was nobody, or nobody able,
            to reply to it.
        answer_seconds: seconds that a reply may take.
        name: how messages call it.
        advice: what to do where nobody replies.

    Attributes:
        interruptions: how often a message had to be sent anew.
        answered: when the last reply came, by `time.monotonic`.
    """

    def __init__(self, url: str, token: str, patience: float, answer_seconds: float, *, name: str, advice: str):
        self.url, self.name = url.rstrip("/"), name
        self.interruptions, self.answered = 0, 0.0
        self._advice = advice
        self.patience = patience
        self._answer_seconds = answer_seconds
        self._session = requests.Session()
        self._session.auth = Token(token)
        self._proxies = proxies(url)

    def exchange(self, path: str, message: Mapping[str, Any] | None = None) -> requests.Response:
        """The response to a message, JSON values; to a GET without one.

        Raises:
            UserError: nobody replies.
        """
        failing_since = None
        while True:
            advice = self._advice
            try:
                response = self._session.request(
                    "GET" if message is None else "POST",
                    self.url + path,
                    json=message,
                    timeout=(CONNECT_SECONDS, self._answer_seconds),
                    proxies=self._proxies,
                )
                if response.status_code not in OVERLOADED:
                    self.answered = time.monotonic()
                    return response
                advice = NEEDS_LONGER if response.status_code == WAITED_LONG else advice
                said = what_it_says(body_of(response))
                reason = f"it answers with status {response.status_code}{f': {said}' if said else ''}"
            except requests.ReadTimeout as error:
                raise UserError(
                    f"{self.name}: no answer within {self._answer_seconds:g} seconds; {NEEDS_LONGER}"
                ) from error
            except requests.RequestException as error:
                reason = f"no connection ({type(error).__name__})"
            self.interruptions += 1
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since > self.patience:
                raise UserError(f"{self.name}: the model server does not answer: {reason}; {advice}")
            time.sleep(PAUSE_SECONDS)


class Token(requests.auth.AuthBase):
    """What proves who sends a message; without an object of this kind requests takes a password of ~/.netrc."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def proxies(url: str) -> dict[str, str]:
    """For requests: those of the environment, but none on the way to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return {"no_proxy": host} if here else {}


def body_of(response: requests.Response) -> dict[str, Any]:
    """A response's JSON object; empty where it is none."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def what_it_says(body: Mapping[str, Any]) -> str:
    """The sentence in a body that refuses something, of our server or of one with OpenAI's API; "" for none."""
    said = body.get("error") or body.get("detail") or ""
    if isinstance(said, Mapping):
        said = said.get("message") or ""
    return str(said)


def token_of_environment() -> str:
    """The token in this process's environment; "" for none."""
    token = os.environ.get(TOKEN_VARIABLE)
    if not token and (token := os.environ.get(OLD_TOKEN_VARIABLE)):
        sentence = f"the environment variable {OLD_TOKEN_VARIABLE} is now called {TOKEN_VARIABLE}; rename it"
        print(f"warning: {sentence}", file=sys.stderr, flush=True)
    return token or ""
