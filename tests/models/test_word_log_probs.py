"""Log-probabilities of words beside those of the transformers library, one text at a time and without padding."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from flaretune.data.encode import Encoder
from flaretune.models.load import load_pretrained
from flaretune.models.word_log_probs import WordLogProbs, with_template
from tests.models_for_tests import FAMILIES
from tests.tasks_for_tests import review_task

TEXTS = [
    {"sentence": s}
    for s in ("a moving and funny film", "dull", "the plot is slow and far too long , what a mess", "a bad day")
]
TEMPLATES = {
    "masked": ("{sentence} . It was {mask} .", "{mask} : {sentence}"),
    "causal": ("{sentence} It was", "a story : {sentence} It was a"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_those_of_the_model_whatever_else_is_in_the_batch(family, tiny):
    folder = tiny(family)
    pretrained, spec = load_pretrained(str(folder), "float32", "cpu"), review_task()
    kind = pretrained.kind
    before = {name: p.clone() for name, p in pretrained.model.named_parameters()}
    ids = np.array([20, 5, 11])
    asks = WordLogProbs(pretrained, spec, TEMPLATES[kind], batch_size=3)
    found = asks(TEXTS, ids)
    assert (found.dtype, found.shape) == (np.float32, (4, 2, 3))
    assert asks.example_forwards == 8

    auto = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
    plain = auto.from_pretrained(folder, dtype=torch.float32).eval()
    mode = "cat" if kind == "masked" else "prefix"
    for t, template in enumerate(TEMPLATES[kind]):
        encoder = Encoder(
            pretrained.tokenizer, with_template(spec, kind, template), kind, mode, 0, pretrained.max_length
        )
        for i, text in enumerate(TEXTS):
            encoded = encoder.encode(text)
            with torch.no_grad():
                logits = plain(input_ids=torch.from_numpy(encoded.ids)[None]).logits[0, encoded.answer]
            np.testing.assert_allclose(found[i, t], logits.log_softmax(-1)[ids].numpy(), atol=2e-5)
    assert all(torch.equal(p, before[name]) for name, p in pretrained.model.named_parameters())
