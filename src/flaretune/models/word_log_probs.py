"""Log-probabilities of words of the whole vocabulary at a template's answer position: one pass over texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from flaretune.data.encode import Encoded, Encoder
from flaretune.errors import UserError
from flaretune.models.label_head import is_linear
from flaretune.models.last_layer import last_feed_forward, only_at
from flaretune.models.load import Pretrained
from flaretune.models.padding import pad
from flaretune.models.progress import Progress, in_silence
from flaretune.models.self_check_plain import check_words
from flaretune.tasks.spec import TaskSpec

PIECE = 2**15  # rows of the output embedding that are made float32 at a time


class WordLogProbs:
    """Asks a pretrained model for log p(v | template(text)), v in the vocabulary, at the answer position.

    The model is left as it is. Its forward code runs unchanged, final transformations and all; only its output
    embedding is computed in float32 and at the answers alone, since in bfloat16 a logit around 10 has steps of 1/16.

    Args:
        templates: one or several, each with the task's text columns.

    Attributes:
        dtype: bfloat16 or float32, what the model computes in.
        example_forwards: texts sent through the model so far, once for each template.

    Raises:
        UserError: the model has no output embedding, or gives other numbers than its own forward code, or a template
            does not fit the task or the model.
    """

    gives_all = True

    def __init__(self, pretrained: Pretrained, spec: TaskSpec, templates: Sequence[str], batch_size: int):
        self._model, self._kind, self._device = pretrained.model, pretrained.kind, pretrained.device
        self.dtype = pretrained.dtype
        self._batch_size = batch_size
        self._pad_id = pretrained.pad_id
        self._encoders = template_encoders(pretrained, spec, templates)
        self._head = self._model.get_output_embeddings()
        if self._head is None or not hasattr(self._head, "weight"):
            raise UserError(
                f"--model_name {pretrained.name}: {type(self._model).__name__} gives no log-probabilities of chosen "
                "words, since it has no output embedding; use another model"
            )
        self._rows_alone = is_linear(self._head, torch.arange(4, device=self._head.weight.device))
        self._feed_forward = last_feed_forward(self._model)
        self.example_forwards = 0
        try:
            check_words(pretrained, self._log_probs, together=batch_size != 1)
        except UserError:
            if self._feed_forward is None:
                raise
            self._feed_forward = None  # positions may be mixed behind it
            check_words(pretrained, self._log_probs, together=batch_size != 1)
        self.example_forwards = 0  # the check's are not counted

    def __call__(
        self, texts: Sequence[Mapping[str, str]], token_ids: np.ndarray, progress: Progress = in_silence
    ) -> np.ndarray:
        """Log-probabilities of chosen words, normalised over the whole vocabulary.

        Args:
            texts: N times text column → text.
            token_ids: int, shape (V,).
            progress: gets the batches to go through, and their unit.

        Returns:
            float32, shape (N, T, V), texts in the order they were given in.

        Raises:
            FloatingPointError: the model's numbers are not finite.
        """
        found = np.empty((len(texts), len(self._encoders), len(token_ids)), dtype=np.float32)
        columns = torch.as_tensor(np.asarray(token_ids, dtype=np.int64), device=self._device)
        encoded = [[encoder.encode(text) for text in texts] for encoder in self._encoders]
        pairs = [(t, i) for t in range(len(encoded)) for i in range(len(texts))]
        pairs.sort(key=lambda pair: len(encoded[pair[0]][pair[1]].ids))
        for start in progress(range(0, len(pairs), self._batch_size), "batch"):
            batch = pairs[start : start + self._batch_size]
            log_probs = self._log_probs([encoded[t][i] for t, i in batch])[:, columns].cpu().numpy()  # (B, V)
            for (t, i), row in zip(batch, log_probs, strict=True):
                found[i, t] = row
        if not np.all(np.isfinite(found)):
            raise FloatingPointError("the model's log-probabilities are not finite")
        return found

    def _log_probs(self, examples: Sequence[Encoded]) -> torch.Tensor:
        """Of the whole vocabulary, float32, shape (B, vocabulary)."""
        ids, attention = pad([e.ids for e in examples], self._pad_id, self._device)
        answers = torch.tensor([e.answer for e in examples], device=self._device)
        extra = {"use_cache": False} if self._kind == "causal" else {}
        self.example_forwards += len(examples)
        with (
            torch.inference_mode(),
            only_at(self._feed_forward, answers),
            _float32_at(self._head, answers, self._rows_alone),
        ):
            logits = self._model(input_ids=ids, attention_mask=attention, **extra).logits  # (B, 1 or L, vocabulary)
        if logits.shape[1] != 1:
            logits = logits[torch.arange(len(logits), device=logits.device), answers.to(logits.device)][:, None]
        return torch.log_softmax(logits[:, 0].float(), dim=-1)


def template_encoders(pretrained: Pretrained, spec: TaskSpec, templates: Sequence[str]) -> list[Encoder]:
    """What makes token ids of a text, without a prompt, in each of these templates.

    Raises:
        UserError: a template does not fit the task or the model.
    """
    return [pretrained.encoder(with_template(spec, pretrained.kind, template)) for template in templates]


def with_template(spec: TaskSpec, kind: str, template: str) -> TaskSpec:
    """The task with another template for a kind of model.

    Raises:
        UserError: the template does not fit the task.
    """
    return replace(spec, **{kind: replace(spec.wording(kind), template=template, templates=None)})


@contextmanager
def _float32_at(head: nn.Module, answers: torch.Tensor, rows_alone: bool):
    """Within it, an output embedding gives float32 numbers, of one position of each row: (B, L, D) → (B, 1, V).

    One that does more than its rows, not `rows_alone`, computes them itself.
    """
    forward = head.forward

    def compute(hidden: torch.Tensor) -> torch.Tensor:
        if hidden.dim() == 3 and len(hidden) == len(answers):
            rows = torch.arange(len(hidden), device=hidden.device)
            hidden = hidden[rows, answers.to(hidden.device)][:, None]
        if not rows_alone:
            return forward(hidden).float()
        hidden, bias = hidden.to(head.weight.device).float(), getattr(head, "bias", None)
        pieces = [F.linear(hidden, rows.float()) for rows in head.weight.split(PIECE)]
        logits = torch.cat(pieces, dim=-1)
        return logits if bias is None else logits + bias.float()

    head.forward = compute
    try:
        yield
    finally:
        head.forward = forward
