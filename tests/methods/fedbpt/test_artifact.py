from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from flaretune.errors import UserError
from flaretune.methods.fedbpt.artifact import PromptArtifact, load_prompt, save_prompt
from flaretune.tasks.spec import available_tasks, load_task, task_table
from tests.tasks_for_tests import pair_task

DIM = 40


def an_artifact(**changes) -> PromptArtifact:
    spec = load_task("sst2")
    task = {"name": spec.name, **{k: v for k, v in task_table(spec).items() if k != "source"}}
    parts = {
        "point": np.random.default_rng(3).standard_normal(DIM).astype(np.float32),
        "task": task,
        "options": {"intrinsic_dim": DIM, "sigma": 1.0, "cat_or_add": "add", "seed": 42},
        "model": {"name": "some/model", "kind": "masked", "hidden_size": 32},
        "result": {"round": 3, "dev_accuracy": 0.75, "test_accuracy": None, "versions": {"python": "3.11.7"}},
    }
    return PromptArtifact(**{**parts, **changes})


@pytest.fixture
def file(tmp_path) -> Path:
    save_prompt(an_artifact(), tmp_path / "best_prompt.safetensors")
    return tmp_path / "best_prompt.safetensors"


def same(a: PromptArtifact, b: PromptArtifact) -> bool:
    parts = ("task", "options", "model", "result")
    return a.point.tobytes() == b.point.tobytes() and all(getattr(a, p) == getattr(b, p) for p in parts)


# The safetensors format by hand: length of the header, header in JSON, then the bytes of the tensors.
def take_apart(raw: bytes) -> tuple[dict, bytes]:
    [length] = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def put_together(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def checksum(metadata: dict, data: bytes) -> str:
    parts = ("task", "options", "model", "result")
    return hashlib.sha256(data + "".join(f"\n{p}\n{metadata[p]}" for p in parts).encode()).hexdigest()


def with_changes(file: Path, dtype: str = "F32", shape=(DIM,), data: bytes | None = None, **metadata: str) -> Path:
    """The file with changes, its checksum put right, so that the checks behind it are reached."""
    header, old = take_apart(file.read_bytes())
    data = old if data is None else data
    header["point"] = {"dtype": dtype, "shape": list(shape), "data_offsets": [0, len(data)]}
    header["__metadata__"] |= metadata
    header["__metadata__"]["sha256"] = checksum(header["__metadata__"], data)
    file.write_bytes(put_together(header, data))
    return file


def test_what_was_saved_comes_back(file):
    loaded = load_prompt(file)
    assert same(loaded, an_artifact())
    assert loaded.point.dtype == np.float32
    assert loaded.point.shape == (DIM,)
    assert same(load_prompt(str(file)), loaded)


def test_a_point_of_another_number_format_is_saved_in_float32(tmp_path):
    point = np.random.default_rng(0).standard_normal(2 * DIM)[::2]  # float64, not contiguous
    save_prompt(an_artifact(point=point), tmp_path / "p.safetensors")
    assert np.array_equal(load_prompt(tmp_path / "p.safetensors").point, point.astype(np.float32))


def test_the_file_is_readable_without_flaretune(file):
    header, data = take_apart(file.read_bytes())
    assert header["point"] == {"dtype": "F32", "shape": [DIM], "data_offsets": [0, 4 * DIM]}
    assert data == an_artifact().point.astype("<f4").tobytes()
    metadata = header["__metadata__"]
    assert metadata["format"] == "flaretune-fedbpt-prompt-1"
    assert json.loads(metadata["model"])["name"] == "some/model"
    assert json.loads(metadata["task"])["masked"]["label_words"] == ["bad", "great"]
    assert metadata["sha256"] == checksum(metadata, data)


def test_others_may_read_the_file_as_the_umask_says(tmp_path):
    old = os.umask(0o022)
    try:
        save_prompt(an_artifact(), tmp_path / "p.safetensors")
    finally:
        os.umask(old)
    assert (tmp_path / "p.safetensors").stat().st_mode & 0o777 == 0o644


def test_equal_prompts_give_equal_files(tmp_path):
    """Whatever order their entries were made in."""
    options = an_artifact().options
    turned = dict(reversed(options.items()))
    for name, value in (("a", options), ("b", turned)):
        save_prompt(an_artifact(options=value), tmp_path / name)
    metadata = [take_apart((tmp_path / name).read_bytes())[0]["__metadata__"] for name in "ab"]
    assert metadata[0] == metadata[1]


def test_the_old_file_stays_when_saving_fails(file, monkeypatch):
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_prompt(an_artifact(result={"round": object()}), file)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save_prompt(an_artifact(result={"round": 4}), file)
    assert file.read_bytes() == before
    save_prompt(an_artifact(result={"round": 4}), file)
    assert load_prompt(file).result == {"round": 4}
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("spec", [pair_task(), *map(load_task, available_tasks())], ids=lambda spec: spec.name)
def test_the_task_comes_back_without_its_data_source(tmp_path, spec):
    table = {"name": spec.name, **{k: v for k, v in task_table(spec).items() if k != "source"}}
    save_prompt(an_artifact(task=table), tmp_path / "p.safetensors")
    back = load_prompt(tmp_path / "p.safetensors").spec
    assert back.name == spec.name
    assert {**task_table(back), "source": None} == {**task_table(spec), "source": None}
    assert back.source.path is None
    assert "names no data" in back.source.hub


def test_a_file_that_is_not_there_or_none_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(UserError, match=r"does not exist; a job leaves it as best_prompt\.safetensors"):
            load_prompt(place)


def test_an_unreadable_file_is_refused(file, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("flaretune.methods.artifact_parts.safe_open", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        load_prompt(file)


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 7, b"a prompt, surely\n" * 20, b"\xff" * 64, struct.pack("<Q", 2) + b"{}"]
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, raw):
    (tmp_path / "other").write_bytes(raw)
    with pytest.raises(UserError, match=r"is damaged or no prompt file|is no prompt"):
        load_prompt(tmp_path / "other")


def test_another_safetensors_file_is_refused(tmp_path):
    for header in (
        {"point": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"point": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"format": "pt"}},
    ):
        (tmp_path / "model.safetensors").write_bytes(put_together(header, b"\0" * 4))
        with pytest.raises(UserError, match=r"is no prompt: its format is (None|'pt'), not 'flaretune-"):
            load_prompt(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["sha256", "task", "options", "model", "result", "format"])
