"""Weights in fewer bits: what `--quantize` asks of transformers, and checkpoints that come quantised.

Linear layers are quantised, and computed with in the model's number format (weight-only). Word embeddings and the
output embedding stay as they are: prompts are made of rows of the first, and a word's log-probability of a row of the
second.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

import torch
from transformers import BitsAndBytesConfig, TorchAoConfig

from flaretune.config.model import QUANTIZED
from flaretune.errors import UserError

log = logging.getLogger(__name__)

GROUP = 32  # numbers of a row that share a scale in int4; nf4 has 64
INSTALL = 'pip install "flaretune[quantize]"'
PACKAGE = {"int8": "torchao", "int4": "torchao", "nf4": "bitsandbytes"}

# What transformers 5.24 reads checkpoints with that come quantised, by their `quant_method`; "" where it dequantises
# them on machines without the GPU that their kernels need.
READ_WITH = {
    "aqlm": "aqlm",
    "auto-round": "auto-round",
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "eetq": "kernels",
    "fp8": "",
    "gptq": "gptqmodel and optimum",
    "higgs": "flute-kernel",
    "hqq": "hqq",
    "mxfp4": "",
    "quanto": "optimum-quanto",
    "quark": "amd-quark",
    "spqr": "spqr_quant",
    "torchao": "torchao",
    "vptq": "vptq",
}


def quantization_config(quantize: str, device: torch.device, dtype: str) -> Any:
    """What `from_pretrained` is told.

    Args:
        quantize, dtype: the options of these names, without ``none`` and ``auto``.

    Raises:
        UserError: there is no such way, its package is not installed, or it is not for this device or format.
    """
    if quantize not in PACKAGE:
        raise UserError(f"--quantize {quantize}: must be one of {', '.join(QUANTIZED)}")
    _require(quantize)
    if quantize == "nf4":
        return BitsAndBytesConfig(  # as QLoRA has it, arXiv 2305.14314
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    if quantize == "int4":
        return _int4(device, dtype)
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))  # one scale a row


def _require(quantize: str) -> None:
    package = PACKAGE[quantize]
    if importlib.util.find_spec(package) is None:
        raise UserError(f"--quantize {quantize} needs the package {package}, which is not installed: {INSTALL}")
    try:
        importlib.import_module(package)
    except Exception as error:  # of another torch, or of drivers that are not there
        said = str(error).splitlines()
        raise UserError(
            f"--quantize {quantize}: the package {package} cannot be imported ({said[0] if said else error!r}); "
            f"install the version that goes with this torch: {INSTALL}"
        ) from error


def _int4(device: torch.device, dtype: str) -> Any:
    if device.type == "cuda":
        from torchao.quantization import Int4WeightOnlyConfig

        if dtype != "bfloat16":
            raise UserError(
                f"--quantize int4 --dtype {dtype}: torchao's int4 computes in bfloat16 on a GPU; give --dtype "
                "bfloat16, or --quantize nf4 or int8"
            )
        packed = {"int4_packing_format": "tile_packed_to_4d", "int4_choose_qparams_algorithm": "hqq"}
        return TorchAoConfig(Int4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False, **packed))
    from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig

    if dtype != "bfloat16" or not torch.cpu.get_capabilities().get("avx512_f", False):
        log.warning(
            "--quantize int4: on CPUs torchao's int4 is written for bfloat16 with AVX-512; without either it took some "
            "60 times as long as --quantize nf4, which has 4 bits too"
        )
    return TorchAoConfig(PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False))


def check_quantized(name: str, model: torch.nn.Module, quantize: str) -> None:
    """See that linear layers are quantised and embeddings are not; says in the log which share of them is.

    Raises:
        UserError: none is, or an embedding is.
    """
    heads = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    if any(is_quantized(getattr(module, "weight", None)) for module in heads):
        raise UserError(
            f"--model_name {name} --quantize {quantize}: the word embeddings of {type(model).__name__} would be "
            "quantised, which prompts and label words are rows of; leave it out"
        )
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module not in heads]
    done = [module for module in linear if is_quantized(module.weight)]
    if not done:
        raise UserError(
            f"--model_name {name} --quantize {quantize}: {type(model).__name__} has no linear layer that can be "
            "quantised so; use another value, or leave it out"
        )
    log.info("--quantize %s: %d of %d linear layers", quantize, len(done), len(linear))


def compute_as_asked(model: torch.nn.Module) -> None:
    """Keep bitsandbytes' 4-bit layers in the number format that was asked for, and trainable.

    On CPUs with bfloat16 instructions (AVX512-BF16) they pack their weights for good when they are first evaluated, and
    compute in bfloat16 from then on, whatever the format, by a kernel without gradients: adapters in the layers below
    get none, and all that is said is torch's warning of such kernels in general (bitsandbytes 0.50.2).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_quantized(weight: torch.Tensor | None) -> bool:
    """Whether a weight is one of torchao's or of bitsandbytes."""
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(weight).__mro__}
    return ("bitsandbytes", "Params4bit") in kinds or ("torchao", "TorchAOBaseTensor") in kinds


def advice_for(comes: Mapping[str, Any] | None) -> str:
    """What to do where a checkpoint that comes quantised cannot be read, else ""."""
    if not comes:
        return ""
    method = comes.get("quant_method")
    package = READ_WITH.get(method, "") if isinstance(method, str) else ""
    wanted = f"it wants the package {package}" if package else "install what that needs"
    return f"it is quantised ({method}): {wanted}, or use the model as it was before"
