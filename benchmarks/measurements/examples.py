"""Made-up encoded examples, of the lengths that film reviews have; speed depends on nothing else of them."""

from __future__ import annotations

import numpy as np

from flaretune.data.encode import FIRST_PLACEHOLDER, Encoded
from flaretune.data.perturb import perturb
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import Kind

MEDIAN_TOKENS, SPREAD = 25, 0.6  # of the log-normal distribution of the texts' lengths
SHORTEST, LONGEST = 6, 96
TAIL = 3  # tokens of the template behind the text
FIRST_WORD = 4  # ids below are special, as is the last, the mask
PERTURB_RATE = 0.5  # the published one


def random_examples(kind: Kind, vocab_size: int, n_examples: int, n_prompt: int, seed: int) -> list[Encoded]:
    """Examples of random tokens, as `data.encode.Encoder` would give them for a text and a template's tail.

    Masked, mode ``add``: [start, n placeholders, text, tail with the mask last, end]. Causal, mode ``suffix``:
    [start, text, tail], the prompt's place in front of the tail.
    """
    rng = np.random.default_rng(derive_seed(seed, "bench", "examples"))
    lengths = np.exp(rng.normal(np.log(MEDIAN_TOKENS), SPREAD, size=n_examples)).round().astype(int)
    return [_example(kind, vocab_size, n_prompt, n, rng) for n in lengths.clip(SHORTEST, LONGEST)]


def _example(kind: Kind, vocab_size: int, n_prompt: int, n_text: int, rng: np.random.Generator) -> Encoded:
    words = rng.integers(FIRST_WORD, vocab_size - 1, size=n_text + TAIL)
    if kind == "causal":
        ids = np.array([1, *words], dtype=np.int64)
        frozen = np.arange(ids.size) == 0
        return Encoded(ids, insert=1 + n_text, answer=ids.size - 1, frozen=frozen)
    placeholders = np.arange(n_prompt) + min(FIRST_PLACEHOLDER, vocab_size - 1 - n_prompt)
    words[-1] = vocab_size - 1  # the mask
    ids = np.array([0, *placeholders, *words, 2], dtype=np.int64)
    frozen = (np.arange(ids.size) <= n_prompt) | (np.arange(ids.size) >= ids.size - 2)
    return Encoded(ids, insert=1, answer=ids.size - 2, frozen=frozen)


def perturbed_examples(examples: list[Encoded], vocab_size: int, seed: int) -> list[Encoded]:
    """The same with tokens replaced at random (paper, §3.4)."""
    rng = np.random.default_rng(derive_seed(seed, "bench", "perturbed"))
    vocabulary = np.arange(FIRST_WORD, vocab_size - 1)
    return [perturb(example, PERTURB_RATE, vocabulary, rng) for example in examples]
