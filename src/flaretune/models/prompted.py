"""A pretrained model made ready to answer for a task with a soft prompt in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from flaretune.data.encode import Encoder
from flaretune.data.load import Examples
from flaretune.data.perturb import perturb
from flaretune.data.tokens import text_ids
from flaretune.errors import UserError
from flaretune.models.black_box import BlackBox, TextSet, default_batch_size
from flaretune.models.causal import CausalLM
from flaretune.models.label_head import narrow_to_label_words
from flaretune.models.lanes import Lanes, side_by_side
from flaretune.models.load import Pretrained, load_pretrained
from flaretune.models.masked import MaskedLM
from flaretune.models.prompt_settings import ModelFacts, PromptSettings
from flaretune.models.self_check import check_prompted
from flaretune.models.soft_prompt import SoftPrompt
from flaretune.models.verbalizer import label_word_ids, word_classes
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import TaskSpec


@dataclass(frozen=True)
class PromptedModel:
    """A black box for a task, and how texts get into it.

    Attributes:
        mode: where the prompt goes: add, cat, prefix or suffix.
        plain_encoder, plain_black_box: the same without any prompt, for the zero-shot accuracy.
    """

    pretrained: Pretrained
    spec: TaskSpec
    mode: str
    encoder: Encoder
    black_box: BlackBox
    plain_encoder: Encoder
    plain_black_box: BlackBox

    @property
    def facts(self) -> ModelFacts:
        """What a client tells of its model."""
        known = self.pretrained
        family, hidden_size = known.model.config.model_type, self.black_box.hidden_size
        return ModelFacts(known.name, known.kind, family, hidden_size, known.dtype)

    def register(self, examples: Examples, reuse: bool = True) -> TextSet:
        """Encode examples and register them with the black box (see `BlackBox.register`)."""
        return self.black_box.register([self.encoder.encode(texts) for texts in examples.texts], reuse)

    def register_perturbed(self, examples: Examples, rate: float, seed: int) -> TextSet:
        """The same of the examples with tokens replaced at random (see `data.perturb.perturb`)."""
        rng = np.random.default_rng(seed)
        encoded = [self.encoder.encode(texts) for texts in examples.texts]
        return self.black_box.register([perturb(e, rate, self._replaceable, rng) for e in encoded])

    @cached_property
    def _replaceable(self) -> np.ndarray:
        return text_ids(self.pretrained.tokenizer)

    def use_words(self, head: torch.nn.Module, token_ids: np.ndarray) -> None:
        """Give the logits of other words from now on; of a model that was prompted with `words`.

        Args:
            head: the whole output embedding, as the model had it before it was narrowed.
            token_ids: int, shape (V,).
        """
        narrow_to_label_words(self.pretrained.model, token_ids, zero_bias=False, head=head)

    def register_plain(self, examples: Examples) -> TextSet:
        """Encode examples without any prompt and register them with the plain black box."""
        return self.plain_black_box.register([self.plain_encoder.encode(t) for t in examples.texts], reuse=False)

    def zero_shot_logits(self, examples: Examples) -> np.ndarray:
        """Label-word logits of the model and the template alone, float32, shape (N, C)."""
        return self.plain_black_box.label_logits(np.zeros((1, 1)), self.register_plain(examples))[0]


def open_prompted_model(
    spec: TaskSpec,
    model_name: str,
    settings: PromptSettings,
    *,
    dtype: str,
    device: str,
    batch_size: int = 0,
    cache_mb: int = 0,
    quantize: str = "none",
) -> PromptedModel:
    """Load a model and make it a black box for a task.

    Args:
        dtype, device, batch_size, cache_mb, quantize: the options of these names.

    Raises:
        UserError: the model, the task's label words or the prompt's size do not fit together.
    """
    return prompt_model(load_pretrained(model_name, dtype, device, quantize), spec, settings, batch_size, cache_mb)


def prompt_model(
    pretrained: Pretrained,
    spec: TaskSpec,
    settings: PromptSettings,
    batch_size: int = 0,
    cache_mb: int = 0,
    words: np.ndarray | None = None,
    lanes: Lanes | None = None,
) -> PromptedModel:
    """Make a black box for a task of a loaded model, whose head is replaced; see `open_prompted_model`.

    Args:
        words: token ids that it gives the logits of, int (V,), in place of the task's label words.
        lanes: where several threads ask at a time: what the passes run on. Without a `batch_size`, texts that would
            be fewer batches than lanes are divided.
    """
    tokenizer, model = pretrained.tokenizer, pretrained.model
    narrow_to_label_words(
        model,
        label_word_ids(tokenizer, spec, pretrained.kind) if words is None else words,
        zero_bias=pretrained.kind == "masked" and bool(settings.zero_lm_bias),
    )
    classes = word_classes(spec.wording(pretrained.kind)) if words is None else None
    masked = pretrained.kind == "masked"
    mode = settings.cat_or_add if masked else settings.prompt_position

    def make(of: torch.nn.Module, in_mode: str, at_answers_only: bool) -> MaskedLM | CausalLM:
        if masked:
            return MaskedLM(of, in_mode, pretrained.pad_id, classes, at_answers_only)
        return CausalLM(of, pretrained.pad_id, classes, at_answers_only)

    cached = mode == "suffix" and cache_mb > 0
    together = batch_size != 1
    lm, plain_lm, cached = check_prompted(pretrained, make, mode, classes, cached=cached, together=together)
    hidden_size = lm.hidden_size
    prompt = make_soft_prompt(model, tokenizer, settings, mode, hidden_size, pretrained.device)
    no_prompt = SoftPrompt(0, hidden_size, 1, 1.0, 1.0, 1.0, settings.seed, device=pretrained.device)
    divide, batch_size = not batch_size, batch_size or default_batch_size(pretrained.device, cached)
    beside, plain_beside = side_by_side((lm, plain_lm), model, lanes) if lanes else (None, None)
    return PromptedModel(
        pretrained,
        spec,
        mode,
        pretrained.encoder(spec, mode, settings.n_prompt_tokens),
        BlackBox(lm, prompt, batch_size, cache_mb if cached else 0, beside, divide),
        pretrained.encoder(spec),
        BlackBox(plain_lm, no_prompt, batch_size, 0, plain_beside, divide),
    )


def make_soft_prompt(
    model: torch.nn.Module, tokenizer, settings: PromptSettings, mode: str, hidden_size: int, device: torch.device
) -> SoftPrompt:
    """How a search point becomes a prompt of a model, of which the word embeddings alone are needed.

    Raises:
        UserError: see `initial_prompt`.
    """
    return SoftPrompt(
        settings.n_prompt_tokens,
        hidden_size,
        settings.intrinsic_dim,
        embedding_std(model),
        settings.alpha,
        settings.sigma,
        settings.seed,
        initial_prompt(model, tokenizer, settings, mode),
        device,
    )


def embed(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Word embeddings of token ids as they enter the model, its scaling (Gemma) included, shape (N,) → (N, D)."""
    embeddings = model.get_input_embeddings()
    with torch.inference_mode():
        return embeddings(ids.to(embeddings.weight.device))


