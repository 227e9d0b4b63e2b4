"""A task file held against a model: label words, examples as the model gets them, lengths, zero-shot accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaretune.authoring.checking import Checking, Rows
from flaretune.authoring.report import LabelWord, Lengths, ModelReport, Report
from flaretune.config.options import as_dict, build
from flaretune.data.encode import PLAIN, Encoder
from flaretune.data.tokens import start_and_end_ids
from flaretune.errors import UserError
from flaretune.methods.classifier import score
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.models.load import Pretrained, load_outline
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import open_prompted_model
from flaretune.models.verbalizer import look_up
from flaretune.softmax import softmax
from flaretune.tasks.checks import AUTO, alternatives, label_key
from flaretune.tasks.spec import Draft, Source, TaskSpec, Wording

PERCENTILES = (50, 90, 99)
EXAMPLES = 2
MOST_MEASURED = 5000  # texts of a split whose length is taken
_LONGEST_SHOWN = 160  # characters between two marks of an example


def hold_against_model(
    report: Report, checking: Checking, rows: Sequence[Rows], model_name: str, config: FedBPTConfig, has_prompt: bool
) -> None:
    """Add to a report what there is to say of a model, whose weights are not needed for it.

    Args:
        rows: of each split in the report.
        config: of the prompt, which a text shares the model's limit with.
        has_prompt: whether there is one; never for a task without label words.

    Raises:
        UserError: there is no such model.
    """
    model = load_outline(model_name)
    kind = model.kind
    entries = checking.draft.entries[kind]
    if has_prompt and not (entries and entries["label_words"] == AUTO):
        mode, n_prompt = (config.cat_or_add if kind == "masked" else config.prompt_position), config.n_prompt_tokens
    else:
        mode, n_prompt = PLAIN[kind], 0
    words: tuple[LabelWord, ...] = ()
    if entries is None:
        sentence = f"there is no table [{kind}], and {model_name} is a {kind} model; write one"
        if checking.is_fine((kind,)):
            checking.note((), sentence)
    else:
        words = _look_up_words(checking, model, entries)
    report.model = ModelReport(model_name, kind, mode, n_prompt, model.max_length, words)
    spec = _what_can_be_encoded(checking, kind)
    if spec is None:
        return
    try:
        encoder = model.encoder(spec, mode, n_prompt)
    except UserError as error:
        checking.note((kind, "template"), str(error))
        return
    _note_doubled(checking, model, entries)
    for one, of_split in zip(report.data, rows, strict=True):
        one.lengths = _lengths(encoder, of_split.texts) if of_split.texts else None
    first = next((of_split for of_split in rows if of_split.texts), None)
    if first is None:
        return
    chosen = _rows_of_different_labels(first)
    by_label = {}
    for word in words:
        by_label.setdefault(label_key(word.label), word.word.strip())
    report.examples = tuple(
        show(encoder, first.texts[row], by_label.get(label_key(first.labels[row]), "label word")) for row in chosen
    )


def show(encoder: Encoder, texts: Mapping[str, str], word: str) -> str:
    """An example as the model gets it, with the prompt's place as {prompt: n} and the answer position as <<word>>."""
    encoded, decode = encoder.encode(texts), encoder.tokenizer.decode
    ids = encoded.ids.tolist()
    behind_prompt = encoded.insert + (encoder.n_prompt_tokens if encoder.mode == "add" else 0)
    prompt = f"{{prompt: {encoder.n_prompt_tokens}}}" if encoder.n_prompt_tokens else ""
    marks = [(encoded.insert, behind_prompt, prompt)]
    if encoder.kind == "masked":
        marks.append((encoded.answer, encoded.answer + 1, f"<<{word}>>"))
    else:
        marks.append((len(ids), len(ids), f"<<{word}>>"))
    pieces, position = [], 0
    for start, end, mark in marks:
        pieces += [_shortened(decode(ids[position:start])), mark]
        position = end
    pieces.append(_shortened(decode(ids[position:])))
    return " ".join(piece for piece in pieces if piece)


def measure_zero_shot(draft: Draft, rows: Rows, model_name: str, config: FedBPTConfig) -> dict[str, Any]:
    """Metric of model and template alone on labelled rows, and what is right of each class.

    Args:
        draft: a task file without mistakes.
        rows: at least one.
        config: what the model is run in and on.

    Raises:
        UserError: the model cannot be loaded.
    """
    spec = draft.task()
    examples = rows.examples(spec)
    # the prompt, which is not used, as small as it can be
    settings = build(PromptSettings, {**as_dict(config), "n_prompt_tokens": 1, "intrinsic_dim": 1})
    place = {name: getattr(config, name) for name in ("dtype", "device", "quantize")}
    prompted = open_prompted_model(spec, model_name, settings, **place)
    found = score(spec, softmax(prompted.zero_shot_logits(examples)), examples.labels)
    right = zip(found.correct_by_class, found.n_by_class, strict=True)
    by_class = {str(label): counts for label, counts in zip(spec.label_values, right, strict=True)}
    return {"metric": found.metric, "value": found.value, "n": found.n, "by_class": by_class}


