"""Log-probabilities of words behind templates from a vLLM server, in place of `models.word_log_probs.WordLogProbs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flaretune.model_server.vllm import VllmServer
from flaretune.models.load import Pretrained
from flaretune.models.progress import Progress, in_silence
from flaretune.models.word_log_probs import template_encoders
from flaretune.tasks.spec import TaskSpec


class VllmWords:
    """Asks a vLLM server for log p(v | template(text)), by token ids, 128 words of the vocabulary in a request.

    Args:
        server: that is asked.
        outline: the model, without weights.
        spec: the task.
        templates: one or several, each with the task's text columns.
        dtype: what the server computes in, as far as that is known, else "".

    Attributes:
        example_forwards: texts asked about so far, once for each template, whatever the number of words.
    """

    gives_all = False  # but 128 in a pass

    def __init__(self, server: VllmServer, outline: Pretrained, spec: TaskSpec, templates: Sequence[str], dtype: str):
        self._server, self.dtype = server, dtype
        self._encoders = template_encoders(outline, spec, templates)
        self.example_forwards = 0

    def __call__(
        self, texts: Sequence[Mapping[str, str]], token_ids: np.ndarray, progress: Progress = in_silence
    ) -> np.ndarray:
        """As `WordLogProbs` gives them, float32, shape (N, T, V).

        Raises:
            UserError: see `VllmServer.log_probs`; or a text does not fit the server.
        """
        found = np.empty((len(texts), len(self._encoders), len(token_ids)), dtype=np.float32)
        for t, encoder in enumerate(progress(self._encoders, "template")):
            prompts = [encoder.encode(text).ids.tolist() for text in texts]
            self._server.check_length(max(map(len, prompts), default=0))
            found[:, t] = self._server.log_probs(prompts, token_ids)
        self.example_forwards += len(texts) * len(self._encoders)
        return found
