"""Clients whose texts, labels and paths can be recognised wherever they turn up."""

from __future__ import annotations

import csv
from pathlib import Path

import msgpack
import numpy as np
from transformers import AutoTokenizer

from flaretune.methods.message import Message
from tests.learnable import reviews

NAME, PLACE, NUMBER = "Quillfeather", "ward-seven", "PATIENT-7741"


def write_secret_reviews(folder: Path, n: int, seed: int) -> Path:
    """A file of n reviews, each with a name in it, beside a column that no task uses; in a folder of a telling name."""
    file = folder / PLACE / f"reviews_{n}_{seed}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    sentences, labels = reviews(n, seed)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sentence", "label", "patient"])
        for i, (sentence, label) in enumerate(zip(sentences, labels, strict=True)):
            writer.writerow([f"{NAME} {sentence}", label, f"{NUMBER}-{i}"])
    return file


def secrets_in(file: Path, model: str) -> dict[str, bytes]:
    """What must not be found in anything that a client sends, by what it is."""
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = {"a name": NAME.encode(), "a path": PLACE.encode(), "a number": NUMBER.encode()}
    for i, row in enumerate(rows):
        ids = np.array(tokenizer(row["sentence"])["input_ids"])
        two_words = " ".join(row["sentence"].split()[1:3])
        found[f"words of text {i}"] = two_words.encode()
        for kind in ("<i8", "<i4", "<u2"):
            found[f"{kind} tokens of text {i}"] = ids[1:7].astype(kind).tobytes()
    labels = np.array([int(row["label"]) for row in rows])
    for kind in ("<i8", "<i4", "<f8", "<f4", "<u1"):
        found[f"{kind} labels"] = labels[:16].astype(kind).tobytes()
    return found


def fields_of(message: Message) -> dict[str, object]:
    """Every field of a reply by the name that the table gives it; arrays of an adapter are a list."""
    fields: dict[str, object] = {}
    for name, values in message.arrays.items():
        if ".lora_" in name:
            fields.setdefault("lora", []).append(values)
        else:
            fields[name] = values
    for name, value in message.fields.items():
        fields |= {f"{name}.{n}": v for n, v in value.items()} if name in ("settings", "numbers") else {name: value}
    return fields


def as_bytes(message: Message) -> bytes:
    """A message in NVFlare's encoding of plain values, which refuses all others, and its arrays as they are."""
    arrays = {name: [str(a.dtype), a.shape, a.tobytes()] for name, a in message.arrays.items()}
    return msgpack.packb([arrays, message.fields])
