"""Checkpoints whose weights come quantised: read, or dequantised where the library does that."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flaretune.errors import UserError
from flaretune.methods.verbalizer.open import open_words
from flaretune.models.load import load_pretrained
from flaretune.models.tuned import open_tuned_model
from flaretune.tasks.spec import load_task
from tests.model_types_for_tests import save_model_type
from tests.models.small_settings import tune_settings
from tests.models_for_tests import save_tiny_model

TEXTS = [{"sentence": "a fine film"}, {"sentence": "a dull and terrible film that goes on and on"}]
SIZES = {"hidden_size": 64, "intermediate_size": 128, "std": 0.1}


def needs(package: str):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


def is_linear(name: str) -> bool:
    return name.endswith("_proj.weight")


def write(folder: Path, weights: dict[str, torch.Tensor], quantization: dict | None) -> Path:
    """Put other weights into a checkpoint."""
    save_file({n: w.contiguous() for n, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {} if quantization is None else {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def log_probs(folder: Path, dtype: str = "float32") -> np.ndarray:
    words = open_words(load_task("sst2"), str(folder), dtype, "cpu")
    return words.log_probs(TEXTS, np.arange(words.pretrained.model.config.vocab_size))


def trains(folder: Path) -> None:
    tuned = open_tuned_model(load_task("sst2"), str(folder), tune_settings(), dtype="float32", device="cpu")
    logits = tuned.label_model.logits(tuned.label_model.encode(TEXTS))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    gradients = [p.grad for p in tuned.parameters.trained() if p.grad is not None]
    assert any(g.abs().max() > 0 for g in gradients)


def test_fp8_is_dequantised_on_a_cpu(tmp_path):
    folder, plain = (save_tiny_model("llama", tmp_path / name, **SIZES) for name in ("fp8", "plain"))
    weights, exact = load_file(folder / "model.safetensors"), load_file(plain / "model.safetensors")
    for name in [name for name in weights if is_linear(name)]:
        rows, columns = (size // 32 for size in weights[name].shape)
        blocks = weights[name].view(rows, 32, columns, 32)
        scale = blocks.abs().amax(dim=(1, 3)) / 448  # the largest number of the format
        packed = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        exact[name] = (packed.float() * scale[:, None, :, None]).view_as(weights[name])
        weights[name] = packed.view_as(weights[name])
        weights[f"{name}_scale_inv"] = scale
    how = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}
    write(folder, weights, {**how, "modules_to_not_convert": ["lm_head"]})
    write(plain, exact, None)
    assert log_probs(folder) == pytest.approx(log_probs(plain), abs=2e-4)
    trains(folder)


def test_mxfp4_is_dequantised_on_a_cpu(tmp_path):
    """As gpt-oss comes: experts in numbers of 4 bits, 32 of which share a power of two."""
    sizes = {"hidden_size": 64, "intermediate_size": 96}
    folder, plain = (save_model_type("gpt_oss", "causal", tmp_path / n, **sizes) for n in ("mxfp4", "plain"))
    weights, exact = load_file(folder / "model.safetensors"), load_file(plain / "model.safetensors")
    half = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])  # that three bits stand for; the fourth is the sign
    numbers = torch.cat([half, -half])
    for name in [name for name in weights if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        rows = weights.pop(name).transpose(1, 2)  # (experts, outputs, inputs)
        blocks = rows.unflatten(-1, (-1, 32))
        exponents = (blocks.abs().amax(dim=-1, keepdim=True) / 6).log2().ceil()
        codes = (blocks / 2**exponents - numbers[:, None, None, None, None]).abs().argmin(dim=0)
        exact[name] = (numbers[codes] * 2**exponents).flatten(-2).transpose(1, 2)
        weights[f"{name}_blocks"] = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
        weights[f"{name}_scales"] = (exponents[..., 0] + 127).to(torch.uint8)
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    write(folder, weights, {"quant_method": "mxfp4", "modules_to_not_convert": kept})
    write(plain, exact, None)
    assert log_probs(folder) == pytest.approx(log_probs(plain), abs=2e-4)
    trains(folder)


@needs("compressed_tensors")
def test_compressed_tensors(tmp_path):
    folder, plain = (save_tiny_model("llama", tmp_path / name, **SIZES) for name in ("packed", "plain"))
    weights, exact = load_file(folder / "model.safetensors"), load_file(plain / "model.safetensors")
    for name in [name for name in weights if is_linear(name)]:
        scale = weights[name].abs().amax(dim=1, keepdim=True) / 7
        rounded = (weights[name] / scale).round().clamp(-8, 7).to(torch.int64)
        exact[name] = rounded * scale
        shifts = 4 * torch.arange(8)
        eights = (rounded + 8).view(len(rounded), -1, 8)  # a number of 32 bits holds eight, the first lowest
        packed = (eights << shifts).sum(dim=-1)
        del weights[name]
        weights[f"{name}_packed"] = torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
        weights[f"{name}_scale"], weights[f"{name}_shape"] = scale, torch.tensor(rounded.shape)
    group = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "channel"}
    write(
        folder,
        weights,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": group}},
            "ignore": ["lm_head"],
        },
    )
    write(plain, exact, None)
    assert log_probs(folder) == pytest.approx(log_probs(plain), abs=2e-4)
    with pytest.raises(UserError, match="PEFT puts no adapters on layers that come quantised like these"):
        trains(folder)


@pytest.mark.parametrize(
    "quantize", [pytest.param("int8", marks=needs("torchao")), pytest.param("nf4", marks=needs("bitsandbytes"))]
)
def test_what_transformers_saved_quantised(tmp_path, quantize, caplog):
    plain, folder = save_tiny_model("llama", tmp_path / "plain", **SIZES), tmp_path / "quantised"
    loaded = load_pretrained(str(plain), "float32", "cpu", quantize)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    words = open_words(load_task("sst2"), str(plain), "float32", "cpu", quantize=quantize)
    expected = words.log_probs(TEXTS, np.arange(words.pretrained.model.config.vocab_size))
    with caplog.at_level(logging.WARNING, logger="flaretune"):
        assert log_probs(folder) == pytest.approx(expected, abs=1e-5)
    assert not caplog.records
    trains(folder)
    with pytest.raises(UserError, match="the checkpoint comes quantised, and such weights cannot be trained"):
        open_tuned_model(load_task("sst2"), str(folder), tune_settings(tuning="full"), dtype="float32", device="cpu")
