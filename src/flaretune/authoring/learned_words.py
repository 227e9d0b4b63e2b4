"""The words that a learned verbalizer finds on a few labelled texts, before any job is run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flaretune.authoring.checking import Rows
from flaretune.authoring.report import LearnedWord, LearnedWords
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.open import open_words
from flaretune.methods.verbalizer.ridge import choose_words, separation
from flaretune.methods.verbalizer.settings import Vocabulary
from flaretune.methods.verbalizer.statistics import WordStatistics, one_against_rest, word_statistics
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import Draft

TEXTS = 16  # of each class, at the most
SHOWN = 8  # words of each class, at the most


def learn_words(draft: Draft, rows: Rows, model_name: str, config: FedBPTConfig) -> LearnedWords:
    """Choose words as the first step of a job of the method does, in one pass over a few texts and each template.

    Args:
        draft: a task file without mistakes.
        rows: labelled ones, some of every class.
        config: what the model is run in and on, and the seed by which texts are drawn.

    Raises:
        UserError: the model cannot be loaded or has no output embedding, or no word's log-probability varies.
    """
    spec, options = draft.task(), VerbalizerConfig()
    examples = rows.examples(spec)
    drawn = examples.take(draw(examples.labels, spec.n_classes, config.seed))
    labels = drawn.labels
    words = open_words(spec, model_name, config.dtype, config.device, quantize=config.quantize)
    vocabulary = words.vocabulary()
    log_probs = words.log_probs(drawn.texts, vocabulary.candidates)  # (N, T, V)
    n_texts, n_templates, n_candidates = log_probs.shape
    statistics = word_statistics(log_probs.reshape(n_texts, -1), labels, spec.n_classes)
    templates = np.repeat(np.arange(n_templates), n_candidates)
    label_words = [token for of_class in vocabulary.label_ids for token in of_class]
    always = np.flatnonzero(np.tile(np.isin(vocabulary.candidates, label_words), n_templates))
    chosen = choose_words(statistics, templates, options.n_words, always)
    return LearnedWords(
        texts={str(value): int(np.sum(labels == class_id)) for class_id, value in enumerate(spec.label_values)},
        templates=n_templates,
        candidates=n_candidates,
        by_class={
            str(value): top_words(statistics, class_id, chosen, vocabulary)
            for class_id, value in enumerate(spec.label_values)
        },
    )


def draw(labels: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Rows of at most `TEXTS` texts of each class, int64, ascending."""
    rng = np.random.default_rng(derive_seed(seed, "learned words"))
    drawn = [rng.permutation(np.flatnonzero(labels == class_id))[:TEXTS] for class_id in range(n_classes)]
    return np.sort(np.concatenate(drawn))


def top_words(
    statistics: WordStatistics, class_id: int, chosen: Sequence[int] | np.ndarray, vocabulary: Vocabulary
) -> tuple[LearnedWord, ...]:
    """Of the chosen words those that are more probable behind texts of a class than behind others, best first.

    Args:
        statistics: of every candidate behind every template, templates first.
        chosen: features, as `ridge.choose_words` gives them.

    Returns:
        At most `SHOWN` words, each once, by what separates the class from the others behind the best of the templates.
    """
    parted = one_against_rest(statistics, class_id)
    score = separation(parted)
    own, others = parted.sums / np.maximum(parted.counts, 1)[:, None]
    found: dict[int, LearnedWord] = {}
    for feature in sorted((f for f in chosen if own[f] > others[f]), key=lambda f: -score[f]):
        place = feature % len(vocabulary.candidates)
        found.setdefault(place, LearnedWord(vocabulary.texts[place], float(score[feature])))
    return tuple(found.values())[:SHOWN]
