"""What a model is on and computes in: the options --device and --dtype."""

from __future__ import annotations

import re

import torch

from flaretune.config.model import AUTO_MAP
from flaretune.errors import UserError

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def resolve_device(device: str) -> torch.device:
    """``auto`` is cuda when there is one, and ``auto_map`` the first of them; anything else is checked to exist.

    Raises:
        UserError: the device is absent or the text names none.
    """
    if device in ("auto", AUTO_MAP):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = re.fullmatch(r"cpu|cuda(?::(\d+))?", device, re.ASCII)
    if wanted is None:
        raise UserError(f"--device {device!r}: must be auto, cpu, cuda, cuda:N or {AUTO_MAP}")
    if device == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if int(wanted[1] or 0) >= count:
        there = {0: "no CUDA device", 1: "cuda:0 only"}.get(count, f"cuda:0 to cuda:{count - 1}")
        raise UserError(f"--device {device}: this machine has {there}; use one that is there, cpu or auto")
    return torch.device("cuda", int(wanted[1])) if wanted[1] else torch.device("cuda")


def resolve_dtype(dtype: str, *devices: torch.device) -> str:
    """``auto`` is bfloat16 where all devices have instructions for it, and float32 elsewhere.

    A CPU without them multiplies in bfloat16 far more slowly than in float32 (pytorch issue 146508, a comment of
    2026-08-29: 44 to 499 times on one with AVX2 alone). ARM processors have not been measured and count as without.

    Raises:
        UserError: no such number format.
    """
    if dtype == "auto":
        return "bfloat16" if all(_computes_in_bfloat16(device) for device in devices) else "float32"
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: must be one of auto, {', '.join(DTYPES)}")
    return dtype


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":  # torch.cuda.is_bf16_supported would start up a GPU that another process works on
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def devices_of(device: str, where: torch.device) -> list[torch.device]:
    """All that compute of a model's devices: with ``auto_map`` every GPU.

    Args:
        device: the option of this name.
        where: what `resolve_device` makes of it.
    """
    count = torch.cuda.device_count() if device == AUTO_MAP and where.type == "cuda" else 0
    return [torch.device("cuda", number) for number in range(count)] or [where]
