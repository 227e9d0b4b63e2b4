"""Whether a model computes what is meant: short texts are put through it in ways that must give the same logits.

What a family of models does with embeddings in place of token ids, with padding, positions and caches stands nowhere
that a program could read. So it is tried when a model is loaded, and what differs is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary

from flaretune.data.encode import MODES, PLAIN
from flaretune.errors import UserError
from flaretune.models.causal import CausalLM
from flaretune.models.in_float32 import in_float32
from flaretune.models.load import Pretrained, reason
from flaretune.models.masked import MaskedLM
from flaretune.models.probe import make_probe, own_logits, token_ids
from flaretune.models.rounding import (
    AS_PROMPT,
    BESIDE_OTHERS,
    MOVED,
    NOT_CAUSAL,
    NOT_FINITE,
    NOT_THE_MODELS,
    OWN_CODE,
    SAME_FOR_ALL,
    same,
    verdict,
)
from flaretune.models.text_cache import TextCache

log = logging.getLogger(__name__)

FLAGS = {"masked": "--cat_or_add", "causal": "--prompt_position"}

Make = Callable[[torch.nn.Module, str, bool], MaskedLM | CausalLM]  # model, mode, `last_layer_at_answers`
_remembered = WeakIdKeyDictionary()  # by the word embeddings, which copies of a model share


def check_prompted(
    pretrained: Pretrained, make: Make, mode: str, classes: np.ndarray | None, *, cached: bool, together: bool
) -> tuple[MaskedLM | CausalLM, MaskedLM | CausalLM, bool]:
    """Find a way to compute label-word logits with a prompt that is right for this model.

    Args:
        pretrained: the model, its head narrowed to the label words.
        classes: the class of each label word, see `at_answers`.
        together: whether texts of different length will share a forward pass.

    Returns:
        A model with a prompt, the same without one, and whether cached texts may be used.

    Raises:
        UserError: there is none; says what is wrong, and what works in its place.
    """
    model = pretrained.model
    known = _remembered.setdefault(model.get_input_embeddings().weight, {})
    key = (type(model), mode, classes is None, cached, together)
    if key not in known:
        known[key] = _find_out(pretrained, make, mode, classes, cached, together)
    at_answers_only, may_cache = known[key]
    return make(model, mode, at_answers_only), make(model, PLAIN[pretrained.kind], at_answers_only), may_cache


def _find_out(
    pretrained: Pretrained, make: Make, mode: str, classes: np.ndarray | None, cached: bool, together: bool
) -> tuple[bool, bool]:
    """Whether the last layer may be computed at the answers alone, and whether cached texts may be used."""
    kind, model = pretrained.kind, pretrained.model
    for at_answers_only in (True, False):
        fault, may_cache = _Trial(pretrained, make, mode, at_answers_only, classes, together).outcome(cached)
        if fault is None:
            return at_answers_only, may_cache

    def works(in_mode: str, batched: bool) -> bool:
        return _Trial(pretrained, make, in_mode, False, classes, batched).outcome(False)[0] is None

    advice = [f"{FLAGS[kind]} {other}" for other in MODES[kind] if other != mode and works(other, together)]
    if together and works(mode, False):
        advice.append("--batch_size 1")
    with in_float32(model, token_ids(pretrained)) as changed:
        if changed and works(mode, together):
            advice.append("--dtype float32")
    name = f"--model_name {pretrained.name}: {type(model).__name__}"
    raise UserError(f"{name} {fault} (mode {mode!r}); use {' or '.join([*advice, 'another model'])}")


class _Trial:
    """One mode and one way of computing, tried: texts alone and together, with prompts and without."""

    def __init__(
        self,
        pretrained: Pretrained,
        make: Make,
        mode: str,
        at_answers_only: bool,
        classes: np.ndarray | None,
        together: bool,
    ):
        self._pretrained, self._mode, self._classes, self._together = pretrained, mode, classes, together
        self._lm_of = lambda of_mode: make(pretrained.model, of_mode, at_answers_only)

    def outcome(self, cached: bool) -> tuple[str | None, bool]:
        """What is wrong, to follow the name of the model's class, or None; and whether cached texts may be used."""

        def compare() -> tuple[str | None, bool]:
            fault = self._compare()
            return fault, fault is None and cached and self._cache_is_right()

        fault, may_cache = verdict(self._pretrained, compare)
        return fault, bool(may_cache)

    def _compare(self) -> str | None:
        self._lm = self._lm_of(self._mode)
        self._probe = probe = make_probe(self._pretrained, self._mode, self._classes)
        own, given = probe.own, probe.prompt
        noise = torch.from_numpy(np.random.RandomState(1).standard_normal(given.shape)).to(given) * given.std()
        self._prompts = torch.stack([torch.zeros_like(given), given, noise])  # (3, n, D)
        self._found = found = self._all_logits(self._logits)  # (3, 2, C)
        self._apart = found - found.mean(dim=(0, 1))
        if not (torch.isfinite(own).all() and torch.isfinite(found).all()):
            return NOT_FINITE
        if self._same(own[0], own[1], MOVED) or self._same(found[:, 0], found[:, 1], MOVED):
            return SAME_FOR_ALL
        if self._same(found[0], found[2], MOVED):
            return "gives the same logits whatever the prompt"
        if not self._same(found[1], own):
            if not self._same(own_logits(self._pretrained, probe.whole, self._classes, behind=False), own):
                return NOT_CAUSAL
            alone = torch.cat([self._logits([i]) for i in (0, 1)], dim=1)  # (3, 2, C)
            if self._same(alone[1], own):
                return BESIDE_OTHERS
            if not self._is_right_with_ids():
                return AS_PROMPT
            if not self._same(alone, found):
                return BESIDE_OTHERS
        if self._mode != "prefix":  # there it is the same computation as with the tokens as the prompt
            plain_lm, nothing = self._lm_of(PLAIN[self._pretrained.kind]), given.new_zeros(1, 0, given.shape[1])
            plain = self._all_logits(lambda which: plain_lm.label_logits(nothing, [probe.whole[i] for i in which]))
            if not self._same(plain[0], own):
                return OWN_CODE
        return None

    def _is_right_with_ids(self) -> bool:
        """Whether tokens as the prompt are these tokens if the model gets their ids, and not padding's, in its place.

        So it is of models with embeddings for each layer, which a prompt has none of.
        """
        ids = self._probe.prompt_ids
        if ids is None:
            return False
        return self._same(self._all_logits(lambda which: self._logits(which, prompt_ids=ids))[1], self._probe.own)

    def _cache_is_right(self) -> bool:
        """Whether cached texts give the logits that were found without; says so in the log where they do not."""
        try:
            why = None
            for which in ([0, 1], [1]) if self._together else ([0], [1]):
                text = self._lm.cache_text([self._probe.examples[i] for i in which])
                if not self._same(self._logits(which, text), self._found[:, which]):
                    why = "other logits come out with it"
        except NOT_THE_MODELS:
            raise
        except Exception as error:  # whatever it stumbles over
            why = reason(error)
        if why is not None:
            log.warning(
                "--model_name %s: %s cannot be used with cached texts (%s): every text is computed for every prompt, "
                "as with --cache_mb 0",
                *(self._pretrained.name, type(self._pretrained.model).__name__, why),
            )
        return why is None

    def _same(self, some: torch.Tensor, others: torch.Tensor, part: float = 1.0) -> bool:
        """Whether logits differ by no more than rounding, or a part of that."""
        return same(some, others, self._apart, self._pretrained.dtype, part)

    def _all_logits(self, logits: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
        """Of both texts, in one forward pass where texts will share passes."""
        return logits([0, 1]) if self._together else torch.cat([logits([0]), logits([1])], dim=1)

    def _logits(self, which: list[int], text: TextCache | None = None, **prompt_ids: torch.Tensor) -> torch.Tensor:
        """Of the three prompts with these texts, float32, shape (3, B, C)."""
        with self._probe.in_place(self._pretrained.model, which):
            examples = [self._probe.examples[i] for i in which]
            return self._lm.label_logits(self._prompts, examples, text, **prompt_ids)
