"""Replacing tokens at random: what remains is the label's prior, not the text's meaning (FedBPT, §3.4)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flaretune.data.encode import Encoded
from flaretune.errors import UserError


def perturb(encoded: Encoded, rate: float, vocab: np.ndarray, rng: np.random.Generator) -> Encoded:
    """Replace each token, with probability ``rate``, by one drawn uniformly from ``vocab``.

    Tokens of the text and of the template are replaced; start, end and padding tokens, the mask at the answer
    position and placeholders are not (``encoded.frozen``). The published code replaces the mask too, and with
    it the question itself; this does not.

    Args:
        rate: probability of replacement r_p, in [0, 1].
        vocab: ids to draw from, from ``text_ids``.
        rng: source of the randomness; two random arrays of the length of the example are drawn from it.

    Returns:
        The example with other ids and all else equal.

    Raises:
        UserError: a rate outside [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise UserError(f"perturbation rate {rate} is no probability; choose one from 0 to 1")
    chosen = rng.random(encoded.ids.size) < rate
    drawn = vocab[rng.integers(len(vocab), size=encoded.ids.size)]
    return replace(encoded, ids=np.where(chosen & ~encoded.frozen, drawn, encoded.ids))
