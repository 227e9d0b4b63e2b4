"""`--device auto_map`: a model whose layers wait on disk gives the numbers of one that is not split."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flaretune.errors import UserError
from flaretune.models.lanes import share_weights
from flaretune.models.load import Pretrained, load_pretrained
from flaretune.models.prompted import embed, embedding_std, prompt_model
from flaretune.models.split import is_split
from flaretune.models.tuned import open_tuned_model
from flaretune.models.word_log_probs import WordLogProbs
from flaretune.tasks.spec import load_task
from tests.models.small_settings import prompt_settings, tune_settings

SPEC = load_task("sst2")
TEXTS = [{"sentence": "a fine film"}, {"sentence": "a dull and terrible film that goes on and on"}]
FAMILIES = ["roberta", "bert", "llama", "gemma3", "gpt2"]
EXACT = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def both(tiny):
    """A model as it is, and one with as little in memory as goes."""

    def load(family: str, **overrides) -> tuple[Pretrained, Pretrained]:
        folder = str(tiny(family, **overrides))
        whole = load_pretrained(folder, "float32", "cpu")
        split = load_pretrained(folder, "float32", "auto_map", max_memory={"cpu": 60_000})
        assert is_split(split.model)
        assert not is_split(whole.model)
        return whole, split

    return load


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_embeddings_can_be_read(both, family, tied):
    whole, split = both(family, tie_word_embeddings=tied)
    assert embedding_std(split.model) == embedding_std(whole.model)
    ids = torch.tensor([3, 5])
    assert torch.equal(embed(split.model, ids), embed(whole.model, ids))
    heads = [of.model.get_output_embeddings().weight for of in (whole, split)]
    assert torch.equal(*heads)
    assert (heads[1] is split.model.get_input_embeddings().weight) == (
        heads[0] is whole.model.get_input_embeddings().weight
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("position", "mode"), [("prefix", "add"), ("suffix", "cat")])
def test_prompts(both, family, position, mode):
    points = np.random.RandomState(0).standard_normal((3, 10))
    found = []
    for pretrained in both(family):
        prompted = prompt_model(
            share_weights(pretrained), SPEC, prompt_settings(prompt_position=position, cat_or_add=mode), cache_mb=8
        )
        texts = prompted.black_box.register([prompted.encoder.encode(text) for text in TEXTS])
        cached = [cache is not None for cache in texts.caches]
        found.append((prompted.black_box.label_logits(points, texts), cached))
    assert np.allclose(found[1][0], found[0][0], **EXACT)
    assert found[1][1] == found[0][1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_words(both, family, tied):
    found = [
        WordLogProbs(pretrained, SPEC, [SPEC.wording(pretrained.kind).template], 8)(TEXTS, np.arange(40))
        for pretrained in both(family, tie_word_embeddings=tied)
    ]
    assert np.allclose(found[1], found[0], **EXACT)


def test_adapters_are_refused_on_layers_that_wait(both, monkeypatch):
    """PEFT 0.21 puts them where the base weights are: nowhere."""
    _, split = both("llama")
    monkeypatch.setattr("flaretune.models.tuned.load_pretrained", lambda *args: split)
    with pytest.raises(UserError, match="PEFT puts no adapters on layers that wait in memory or on disk"):
        open_tuned_model(SPEC, "model", tune_settings(), dtype="float32", device="auto_map")


def test_a_machine_with_room_does_not_split(tiny):
    assert not is_split(load_pretrained(str(tiny("llama")), "float32", "auto_map").model)


def test_adapters_of_a_model_that_one_device_holds(tiny):
    found = []
    for device in ("cpu", "auto_map"):
        model = open_tuned_model(SPEC, str(tiny("llama")), tune_settings(), dtype="float32", device=device).label_model
        found.append(model.predict_logits(model.encode(TEXTS)))
    assert np.array_equal(*found)
