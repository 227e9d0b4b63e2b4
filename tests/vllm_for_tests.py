"""A small server that answers as vLLM's completions API does, as far as flaretune asks it, from a tiny model."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MOST_WORDS = 128


class Refusal(Exception):
    """An HTTP status, and what the server says."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass
class StandIn:
    """What a server has loaded, and what it was asked.

    Attributes:
        folder: of the model.
        dtype: that it computes in.
        token: that it wants; "" for none.
        served: entries of /v1/models.
        max_logprobs: words that it tells of unasked; -1 for all.
        max_model_len: positions for a prompt and one more token.
        takes_embeds: as with --enable-prompt-embeds.
        failures: (status, body) that the next requests for completions get instead.
        change: what becomes of a reply.
        asked: messages for completions.
    """

    folder: Path
    dtype: torch.dtype = torch.float32
    token: str = ""
    served: list[dict[str, Any]] | None = None
    max_logprobs: int = 20
    max_model_len: int = 128
    takes_embeds: bool = True
    failures: list[tuple[int, dict]] = field(default_factory=list)
    change: Callable[[dict], dict] = lambda reply: reply
    asked: list[dict] = field(default_factory=list)
    url: str = ""

    def __post_init__(self):
        self.load(self.folder)
        self._lock = threading.Lock()

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Have another model, as a server that was started anew."""
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or self.dtype).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def models(self) -> dict:
        """What GET /v1/models gives."""
        entry = {"id": str(self.folder), "root": str(self.folder), "max_model_len": self.max_model_len}
        return {"object": "list", "data": [entry] if self.served is None else self.served}

    def complete(self, message: dict) -> dict:
        """What POST /v1/completions gives."""
        with self._lock:
            self.asked.append(message)
            if self.failures:
                status, body = self.failures.pop(0)
                raise Refusal(status, json.dumps(body))
            words = message.get("logprob_token_ids", range(self.model.config.vocab_size))
            if "logprob_token_ids" not in message and self.max_logprobs != -1:
                raise Refusal(400, f"Requested sample logprobs, which is greater than max allowed: {self.max_logprobs}")
            if len(words) > MOST_WORDS and "logprob_token_ids" in message:
                raise Refusal(400, f"Requested logprob_token_ids of length {len(words)}")
            if beyond := [word for word in words if word >= self.model.config.vocab_size]:
                raise Refusal(400, f"token_id(s) {beyond} in logprob_token_ids contain out-of-vocab token ids.")
            if message["model"] not in [entry["id"] for entry in self.models()["data"]]:
                raise Refusal(404, f"The model `{message['model']}` does not exist.")
            prompts = [*self._embeds(message), *self._ids(message)]  # both kinds, one behind the other, as vLLM does
            choices = [self._choice(i, prompt, words) for i, prompt in enumerate(prompts)]
            usage = {"prompt_tokens": sum(len(prompt) for prompt in prompts)}
            return self.change({"choices": choices, "usage": usage})

    def _ids(self, message: dict) -> list[torch.Tensor]:
        prompt = message.get("prompt", [])
        prompts = [prompt] if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)) else prompt
        embed = self.model.get_input_embeddings()
        ids = [self.tokenizer(p)["input_ids"] if isinstance(p, str) else p for p in prompts]
        return [embed(torch.tensor(i)) for i in ids]

    def _embeds(self, message: dict) -> list[torch.Tensor]:
        sent = message.get("prompt_embeds", [])
        if sent and not self.takes_embeds:
            raise Refusal(400, "You must set `--enable-prompt-embeds` to input `prompt_embeds`.")
        loaded = [torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True) for text in sent]
        for rows in loaded:
            if rows.shape[1] != self.model.config.hidden_size:
                raise Refusal(400, f"hidden size {rows.shape[1]} is not that of the model")
        return [rows.to(self.model.dtype) for rows in loaded]

    def _choice(self, index: int, prompt: torch.Tensor, words: list[int]) -> dict:
        if len(prompt) + 1 > self.max_model_len:
            raise Refusal(400, f"This model's maximum context length is {self.max_model_len} tokens")
        with torch.inference_mode():
            logits = self.model(inputs_embeds=prompt[None]).logits[0, -1]
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        sampled = int(log_probs.argmax())
        said = {f"token_id:{word}": float(log_probs[word]) for word in dict.fromkeys([sampled, *words])}
        return {"index": index, "text": "", "logprobs": {"top_logprobs": [said]}}


@contextmanager
def running(server: StandIn, port: int = 0) -> Iterator[str]:
    """Its address, for --model_server, while it runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._reply(lambda: server.models())

        def do_POST(self):
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._reply(lambda: server.complete(message))

        def _reply(self, make: Callable[[], dict]) -> None:
            try:
                if server.token and self.headers["Authorization"] != f"Bearer {server.token}":
                    raise Refusal(401, "Unauthorized")
                status, body = 200, make()
            except Refusal as refusal:
                said = str(refusal)
                status, body = refusal.status, {"error": {"message": said, "code": refusal.status}}
                if said.startswith("{"):
                    body = json.loads(said)
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"vllm+http://127.0.0.1:{http.server_port}"
    try:
        yield server.url
    finally:
        http.shutdown()
        http.server_close()
