"""What is loaded of a model's folder, the device it is put on, and the longest sequence it takes."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file

from flaretune.errors import UserError
from flaretune.models.device import resolve_device, resolve_dtype
from flaretune.models.load import load_pretrained
from tests.models_for_tests import FAMILIES

MASKED = {"roberta", "bert", "distilbert", "albert", "modernbert"}


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_the_checkpoints(tiny, family):
    loaded = load_pretrained(str(tiny(family)), "float32", "cpu")
    saved = load_file(tiny(family) / "model.safetensors")
    state = loaded.model.state_dict()
    assert len(saved) > 10
    for name, tensor in saved.items():
        assert torch.equal(state[name], tensor), name
    # and what the file leaves out is tied to what it holds
    pointers = {state[name].data_ptr() for name in saved}
    untied = [name for name, value in loaded.model.named_parameters() if value.data_ptr() not in pointers]
    assert untied == []
    assert loaded.kind == ("masked" if family in MASKED else "causal")


def test_it_is_frozen_and_in_evaluation_mode(tiny):
    loaded = load_pretrained(str(tiny("roberta")), "float32", "cpu")
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.device == torch.device("cpu")
    assert loaded.name == str(tiny("roberta"))


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_dtype(tiny, dtype, expected):
    loaded = load_pretrained(str(tiny("gemma3")), dtype, "cpu")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {expected}
    saved = load_file(tiny("gemma3") / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(loaded.model.state_dict()[name], saved[name].to(expected))


def test_its_number_format_is_told_by_the_name_that_the_option_has(tiny):
    found = {dtype: load_pretrained(str(tiny("roberta")), dtype, "cpu").dtype for dtype in ("bfloat16", "float32")}
    assert found == {"bfloat16": "bfloat16", "float32": "float32"}
    here = resolve_dtype("auto", torch.device("cpu"))
    assert load_pretrained(str(tiny("roberta")), device="cpu").dtype == here in found


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False}, "float32"),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_vnni": True}, "float32"),
        ({"architecture": "x86_64", "avx512_bf16": True}, "bfloat16"),
        ({"architecture": "aarch64", "bf16": True}, "float32"),  # not measured
    ],
)
def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    cpu = torch.device("cpu")
    assert resolve_dtype("auto", cpu) == expected
    assert [resolve_dtype(dtype, cpu) for dtype in ("bfloat16", "float32")] == ["bfloat16", "float32"]


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_a_gpu_computes_in_bfloat16_where_it_does_so_without_emulation(monkeypatch, capability, expected):
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    assert resolve_dtype("auto", torch.device("cuda:1")) == expected
    assert asked == [torch.device("cuda:1")]


def test_a_model_that_does_not_fit_into_a_gpu_says_so(tiny, monkeypatch):
    def no_memory(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    folder = str(tiny("roberta"))
    monkeypatch.setattr(torch.nn.Module, "to", no_memory)
    with pytest.raises(UserError, match=r"does not fit into what is free of the memory of cpu; .* --share_model 1"):
        load_pretrained(folder, "float32", "cpu")


def test_several_devices_compute_in_what_all_of_them_can(monkeypatch):
    monkeypatch.setattr("flaretune.models.device._computes_in_bfloat16", lambda device: device.index == 0)
    new, old = torch.device("cuda", 0), torch.device("cuda", 1)
    assert [resolve_dtype("auto", *devices) for devices in ([new], [new, new], [new, old], [old])] == [
        "bfloat16", "bfloat16", "float32", "float32",
    ]  # fmt: skip


def test_a_folder_under_the_home_directory(checkpoint, monkeypatch):
    folder = checkpoint("gpt2")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_pretrained("~/gpt2", "float32", "cpu").kind == "causal"


def test_an_untied_head_is_loaded(tiny):
    folder = tiny("gpt2", tie_word_embeddings=False)
    loaded = load_pretrained(str(folder), "float32", "cpu").model
    assert torch.equal(loaded.lm_head.weight, load_file(folder / "model.safetensors")["lm_head.weight"])
    assert not torch.equal(loaded.lm_head.weight, loaded.transformer.wte.weight)


def test_transformers_speaks_as_before(tiny):
    before = transformers.logging.get_verbosity()
    try:
        transformers.logging.set_verbosity_info()
        load_pretrained(str(tiny("gpt2")), "float32", "cpu")
        with pytest.raises(UserError):
            load_pretrained(str(tiny("gpt2").parent), "float32", "cpu")
        assert transformers.logging.get_verbosity() == transformers.logging.INFO
    finally:
        transformers.logging.set_verbosity(before)


@pytest.mark.parametrize("are_shown", [True, False])
def test_transformers_shows_its_bars_as_before(tiny, are_shown):
    folder, logging = str(tiny("gpt2")), transformers.logging
    before = logging.is_progress_bar_enabled()
    try:
        (logging.enable_progress_bar if are_shown else logging.disable_progress_bar)()
        load_pretrained(folder, "float32", "cpu")
        assert logging.is_progress_bar_enabled() == are_shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


# ---- devices ----


@pytest.mark.parametrize("device", ["tpu", "", "cuda:x", "cuda:-1", "CPU", "cpu:3", "mps", "meta", "cuda:", "cuda:1 "])
def test_no_device(device):
    with pytest.raises(UserError) as caught:
        resolve_device(device)
    assert str(caught.value) == f"--device {device!r}: must be auto, cpu, cuda, cuda:N or auto_map"


@pytest.mark.parametrize(
    ("count", "device", "there"),
    [
        (0, "cuda", "no CUDA device"),
        (0, "cuda:7", "no CUDA device"),
        (1, "cuda:1", "cuda:0 only"),
        (2, "cuda:7", "cuda:0 to cuda:1"),
    ],
)
def test_an_absent_device(monkeypatch, count, device, there):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError) as caught:
        resolve_device(device)
    assert str(caught.value) == f"--device {device}: this machine has {there}; use one that is there, cpu or auto"


@pytest.mark.parametrize(
    ("count", "device", "expected"),
    [(0, "cpu", "cpu"), (0, "auto", "cpu"), (2, "auto", "cuda"), (2, "cuda", "cuda"), (2, "cuda:1", "cuda:1")],
)
def test_a_device_that_is_there(monkeypatch, count, device, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    assert resolve_device(device) == torch.device(expected)


def test_the_device_is_looked_for_before_the_model(tmp_path):
    with pytest.raises(UserError, match=r"--device 'tpu'"):
        load_pretrained(str(tmp_path / "absent"), "float32", "tpu")


# ---- the longest sequence ----


@pytest.mark.parametrize(
    ("family", "config", "tokenizer_limit", "expected"),
    [
        ("roberta", {"max_position_embeddings": 514}, 1000, 512),  # the first two rows of its table are not used
        ("roberta", {"max_position_embeddings": 514}, 300, 300),
        ("roberta", {"max_position_embeddings": 514}, 10**30, 512),
        ("bert", {"max_position_embeddings": 512}, 10**30, 512),
        ("distilbert", {"max_position_embeddings": 512}, 10**30, 512),
        ("gpt2", {"n_positions": 1024}, 10**30, 1024),
        ("llama", {"max_position_embeddings": 200}, 10**30, 200),
        ("gemma3", {"max_position_embeddings": 200}, 64, 64),
    ],
)
def test_max_length(tiny, monkeypatch, family, config, tokenizer_limit, expected):
    loaded = load_pretrained(str(tiny(family, **config)), "float32", "cpu")
    monkeypatch.setattr(loaded.tokenizer, "model_max_length", tokenizer_limit)
    assert loaded.max_length == expected
    assert isinstance(loaded.max_length, int)


@pytest.mark.parametrize("family", ["roberta", "bert", "gpt2"])
def test_a_sequence_of_max_length_goes_through_and_a_longer_one_does_not(tiny, family):
    loaded = load_pretrained(str(tiny(family)), "float32", "cpu")
    with torch.no_grad():
        loaded.model(input_ids=torch.full((1, loaded.max_length), 20))
        with pytest.raises((IndexError, RuntimeError)):
            loaded.model(input_ids=torch.full((1, loaded.max_length + 1), 20))


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GemmaTokenizer"])
def test_what_a_tokenizer_was_made_from_does_not_stay_in_memory(checkpoint, name):
    folder = checkpoint("gpt2")
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"abcdefgh", "▁", "Ġ", "ab", "abc"]
    made = getattr(transformers, name)(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("a", "b"), ("ab", "c")], unk_token="<unk>"
    )
    made.save_pretrained(folder)
    as_usual = transformers.AutoTokenizer.from_pretrained(folder)
    loaded = load_pretrained(str(folder), "float32", "cpu").tokenizer
    assert loaded("abcab fee")["input_ids"] == as_usual("abcab fee")["input_ids"] != []
    assert loaded.get_vocab() == as_usual.get_vocab()
    large = [key for key, value in vars(as_usual).items() if isinstance(value, dict) and len(value) >= len(pieces)]
    assert large  # or transformers holds them no more
    assert [key for key in large if key in vars(loaded)] == []