def test_metadata_that_is_missing_is_noticed(file, name):
    header, data = take_apart(file.read_bytes())
    del header["__metadata__"][name]
    file.write_bytes(put_together(header, data))
    with pytest.raises(UserError, match=r"damaged or edited|is no prompt"):
        load_prompt(file)


def test_an_edited_option_is_noticed(file):
    raw = file.read_bytes()
    assert raw.count(b'\\"seed\\": 42') == 1
    file.write_bytes(raw.replace(b'\\"seed\\": 42', b'\\"seed\\": 43'))
    with pytest.raises(UserError, match="was damaged or edited: its contents do not have the sha256"):
        load_prompt(file)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("F64", 8), ("F16", 2), ("BF16", 2), ("I32", 4), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1), ("F8_E5M2", 1), ("X", 4)],
)
def test_another_number_format_is_refused(file, dtype, size):
    with pytest.raises(UserError, match="damaged"):
        load_prompt(with_changes(file, dtype=dtype, data=b"\0" * size * DIM))


@pytest.mark.parametrize("shape", [(DIM - 1,), (DIM, 1), (1, DIM), (2, DIM // 2), ()])
def test_a_point_of_another_shape_than_the_options_say_is_refused(file, shape):
    data = b"\0" * 4 * int(np.prod(shape))
    with pytest.raises(UserError, match=rf"its point has shape .*, not \({DIM},\)"):
        load_prompt(with_changes(file, shape=shape, data=data))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_point_that_is_not_finite_is_refused(file, value):
    point = an_artifact().point.copy()
    point[7] = value
    with pytest.raises(UserError, match="or is not finite"):
        load_prompt(with_changes(file, data=point.tobytes()))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"options": "{}"}, "'intrinsic_dim'"),
        ({"options": "[1, 2]"}, "another version"),
        ({"options": "{"}, "another version"),
        ({"result": ""}, "another version"),
        ({"model": '{"name": "m", "kind": "masked"}'}, "'hidden_size'"),
        ({"model": "null"}, "another version"),
        ({"task": "[]"}, "another version"),
        ({"task": "{}"}, "'name'"),
        ({"task": '{"name": "t", "metrc": 1}'}, "unknown key 'metrc'; did you mean 'metric'"),
        ({"options": '{"intrinsic_dim": "40"}'}, "its point has shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(file, metadata, message):
    with pytest.raises(UserError, match=message) as refused:
        load_prompt(with_changes(file, **metadata))
    assert str(file) in str(refused.value)


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage as disks and transfers do it."""
    kind, place = rng.integers(5), int(rng.integers(len(raw)))
    changed = bytearray(raw)
    if kind == 0:  # one bit
        changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # some bits
        for i in rng.integers(len(raw), size=rng.integers(2, 20)):
            changed[i] ^= 1 << int(rng.integers(8))
    elif kind == 2:  # cut off
        del changed[place:]
    elif kind == 3:  # a hole of zeros
        length = min(int(rng.integers(1, 64)), len(raw) - place)
        changed[place : place + length] = bytes(length)
    else:  # something added
        changed[place:place] = rng.bytes(int(rng.integers(1, 8)))
    return bytes(changed)


def test_damage_of_any_kind_is_noticed(file):
    original, raw = load_prompt(file), file.read_bytes()
    rng = np.random.default_rng(2014)
    refused = 0
    for _ in range(300):
        file.write_bytes(mutate(raw, rng))
        try:
            loaded = load_prompt(file)
        except UserError:
            refused += 1
        else:
            assert same(loaded, original)
    assert refused > 290  # what a mutation leaves as it was is rare


def test_every_bit_of_the_point_counts(file):
    raw = file.read_bytes()
    for place in range(len(raw) - 4 * DIM, len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        file.write_bytes(changed)
        with pytest.raises(UserError, match="was damaged or edited"):
            load_prompt(file)
