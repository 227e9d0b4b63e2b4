"""Prompt files and adapter folders that were damaged, and those that somebody has made up with a right checksum."""

import hashlib
import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save

from flaretune.errors import UserError
from flaretune.methods.artifact_parts import PARTS, checksum
from flaretune.methods.fedbpt.artifact import PromptArtifact, load_prompt, save_prompt
from flaretune.methods.lpfl import artifact as adapters
from flaretune.methods.lpfl.artifact import AdapterArtifact, load_adapter, save_adapter
from flaretune.tasks.spec import TaskSpec
from tests.fuzz.guard import fuzz
from tests.fuzz.mutate import changed, damaged, to_json
from tests.methods.fedbpt.test_artifact import an_artifact, same

pytestmark = pytest.mark.slow

ADAPTER = AdapterArtifact(
    arrays={f"layer.{i}.lora_{m}.weight": np.full((2, 3), i + 1.5, np.float32) for i in range(2) for m in "AB"},
    adapter_config={"r": 2, "lora_alpha": 16.0, "target_modules": ["query"]},
    task=an_artifact().task,
    options={"tuning": "lora", "seed": 42, "lora_rank": 2},
    model={"name": "some/model", "kind": "masked", "hidden_size": 32},
    result={"round": 3, "dev_accuracy": 0.75},
)


def usable(artifact: PromptArtifact | AdapterArtifact) -> None:
    """What whoever has loaded it relies on."""
    assert isinstance(artifact.spec, TaskSpec)
    assert isinstance(artifact.spec.name, str)
    assert type(artifact.model["hidden_size"]) is int
    for values in [artifact.point] if isinstance(artifact, PromptArtifact) else artifact.arrays.values():
        assert values.dtype == np.float32
        assert np.all(np.isfinite(values))
    for part in PARTS:
        assert isinstance(getattr(artifact, part), dict)


def test_damaged_prompt_files(tmp_path):
    save_prompt(an_artifact(), tmp_path / "good")
    raw, file = (tmp_path / "good").read_bytes(), tmp_path / "bad"

    def check(found):
        assert same(found, an_artifact())

    def load(data):
        file.write_bytes(data)
        return load_prompt(file)

    _, refused = fuzz("prompt file", 1, lambda rng: damaged(raw, rng), load, check, UserError)
    assert refused > 1400


def test_made_up_prompt_files(tmp_path):
    parts = {part: getattr(an_artifact(), part) for part in PARTS}
    file = tmp_path / "bad"

    def make(rng):
        texts = {part: to_json(value) for part, value in parts.items()}
        part = PARTS[int(rng.integers(len(PARTS)))]
        texts[part] = to_json(changed(parts[part], rng))
        point = an_artifact().point[: int(rng.choice([40, 40, 40, 0, 39]))]
        sha256 = checksum(hashlib.sha256(point.tobytes()), texts)
        return save({"point": point}, {"format": "flaretune-fedbpt-prompt-1", "sha256": sha256, **texts})

    def load(data):
        file.write_bytes(data)
        return load_prompt(file)

    loaded, refused = fuzz("made-up prompt", 2, make, load, usable, UserError)
    assert loaded > 100
    assert refused > 500


def test_damaged_adapter_folders(tmp_path):
    folder = tmp_path / "adapter"
    save_adapter(ADAPTER, folder)
    files = {file: file.read_bytes() for file in sorted(folder.iterdir())}

    def make(rng):
        file = list(files)[int(rng.integers(len(files)))]
        return {**files, file: damaged(files[file], rng)}

    def load(contents):
        for file, data in contents.items():
            file.write_bytes(data)
        return load_adapter(folder)

    def check(found):
        assert {name: a.tolist() for name, a in found.arrays.items()} == {
            name: a.tolist() for name, a in ADAPTER.arrays.items()
        }
        for part in (*PARTS, "adapter_config"):
            assert getattr(found, part) == getattr(ADAPTER, part)

    _, refused = fuzz("adapter folder", 3, make, load, check, UserError)
    assert refused > 1300


def test_made_up_adapter_folders(tmp_path):
    folder = tmp_path / "adapter"
    save_adapter(ADAPTER, folder)
    described = json.loads((folder / adapters.DESCRIPTION).read_text(encoding="utf-8"))
    raw = (folder / adapters.ARRAY_FILES["lora"]).read_bytes()

    def make(rng):
        said, config = dict(described), ADAPTER.adapter_config
        if rng.random() < 0.2:
            config = changed(config, rng)
        else:
            part = PARTS[int(rng.integers(len(PARTS)))]
            said[part] = changed(said[part], rng)
        data = raw if rng.random() < 0.8 else with_header(raw, rng)
        texts = {part: to_json(said.get(part)) for part in PARTS} | {"adapter_config": to_json(config)}
        said["sha256"] = checksum(hashlib.sha256(data), texts)
        return {adapters.DESCRIPTION: to_json(said), adapters.ADAPTER_CONFIG: to_json(config)}, data

    def load(contents):
        texts, data = contents
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / adapters.ARRAY_FILES["lora"]).write_bytes(data)
        return load_adapter(folder)

    loaded, refused = fuzz("made-up adapter", 4, make, load, usable, UserError)
    assert loaded > 100
    assert refused > 300


def with_header(raw: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file whose header says something else of its arrays."""
    [length] = struct.unpack("<Q", raw[:8])
    header = to_json(changed(json.loads(raw[8 : 8 + length]), rng)).encode()
    return struct.pack("<Q", len(header)) + header + raw[8 + length :]