def embedding_std(model: torch.nn.Module) -> float:
    """σ_E: standard deviation of all entries of the word embeddings, as they enter the model."""
    total, squares, count = 0.0, 0.0, 0
    vocab_size = len(model.get_input_embeddings().weight)
    for start in range(0, vocab_size, 8192):  # in pieces: a large vocabulary in float64 would take gigabytes
        rows = embed(model, torch.arange(start, min(start + 8192, vocab_size))).double()
        total, squares, count = total + rows.sum().item(), squares + rows.square().sum().item(), count + rows.numel()
    return float(np.sqrt(squares / count - (total / count) ** 2))


def initial_prompt(model: torch.nn.Module, tokenizer, settings: PromptSettings, mode: str) -> torch.Tensor | None:
    """p₀, float32 (n, D), or None for zeros (see the option ``--init_prompt``).

    Raises:
        UserError: the text that was given holds no token.
    """
    source = settings.init_prompt
    if source == "auto":
        source = "tokens" if mode == "cat" else "zeros"
    if source == "zeros":
        return None
    n = settings.n_prompt_tokens
    if source == "tokens":
        rng = np.random.RandomState(derive_seed(settings.seed, "initial prompt"))  # as in `SoftPrompt`
        ids: Sequence[int] = rng.randint(len(model.get_input_embeddings().weight), size=n, dtype=np.int64).tolist()
    else:
        ids = tokenizer.encode(source, add_special_tokens=False)
        if not ids:
            raise UserError(f"--init_prompt {source!r} holds no token: give zeros, tokens or a text")
        ids = [ids[i % len(ids)] for i in range(n)]  # repeated or cut to n tokens
    return embed(model, torch.tensor(ids)).float()
