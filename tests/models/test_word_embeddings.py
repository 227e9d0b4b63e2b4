"""Word embeddings read from a checkpoint alone are those that the whole model has; test_load_multimodal.py has more."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from flaretune.errors import UserError
from flaretune.models.load import load_outline, load_pretrained
from flaretune.models.prompted import embed, embedding_std
from flaretune.models.word_embeddings import read_word_embeddings

IDS = torch.tensor([[5, 6], [9, 5]])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "gpt2", "falcon", "opt", "roberta"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_those_of_the_model_in_the_same_number_format(tiny, family, dtype):
    whole, outline = load_pretrained(str(tiny(family)), dtype, "cpu").model, load_outline(str(tiny(family)))
    embeddings = read_word_embeddings(outline)
    embeddings.dtype = getattr(torch, dtype)
    assert torch.equal(embed(outline.model, IDS), embed(whole, IDS))
    assert embed(outline.model, IDS).dtype == getattr(torch, dtype)
    assert embedding_std(outline.model) == pytest.approx(embedding_std(whole), rel=1e-6)


def test_nothing_else_is_read(tiny, tmp_path):
    """The rest of the checkpoint may even be missing."""
    folder = copy_of(tiny("gemma3"), tmp_path, lambda weights: only_embeddings(weights))
    outline = load_outline(str(folder))
    rows = read_word_embeddings(outline)(IDS)
    assert torch.equal(rows, embed(load_pretrained(str(tiny("gemma3")), "float32", "cpu").model, IDS))
    meta = [name for name, weight in outline.model.named_parameters() if not weight.is_meta]
    assert meta == ["model.embed_tokens.weight"]


def test_a_table_under_the_name_of_the_output_embedding_it_is_tied_to(tiny, tmp_path):
    folder = copy_of(
        tiny("gemma3"),
        tmp_path,
        lambda weights: {"lm_head.weight": only_embeddings(weights)["model.embed_tokens.weight"]},
    )
    assert torch.equal(
        read_word_embeddings(load_outline(str(folder)))(IDS),
        read_word_embeddings(load_outline(str(tiny("gemma3"))))(IDS),
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: {"other": table}, "its checkpoint has no tensor model.embed_tokens.weight"),
        (lambda table: {"model.embed_tokens.weight": table[:, :16]}, r"are torch.float32 of shape \(\d+, 16\)"),
        (lambda table: {"model.embed_tokens.weight": table.to(torch.int8)}, "are torch.int8 of shape"),
    ],
)
def test_another_table_than_the_configuration_says_is_refused(tiny, tmp_path, change, sentence):
    folder = copy_of(
        tiny("gemma3"), tmp_path, lambda weights: change(only_embeddings(weights)["model.embed_tokens.weight"])
    )
    with pytest.raises(UserError, match=sentence):
        read_word_embeddings(load_outline(str(folder)))


def test_a_file_that_is_missing_or_damaged_is_refused(tiny, tmp_path):
    folder = copy_of(tiny("gemma3"), tmp_path, only_embeddings)
    (folder / "model.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="its word embeddings could not be read"):
        read_word_embeddings(load_outline(str(folder)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="its word embeddings could not be read"):
        read_word_embeddings(load_outline(str(folder)))


def copy_of(source, folder, change):
    """A checkpoint with other weights."""
    for file in source.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_text(json.dumps(json.loads(file.read_text())))
    weights = change(load_file(source / "model.safetensors"))
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def only_embeddings(weights):
    return {name: weight for name, weight in weights.items() if "embed_tokens" in name}
