"""The self-check of models without a soft prompt: those that are trained, and those asked for words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from flaretune.data.encode import Encoded
from flaretune.errors import UserError
from flaretune.models.label_model import LabelModel
from flaretune.models.load import Pretrained
from flaretune.models.lora import LoraParameters
from flaretune.models.lower_layers import LowerLayers
from flaretune.models.probe import own_logits, plain_texts
from flaretune.models.rounding import (
    BESIDE_OTHERS,
    MOVED,
    NOT_CAUSAL,
    NOT_FINITE,
    OWN_CODE,
    SAME_FOR_ALL,
    same,
    verdict,
)

log = logging.getLogger(__name__)

ADAPTER = "its adapter"
NOT_KEPT = "keeps no hidden states of short texts: a larger --cache_mb may help"
ANOTHER = "use another model"
LAYERS = "name the layers to adapt by --target_modules, or use another model"
ADVICE = {BESIDE_OTHERS: "use --batch_size 1, or another model"}  # of other faults: ANOTHER

Logits = Callable[[Sequence[Encoded]], torch.Tensor]  # B texts -> (B, W)


def check_words(pretrained: Pretrained, log_probs: Logits, together: bool) -> None:
    """Compare log-probabilities of words with those that the model's own forward code gives.

    Args:
        pretrained: the model, its head as it was loaded.
        log_probs: what is checked, of the whole vocabulary.
        together: whether texts of different length will share a forward pass.

    Raises:
        UserError: they differ; says what works.
    """

    def compare() -> str | None:
        texts = plain_texts(pretrained)
        own = torch.log_softmax(own_logits(pretrained, texts, None), dim=-1)
        fault = _fault(log_probs, texts, own, together, pretrained.dtype)
        if fault is not None:
            nothing_behind = torch.log_softmax(own_logits(pretrained, texts, None, behind=False), dim=-1)
            if not same(nothing_behind, own, own[0] - own[1], pretrained.dtype):
                return NOT_CAUSAL
        return fault

    _refuse(pretrained, compare)


def check_tuned(
    pretrained: Pretrained, label_model: LabelModel, adapter: LoraParameters | None, dtype: str, together: bool
) -> None:
    """Compare label-word logits of a model made ready to train, and see whether what is loaded into it arrives.

    Args:
        pretrained: the model, its head as it is trained.
        label_model: the model as it begins; it has counted nothing afterwards.
        adapter: its adapter, whose arrays are loaded and read back; None where every parameter is trained.
        together: whether texts of different length will share a forward pass.

    Raises:
        UserError: logits differ, or arrays of an adapter do not arrive; says what works.
    """

    def logits(examples: Sequence[Encoded]) -> torch.Tensor:
        with torch.inference_mode():
            return label_model.logits(examples)

    def compare() -> str | None:
        texts = plain_texts(pretrained)
        own = own_logits(pretrained, texts, label_model.classes, behind=False)  # one that sees both ways can be trained
        computed_in = dtype if adapter is None else pretrained.dtype
        fault = _fault(logits, texts, own, together, computed_in)
        if fault is None and adapter is not None:
            fault = _adapter_fault(adapter, own, lambda: logits(texts[:1])[0], computed_in)
        return fault

    with _evaluating(label_model.model):
        _refuse(pretrained, compare)
    label_model.example_forwards = 0


def check_lower_layers(pretrained: Pretrained, label_model: LabelModel, lower: LowerLayers) -> None:
    """Compare logits of texts that enter a model above its lower layers with those of texts that go through all.

    Args:
        label_model: what is made of it; has counted nothing afterwards.
        lower: its lower layers, which know no text afterwards, and keep none from then on where logits differ; that is
            said in a line of the log.
    """

    def compare() -> tuple[str | None, None]:
        texts = plain_texts(pretrained)
        lower.forget()
        with torch.inference_mode():
            whole = label_model.logits(texts)
            is_kept = lower.know(texts)  # or the second pass would be the first once more
            entered = label_model.logits(texts)
        lower.forget()
        if not is_kept:
            return NOT_KEPT, None
        return None if same(entered, whole, whole[0] - whole[1], pretrained.dtype) else OWN_CODE, None

    with _evaluating(label_model.model):
        fault, _ = verdict(pretrained, compare)
    if fault is not None:
        lower.keep_states = False
        log.warning(
            "--first_layer: texts cannot enter %s in the middle, all of its layers are computed every time (it %s)",
            *(type(pretrained.model).__name__, fault),
        )
    label_model.example_forwards = 0


def _refuse(pretrained: Pretrained, compare: Callable[[], str | None]) -> None:
    fault, _ = verdict(pretrained, lambda: (compare(), None))
    if fault is not None:
        name = f"--model_name {pretrained.name}: {type(pretrained.model).__name__}"
        raise UserError(f"{name} {fault}; {LAYERS if ADAPTER in fault else ADVICE.get(fault, ANOTHER)}")


def _fault(logits: Logits, texts: Sequence[Encoded], own: torch.Tensor, together: bool, dtype: str) -> str | None:
    """What is wrong, to follow the name of the model's class; None where nothing is."""
    apart = own[0] - own[1]
    found = logits(texts) if together else torch.cat([logits([text]) for text in texts])
    if not (torch.isfinite(own).all() and torch.isfinite(found).all()):
        return NOT_FINITE
    if same(found[0], found[1], apart, dtype, MOVED):
        return SAME_FOR_ALL
    if same(found, own, apart, dtype):
        return None
    if same(torch.cat([logits([text]) for text in texts]), own, apart, dtype):
        return BESIDE_OTHERS
    return OWN_CODE


def _adapter_fault(
    parameters: LoraParameters, own: torch.Tensor, logits: Callable[[], torch.Tensor], dtype: str
) -> str | None:
    """Load drawn arrays into an adapter, as a client does with what it is sent, and read them back."""
    before, untouched, rng = parameters.arrays(), logits(), np.random.RandomState(2)
    drawn = {name: rng.standard_normal(shape).astype(np.float32) / 8 for name, shape in parameters.shapes().items()}
    parameters.load(drawn)
    try:
        lost = [name for name, values in parameters.arrays().items() if not np.array_equal(values, drawn[name])]
        if lost:
            return f"does not take up {len(lost)} of the {len(drawn)} arrays of {ADAPTER} that are averaged ({lost[0]})"
        if same(logits(), untouched, own[0] - own[1], dtype, MOVED):
            return f"gives the same logits whatever {ADAPTER}"
    finally:
        parameters.load(before)
    return None


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Within it, nothing is left out by dropout; modules get back what they were in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
