"""What models here give, against a model's own code from token ids, one text at a time."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from flaretune.data.encode import Encoded, Encoder
from flaretune.data.load import Examples
from flaretune.models.load import load_pretrained
from flaretune.models.lora import TuneSettings
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, open_prompted_model
from flaretune.models.tuned import TunedModel, open_tuned_model
from flaretune.models.verbalizer import label_word_ids
from flaretune.models.word_log_probs import WordLogProbs
from tests.model_types_for_tests import LANGUAGE_MODEL
from tests.models.asking import TEXTS
from tests.tasks_for_tests import review_task

PROMPT = "a funny film"  # its tokens are the prompt of causal models, which so has an equivalent in token ids
EXAMPLES = Examples(tuple({"sentence": text} for text in TEXTS), np.zeros(len(TEXTS), dtype=np.int64))
MODES = {"masked": ("add", "cat"), "causal": ("prefix", "suffix")}


def check_prompted(folder: Path, kind: str, mode: str, batch_size: int = 0) -> None:
    """Raises AssertionError where logits with a prompt, or without one, are not those of the model's own code."""
    prompted = opened(folder, mode, batch_size)
    if mode == "cat":  # has no equivalent in token ids
        _equal(_with_first_prompt(prompted), _with_first_prompt(opened(folder, mode, batch_size=1)))
    else:
        examples = [prompted.encoder.encode(text) for text in EXAMPLES.texts]
        rows = [_with_prompt(prompted, example) for example in examples]
        positions = [example.answer if kind == "masked" else -1 for example in examples]
        inserts = None if kind == "masked" else [example.insert for example in examples]
        _equal(_with_first_prompt(prompted), own_logits(folder, kind, rows, positions, inserts=inserts))
    plain = [prompted.plain_encoder.encode(text) for text in EXAMPLES.texts]
    own = own_logits(folder, kind, [e.ids for e in plain], [e.answer for e in plain])
    _equal(prompted.zero_shot_logits(EXAMPLES), own)
    assert np.ptp(own, axis=0).max() > 0.05  # or nothing would be seen here


def check_tuned(folder: Path, kind: str, tuning: str, batch_size: int = 0) -> None:
    """Likewise of a model as training begins; and where arrays that are loaded are not those that are read back."""
    model = tuned(folder, tuning, batch_size=batch_size)
    examples = model.label_model.encode(EXAMPLES.texts)
    own = own_logits(folder, kind, [e.ids for e in examples], [e.answer for e in examples])
    _equal(model.label_model.predict_logits(examples), own)
    rng = np.random.default_rng(0)
    shapes = model.parameters.shapes()
    sent = {name: rng.normal(size=shape).astype(np.float32) / 10 for name, shape in shapes.items()}
    model.parameters.load(sent)
    read = model.parameters.arrays()
    assert all(np.array_equal(read[name], sent[name]) for name in sent)


def check_words(folder: Path, kind: str, batch_size: int = 0) -> None:
    """Likewise of log-probabilities of words, normalised over the whole vocabulary."""
    _model, label_ids = _own_model(folder, kind)
    found = opened_words(folder, kind, batch_size or 8)(EXAMPLES.texts, label_ids)[:, 0]
    pretrained, mode = load_pretrained(str(folder), "float32", "cpu"), "cat" if kind == "masked" else "prefix"
    encoder = Encoder(pretrained.tokenizer, review_task(), kind, mode, 0, pretrained.max_length)
    plain = [encoder.encode(text) for text in EXAMPLES.texts]
    whole = own_logits(folder, kind, [e.ids for e in plain], [e.answer for e in plain], whole=True).astype(np.float64)
    shifted = whole - whole.max(axis=1, keepdims=True)
    _equal(found, (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))[:, label_ids])


def settings(mode: str) -> PromptSettings:
    masked = mode in MODES["masked"]
    initial = PROMPT if not masked else "zeros" if mode == "add" else "tokens"
    return PromptSettings(3, 10, mode if masked else "add", "suffix" if masked else mode, initial, 1.0, 1.0, 1, 0)