def _look_up_words(checking: Checking, model: Pretrained, entries: Mapping[str, Any]) -> tuple[LabelWord, ...]:
    if not checking.is_fine((model.kind, "template")) or None in (entries["template"], entries["label_words"]):
        return ()  # what is wrong with them is said without the model
    if entries["label_words"] == AUTO:
        return ()
    values = checking.draft.entries["label_values"] or range(len(entries["label_words"]))
    words = [
        (value, word)
        for value, of_class in zip(values, entries["label_words"], strict=False)
        for word in alternatives(of_class)
    ]
    different = tuple(dict.fromkeys(word for _, word in words if word.strip()))  # of others the file's check has told
    ids, problems = look_up(model.tokenizer, Wording(**{**entries, "label_words": different}), model.kind)
    for problem in problems:
        checking.note((model.kind, "label_words"), problem)
    id_of = dict(zip(different, ids, strict=True))
    tokens = {i: model.tokenizer.convert_ids_to_tokens(i) for i in ids if i is not None}
    return tuple(LabelWord(value, word, tokens.get(id_of.get(word)), id_of.get(word)) for value, word in words)


def _note_doubled(checking: Checking, model: Pretrained, entries: Mapping[str, Any]) -> None:
    """Templates that begin or end with a token that the tokenizer adds to every text."""
    start, end = map(model.tokenizer.convert_ids_to_tokens, start_and_end_ids(model.tokenizer))
    for key, templates in (("template", [entries["template"]]), ("templates", entries["templates"] or ())):
        for template in templates:
            doubled = [token for token in start if template.lstrip().startswith(token)]
            if model.kind == "masked":
                doubled += [token for token in end if template.rstrip().endswith(token)]
            for token in doubled:
                sentence = f"the {model.kind} template {template!r} spells {token!r}, which every text gets anyway"
                checking.note((model.kind, key), f"{sentence}; leave it out, or texts have it twice")


def _what_can_be_encoded(checking: Checking, kind: str) -> TaskSpec | None:
    """The part of the task that turns texts into tokens, if that part is right, whatever the rest is."""
    entries = checking.draft.entries
    template = (entries[kind] or {}).get("template")
    if template is None or entries["text_columns"] is None or entries["placeholder_tail"] is None:
        return None
    if not checking.is_fine((kind, "template"), ("text_columns",)):
        return None
    wording = Wording(template, ("a", "b"))
    return TaskSpec(
        name=checking.draft.file.stem,
        description="",
        text_columns=entries["text_columns"],
        label_column="\0",  # no column's name
        label_values=(0, 1),
        drop_labels=(),
        metric="accuracy",
        positive_class=None,
        masked=wording if kind == "masked" else None,
        causal=wording if kind == "causal" else None,
        source=Source(hub="none", config=None, path=None, train="train", test="test"),
        placeholder_tail=entries["placeholder_tail"],
    )


def _lengths(encoder: Encoder, texts: Sequence[Mapping[str, str]]) -> Lengths:
    n = min(len(texts), MOST_MEASURED)
    rows = np.linspace(0, len(texts) - 1, n).astype(int)  # evenly over all of them
    wanted = np.array([encoder.wanted_length(texts[row]) for row in rows])
    # the least length of an actual text that so many do not exceed
    percentiles = {share: int(np.percentile(wanted, share, method="inverted_cdf")) for share in PERCENTILES}
    cut = int(np.sum(wanted > encoder.max_length))
    return Lengths(n, percentiles, int(wanted.max()), encoder.max_length, cut)


def _rows_of_different_labels(rows: Rows) -> list[int]:
    """The first rows of the first labels; where there is one label, the first rows."""
    first_of = {label_key(label): row for row, label in reversed(list(enumerate(rows.labels)))}
    chosen = sorted(first_of.values())[:EXAMPLES]
    others = (row for row in range(len(rows.texts)) if row not in chosen)
    while len(chosen) < min(EXAMPLES, len(rows.texts)):
        chosen.append(next(others))
    return chosen


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    half = _LONGEST_SHOWN // 2
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:half]} … {text[-half:]}"
