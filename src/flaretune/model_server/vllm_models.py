"""A model at a vLLM server in place of one here: embeddings or token ids go there, log-probabilities come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flaretune.data.encode import Encoded
from flaretune.errors import UserError
from flaretune.model_server.vllm import VllmServer
from flaretune.model_server.vllm_check import VllmCheck, as_prompt
from flaretune.models.label_head import at_answers
from flaretune.models.load import Pretrained, load_outline
from flaretune.models.progress import Progress, in_silence
from flaretune.models.prompt_settings import ModelFacts, PromptSettings
from flaretune.models.prompted import PromptedModel, embed, make_soft_prompt
from flaretune.models.soft_prompt import SoftPrompt
from flaretune.models.verbalizer import label_word_ids, word_classes
from flaretune.models.word_embeddings import read_word_embeddings
from flaretune.models.word_log_probs import template_encoders
from flaretune.tasks.spec import TaskSpec


class VllmBlackBox:
    """`models.black_box.BlackBox` at a vLLM server.

    What it calls logits are log-probabilities: of a text they are the logits less one number for all words, which no
    softmax over words, difference or maximum of them sees.

    Args:
        soft_prompt: how a search point becomes a prompt; None for texts without one, which go as token ids.
        words: token ids, int (V,).
        classes: the class of each word, see `models.label_head.at_answers`.

    Attributes:
        words: they can be changed.
        example_forwards: examples asked about so far.
    """

    def __init__(
        self,
        server: VllmServer,
        model: torch.nn.Module,
        soft_prompt: SoftPrompt | None,
        words: np.ndarray,
        classes: np.ndarray | None,
    ):
        self._server, self._model, self._soft_prompt = server, model, soft_prompt
        self._classes = classes
        self.words = words
        self.example_forwards = 0

    @property
    def hidden_size(self) -> int:
        """D, the size of a prompt vector."""
        return self._model.get_input_embeddings().weight.shape[1]

    def register(self, examples: Sequence[Encoded], reuse: bool = True) -> Sequence[Encoded]:
        """See whether texts fit the server; nothing of them is kept there.

        Raises:
            UserError: one is too long.
        """
        n_prompt = self._soft_prompt.n_tokens if self._soft_prompt else 0
        self._server.check_length(max((len(e.ids) for e in examples), default=0) + n_prompt)
        return examples

    def label_logits(self, points: np.ndarray, texts: Sequence[Encoded]) -> np.ndarray:
        """Log-probabilities of the label words for every candidate and text.

        Args:
            points: λ search points, float, shape (λ, d).
            texts: what `register` gave.

        Returns:
            float32, shape (λ, N, C), the mean of its words for a class of several.

        Raises:
            UserError: see `VllmServer.log_probs`.
        """
        asked = [e.ids.tolist() for e in texts] * len(points) if self._soft_prompt is None else None
        prompts = self._with_prompts(points, texts) if asked is None else asked
        found = self._server.log_probs(prompts, self.words)  # (λN, V)
        self.example_forwards += len(points) * len(texts)
        rows = torch.from_numpy(found)[:, None]  # one position each
        logits = at_answers(rows, torch.zeros(len(rows), dtype=torch.int64), self._classes)
        return logits.view(len(points), len(texts), -1).numpy()

    def _with_prompts(self, points: np.ndarray, texts: Sequence[Encoded]) -> Iterator[bytes]:
        """Embeddings of every candidate in every text, in the order of the candidates."""
        for prompt in self._soft_prompt.prompts(points):  # (n, D)
            for example in texts:
                rows = embed(self._model, torch.from_numpy(example.ids))  # (L, D)
                yield as_prompt(torch.cat([rows[: example.insert], prompt.to(rows.dtype), rows[example.insert :]]))


@dataclass(frozen=True)
class VllmPromptedModel(PromptedModel):
    """`models.prompted.PromptedModel` at a vLLM server, its model an outline with word embeddings.

    Attributes:
        dtype: what the server computes in, as far as that is known, else "".
    """

    dtype: str = ""

    @property
    def facts(self) -> ModelFacts:
        known = self.pretrained
        return ModelFacts(known.name, known.kind, known.model.config.model_type, self.black_box.hidden_size, self.dtype)

    def use_words(self, head: torch.nn.Module, token_ids: np.ndarray) -> None:
        self.black_box.words = np.asarray(token_ids)


class VllmWords:
    """`models.word_log_probs.WordLogProbs` at a vLLM server, asked by token ids, 128 words in a request.

    Args:
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


def open_vllm_model(
    server: VllmServer,
    outline: Pretrained,
    check: VllmCheck,
    spec: TaskSpec,
    settings: PromptSettings,
    words: np.ndarray | None = None,
) -> VllmPromptedModel:
    """A black box for a task, of the model that a vLLM server has loaded.

    Args:
        server, outline, check: see `open_outline`.
        words: token ids that it gives the logits of, int (V,), in place of the task's label words.

    Raises:
        UserError: the server's model is not the client's, or the task does not fit it.
    """
    tokenizer, model, mode = outline.tokenizer, outline.model, settings.prompt_position
    asked = label_word_ids(tokenizer, spec, outline.kind) if words is None else words
    classes = word_classes(spec.wording(outline.kind)) if words is None else None
    encoder, plain_encoder = outline.encoder(spec, mode, settings.n_prompt_tokens), outline.encoder(spec)
    embeddings = read_word_embeddings(outline)
    check.check_embeddings(embeddings)
    hidden_size = embeddings.weight.shape[1]
    prompt = make_soft_prompt(model, tokenizer, settings, mode, hidden_size, torch.device("cpu"))
    box, plain_box = (VllmBlackBox(server, model, of, asked, classes) for of in (prompt, None))
    return VllmPromptedModel(outline, spec, mode, encoder, box, plain_encoder, plain_box, check.dtype)


def open_outline(server: VllmServer, model_name: str, dtype: str) -> tuple[Pretrained, VllmCheck]:
    """A model without weights that is the one of a vLLM server, and the check that found so.

    Raises:
        UserError: it is a masked model, or another one than the server's.
    """
    outline = load_outline(model_name)
    if outline.kind == "masked":
        raise UserError(
            f"--model_name {model_name}: it is a masked language model, and vLLM gives log-probabilities of causal "
            "ones; use --model_server local"
        )
    return outline, VllmCheck(server, outline, dtype)
