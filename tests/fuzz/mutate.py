"""Damaged inputs, drawn from a seed: bytes that are flipped, cut, grown, exchanged; values that do not belong."""

from __future__ import annotations

import copy
import json
import struct
from typing import Any

import numpy as np

LENGTHS = (0, 1, 7, 8, 2**16, 10**8 + 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
DTYPES = (b"F32", b"F64", b"F16", b"BF16", b"I64", b"I8", b"U8", b"BOOL", b"F8_E4M3", b"C64", b"F99")


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file's bytes with one to four damages."""
    for _ in range(int(rng.integers(1, 5))):
        data = _DAMAGES[int(rng.integers(len(_DAMAGES)))](data, rng)
    return data


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    values = bytearray(data)
    for place in rng.integers(len(values) or 1, size=int(rng.integers(1, 9))) if values else ():
        values[place] ^= 1 << int(rng.integers(8))
    return bytes(values)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _grow(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 64))) + data[place:]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(int(n) for n in rng.integers(len(data) + 1, size=2))
    return data[:end] + data[start:end] + data[end:]


def _header(data: bytes, rng: np.random.Generator) -> bytes:
    """Another length of a safetensors header."""
    return struct.pack("<Q", LENGTHS[int(rng.integers(len(LENGTHS)))]) + data[8:]


def _dtype(data: bytes, rng: np.random.Generator) -> bytes:
    """Another type of numbers in a safetensors header."""
    return data.replace(b'"F32"', b'"' + DTYPES[int(rng.integers(len(DTYPES)))] + b'"', 1)


def _nest(data: bytes, rng: np.random.Generator) -> bytes:
    """Brackets that are never closed, or are."""
    opening, closing = ((b"[", b"]"), (b'{"a":', b"}"), (b"{a=", b"}"))[int(rng.integers(3))]
    depth, place = int(rng.choice([10, 3000])), int(rng.integers(len(data) + 1))
    return data[:place] + opening * depth + (b"1" + closing * depth if rng.random() < 0.5 else b"") + data[place:]


_DAMAGES = (_flip, _flip, _flip, _cut, _grow, _repeat, _header, _dtype, _nest)


DEEP = "\x1bdeep"  # stands for 3000 lists in one another, which Python cannot write as JSON


def to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True).replace(json.dumps(DEEP), "[" * 3000 + "]" * 3000)


def as_values(value: Any) -> Any:
    """With the lists that `DEEP` stands for."""
    if isinstance(value, str) and value == DEEP:
        for _ in range(3000):
            value = [value]
        return value
    if isinstance(value, dict):
        return {key: as_values(item) for key, item in value.items()}
    return [as_values(item) for item in value] if isinstance(value, list) else value


def strange(rng: np.random.Generator) -> Any:
    """A JSON value that hardly belongs anywhere."""
    values = (
        None, True, False, 0, 1, -1, 2, 10**400, -(2**63), 0.5, 1e308, -0.0, float("nan"), float("inf"), "", "x",
        "../../x", "a\nb", "\x00", "\ud800", "n" * 10_000, [], [[]], [1, "a"], {}, {"a": 1}, {"": None}, DEEP,
        [0] * 1000, "{mask}", "{", "sst2", "causal", "9" * 5000,
    )  # fmt: skip
    return copy.copy(values[int(rng.integers(len(values)))])


def changed(value: Any, rng: np.random.Generator) -> Any:
    """A copy of nested dicts and lists with one entry exchanged, removed, added or renamed."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return strange(rng)
    holder, key = places[int(rng.integers(len(places)))]
    what = rng.random()
    if what < 0.65:
        holder[key] = strange(rng)
    elif what < 0.85:
        del holder[key]
    elif isinstance(holder, dict):
        holder[("x" if rng.random() < 0.5 else f"{key}s")] = holder.pop(key) if rng.random() < 0.5 else strange(rng)
    else:
        holder.append(strange(rng))
    return value


def _places(value: Any):
    """Every (container, key) in nested dicts and lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(entries):
        yield value, key
        yield from _places(item)


def strange_array(rng: np.random.Generator) -> Any:
    """What may stand in a message in place of an array."""
    values = (
        np.zeros(0), np.array(1.0), np.array([np.nan]), np.array([np.inf, 1.0]), np.array(["a", "b"]),
        np.array([-1, 2]), np.array([2**62, 2**62]), np.array([True, False]), np.zeros((2, 2)), np.zeros((1,) * 30),
        np.array([1e300, 1e300]), np.zeros(6, dtype=np.float16), np.array([1, 2], dtype=np.uint64) + np.uint64(2**63),
        np.zeros(5, dtype=np.complex64), np.array([b"x"]), np.zeros(100_000), np.array([5, 2]), np.array([-5.0, -3.0]),
    )  # fmt: skip
    return values[int(rng.integers(len(values)))] if rng.random() < 0.8 else strange(rng)
