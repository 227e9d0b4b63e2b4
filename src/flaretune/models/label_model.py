"""A language model that is trained: label word logits, through which gradients flow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from flaretune.data.encode import Encoded, Encoder
from flaretune.models.label_head import at_answers
from flaretune.models.last_layer import last_feed_forward, only_at
from flaretune.models.load import Pretrained
from flaretune.models.lower_layers import LowerLayers
from flaretune.models.padding import pad
from flaretune.models.progress import Progress, in_silence
from flaretune.models.verbalizer import word_classes
from flaretune.tasks import calibration
from flaretune.tasks.spec import TaskSpec


class LabelModel:
    """The score s(l | x) of arXiv 2307.13896: the logit of label l's word at the answer position of the template.

    Args:
        model: a masked or causal language model whose head is narrowed to the label words, adapters included.
        batch_size: examples in a forward pass without gradients.
        autocast: compute in bfloat16 although the parameters are float32.

    Attributes:
        classes: the class of each label word, see `at_answers`.
        lower: the layers below the adapters; None where every layer may have one.
        feed_forward: what is computed at the answers alone, see `last_layer`; None for nothing.
    """

    def __init__(
        self, model: torch.nn.Module, pretrained: Pretrained, spec: TaskSpec, batch_size: int, autocast: bool = False
    ):
        self.model = model
        self.spec = spec
        self._kind = pretrained.kind
        self.classes = word_classes(spec.wording(pretrained.kind))
        self._device = pretrained.device
        self._batch_size = batch_size
        self._autocast = autocast
        self.example_forwards = 0
        self.lower: LowerLayers | None = None
        self.feed_forward = last_feed_forward(pretrained.model)
        self._is_training = False
        self._pad_id = pretrained.pad_id
        self._encoder: Encoder | None = pretrained.encoder(spec)
        self.calibrate(None)

    def calibrate(self, prior: np.ndarray | None) -> None:
        """Divide a prior of the classes, float (C,), out of all logits but those of training; None for none."""
        offset = np.zeros(self.spec.n_classes) if prior is None else calibration.offset(prior)
        self._offset = torch.tensor(offset, dtype=torch.float32, device=self._device)

    def train(self, mode: bool = True) -> None:
        """Training mode, in which dropout is at work in the layers that are trained; or evaluation."""
        self._is_training = mode
        self.model.train(mode and self.lower is None)
        if self.lower is not None:
            self.lower.train_others(mode)

    def encode(self, texts: Iterable[Mapping[str, str]]) -> list[Encoded]:
        """Texts, each as text column → text, in the template, as token ids."""
        return [self._encoder.encode(columns) for columns in texts]

    def forget_tokenizer(self) -> None:
        """No text is encoded any more; `encode` must not be called."""
        self._encoder = None

    def logits(self, examples: Sequence[Encoded]) -> torch.Tensor:
        """Label word logits of a batch, with gradients, float32, shape (B, C)."""
        ids, attention = pad([e.ids for e in examples], self._pad_id, self._device)
        positions = torch.tensor([e.answer for e in examples], device=self._device)
        self.example_forwards += len(examples)
        extra = {"use_cache": False} if self._kind == "causal" else {}
        autocast = torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast)
        with autocast, self._lower_layers(examples), only_at(self.feed_forward, positions):
            logits = self.model(input_ids=ids, attention_mask=attention, **extra).logits  # (B, L, C)
        scores = at_answers(logits, positions, self.classes)
        return scores if self._is_training else scores + self._offset

    def predict_logits(self, examples: Sequence[Encoded], progress: Progress = in_silence) -> np.ndarray:
        """Label word logits without gradients or dropout, float32, shape (N, C), in batches sorted by length."""
        found = np.empty((len(examples), self.spec.n_classes), dtype=np.float32)
        order = np.argsort([len(e.ids) for e in examples], kind="stable")
        was_training = self._is_training
        self.train(False)
        with torch.inference_mode():
            for start in progress(range(0, len(order), self._batch_size), "batch"):
                batch = order[start : start + self._batch_size]
                found[batch] = self.logits([examples[i] for i in batch]).cpu().numpy()
        self.train(was_training)
        return found

    def _lower_layers(self, examples: Sequence[Encoded]) -> AbstractContextManager[None]:
        if self.lower is None or not self.lower.keep_states:
            return nullcontext()
        return self.lower.left_out(examples) if self.lower.know(examples) else self.lower.kept(examples)