def opened(folder: Path, mode: str, batch_size: int = 0, dtype: str = "float32", cache_mb: int = 16) -> PromptedModel:
    where = {"dtype": dtype, "device": "cpu", "batch_size": batch_size, "cache_mb": cache_mb}
    return open_prompted_model(review_task(), str(folder), settings(mode), **where)


def tuned(
    folder: Path, tuning: str = "lora", targets: str = "auto", batch_size: int = 0, dtype: str = "float32"
) -> TunedModel:
    how = TuneSettings(4, 8.0, targets, "0", 1, tuning, 0)
    return open_tuned_model(review_task(), str(folder), how, dtype=dtype, device="cpu", batch_size=batch_size)


def opened_words(folder: Path, kind: str, batch_size: int = 8) -> WordLogProbs:
    task = review_task()
    return WordLogProbs(load_pretrained(str(folder), "float32", "cpu"), task, [task.wording(kind).template], batch_size)


@torch.no_grad()
def own_logits(
    folder: Path,
    kind: str,
    rows: list[np.ndarray],
    answers: list[int],
    whole: bool = False,
    inserts: list[int] | None = None,
) -> np.ndarray:
    """Logits at the answers, of the label words or of the whole vocabulary, float32, shape (N, W).

    With `inserts`, the prompt's tokens are there: of embeddings for each layer they get padding's.
    """
    model, label_ids = _own_model(folder, kind)
    extra = {"use_cache": False} if kind == "causal" else {}
    lookup = next((module.get_per_layer_inputs for module in model.modules() if _has_layer_embeddings(module)), None)
    found = []
    for i, row in enumerate(rows):
        ids = torch.tensor(row)[None]
        given = {"input_ids": ids}
        if inserts is not None and lookup is not None:
            padded = ids.clone()
            padded[:, inserts[i] : inserts[i] + 3] = AutoTokenizer.from_pretrained(folder).pad_token_id
            given = {"inputs_embeds": model.get_input_embeddings()(ids), "per_layer_inputs": lookup(padded)}
        found.append(model(**given, **extra).logits[0])
    at_answers = np.stack([logits[answer].numpy() for logits, answer in zip(found, answers, strict=True)])
    return at_answers if whole else at_answers[:, label_ids]


def _has_layer_embeddings(module: torch.nn.Module) -> bool:
    return getattr(module, "embed_tokens_per_layer", None) is not None


@functools.cache
def _own_model(folder: Path, kind: str) -> tuple[torch.nn.Module, np.ndarray]:
    """The whole model as it was saved, or what a multimodal one has its own code in; and the ids of its label words."""
    source = Path(folder) / LANGUAGE_MODEL
    source = source if source.is_dir() else folder
    architecture = AutoConfig.from_pretrained(source).architectures[0]
    model = getattr(transformers, architecture).from_pretrained(source).eval()
    return model, label_word_ids(AutoTokenizer.from_pretrained(folder), review_task(), kind)


def _with_first_prompt(prompted: PromptedModel) -> np.ndarray:
    """Label-word logits with the prompt that the search starts from."""
    return prompted.black_box.label_logits(np.zeros((1, 10)), prompted.register(EXAMPLES))[0]


def _with_prompt(prompted: PromptedModel, example: Encoded) -> np.ndarray:
    """Token ids in which the prompt is tokens; of mode ``add``, whose prompt is zeros, those of the text."""
    if prompted.pretrained.kind == "masked":
        return example.ids
    ids = prompted.pretrained.tokenizer.encode(PROMPT, add_special_tokens=False)
    return np.insert(example.ids, example.insert, [ids[i % len(ids)] for i in range(3)])


def _equal(found: np.ndarray, own: np.ndarray) -> None:
    """But for float32's rounding, which grows with logits (random ModernVBERT: 1e-3 off float64 where they are 27)."""
    np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(own).max())))
