"""Classes of several words: their score is the mean of their words' logits, with every way of asking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from flaretune.config.options import as_dict, build
from flaretune.errors import UserError
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.models.label_head import at_answers
from flaretune.models.lora import TuneSettings
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import open_prompted_model
from flaretune.models.tuned import open_tuned_model
from flaretune.models.verbalizer import label_word_ids, word_classes
from tests.tasks_for_tests import review_task
from tests.tokenizers_for_tests import bert_like, gpt2_like, roberta_like

WORDS = [[" bad", " terrible", " dull"], " great"]
SEVERAL = review_task(
    masked={"template": "{sentence} . It was {mask} .", "label_words": WORDS},
    causal={"template": "{sentence} It was", "label_words": WORDS},
)
TEXTS = ["a moving and funny film", "nothing happens", "a bright cast and a warm , honest story"]
SETTINGS = PromptSettings(2, 4, "cat", "prefix", "zeros", 1.0, 1.0, 3, 0)
CLASSES = {"roberta": AutoModelForMaskedLM, "gpt2": AutoModelForCausalLM, "gemma2": AutoModelForCausalLM}


def mean_logits(folder: str, family: str) -> np.ndarray:
    """By the whole model, text by text: the mean over each class's words at the answer position, (N, 2)."""
    model = CLASSES[family].from_pretrained(folder).eval()
    prompted = open_prompted_model(SEVERAL, str(folder), SETTINGS, dtype="float32", device="cpu")
    tokenizer = prompted.pretrained.tokenizer
    bad = [tokenizer(f"a{word}", add_special_tokens=False)["input_ids"][-1] for word in WORDS[0]]
    great = tokenizer("a great", add_special_tokens=False)["input_ids"][-1]
    found = []
    for text in TEXTS:
        behind = f" . It was{tokenizer.mask_token} ." if family == "roberta" else " It was"
        ids = tokenizer(text + behind, return_tensors="pt")["input_ids"]
        where = ids[0].tolist().index(tokenizer.mask_token_id) if family == "roberta" else -1
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, where].double().numpy()
        found.append([logits[bad].mean(), logits[great]])
    return np.array(found)


@pytest.mark.parametrize("family", CLASSES)
def test_a_black_box_answers_with_the_mean_of_a_class_s_words(tiny, family):
    folder = tiny(family)
    prompted = open_prompted_model(SEVERAL, str(folder), SETTINGS, dtype="float32", device="cpu")
    texts = prompted.plain_black_box.register([prompted.plain_encoder.encode({"sentence": t}) for t in TEXTS])
    logits = prompted.plain_black_box.label_logits(np.zeros((1, 1)), texts)[0]
    np.testing.assert_allclose(logits, mean_logits(folder, family), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_so_does_a_model_that_is_trained(tiny, family, tuning):
    folder = tiny(family)
    settings = build(TuneSettings, as_dict(LPFLConfig(tuning=tuning, soft_labels="off")))
    model = open_tuned_model(SEVERAL, str(folder), settings, dtype="float32", device="cpu").label_model
    encoded = model.encode([{"sentence": text} for text in TEXTS])
    np.testing.assert_allclose(model.predict_logits(encoded), mean_logits(folder, family), rtol=0, atol=1e-5)
    logits = model.logits(encoded)
    assert logits.shape == (3, 2)
    assert logits.requires_grad


def test_single_words_are_picked_and_not_computed_with():
    logits = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    answers = torch.tensor([0, 3, 2])
    assert torch.equal(at_answers(logits, answers), logits[torch.arange(3), answers])
    assert word_classes(review_task().masked) is None


def test_ids_and_classes_of_words():
    tokenizer = gpt2_like()
    ids = label_word_ids(tokenizer, SEVERAL, "causal")
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == ["Ġbad", "Ġterrible", "Ġdull", "Ġgreat"]
    assert word_classes(SEVERAL.causal).tolist() == [0, 0, 0, 1]
    assert SEVERAL.causal.names == ("bad/terrible/dull", "great")


def test_words_of_two_classes_may_not_be_one_token():
    spec = review_task(masked={"template": "{sentence} {mask} .", "label_words": [["bad", "great"], "Great"]})
    with pytest.raises(UserError, match="'great' and 'Great' of task 'reviews' are the same token 'great'"):
        label_word_ids(bert_like(), spec, "masked")


def test_the_first_token_may_stand_for_a_word_where_the_task_says_so():
    words = ["heartwarming", "great"]
    template = "{sentence} . It was {mask} ."
    tokenizer = roberta_like()
    pieces = tokenizer("heartwarming", add_special_tokens=False)["input_ids"]
    assert len(pieces) > 1
    spec = review_task(masked={"template": template, "label_words": words, "first_token": True})
    assert label_word_ids(tokenizer, spec, "masked").tolist() == [pieces[0], tokenizer.convert_tokens_to_ids("great")]
    with pytest.raises(UserError, match="'heartwarming' of task 'reviews' is not one token"):
        label_word_ids(tokenizer, review_task(masked={"template": template, "label_words": words}), "masked")
