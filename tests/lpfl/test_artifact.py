from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import flaretune
from flaretune.errors import UserError
from flaretune.lpfl.artifact import AdapterArtifact, load_adapter, save_adapter
from flaretune.tasks.spec import available_tasks, load_task, task_table
from tests.tasks_for_tests import pair_task

PARTS = ("task", "options", "model", "result")
LAYER = "base_model.model.layers.{}.q_proj.lora_{}.weight"
ARRAYS = {"lora": "adapter_model.safetensors", "full": "parameters.safetensors"}


def an_artifact(**changes) -> AdapterArtifact:
    spec, rng = load_task("sst2"), np.random.default_rng(3)
    shapes = {LAYER.format(layer, part): (2, 6) if part == "A" else (6, 2) for layer in range(2) for part in "AB"}
    parts = {
        "arrays": {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()},
        "adapter_config": {
            "peft_type": "LORA",
            "r": 2,
            "lora_alpha": 4.0,
            "target_modules": ["q_proj"],
            "bias": "none",
        },
        "task": {"name": spec.name, **{k: v for k, v in task_table(spec).items() if k != "source"}},
        "options": {"tuning": "lora", "lora_rank": 2, "lora_alpha": 4.0, "freeze_a": 0, "seed": 42},
        "model": {"name": "some/model", "kind": "masked", "hidden_size": 32},
        "result": {"round": 3, "dev_accuracy": 0.75, "test_accuracy": None, "versions": {"python": "3.11.7"}},
    }
    return AdapterArtifact(**{**parts, **changes})


def a_whole_model(**changes) -> AdapterArtifact:
    rng = np.random.default_rng(4)
    shapes = {"embed.weight": (9, 4), "norm.bias": (4,), "conv.weight": (2, 3, 4), "patches.weight": (2, 1, 2, 2)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    options = {**an_artifact().options, "tuning": "full"}
    return an_artifact(**{"arrays": arrays, "adapter_config": None, "options": options, **changes})


@pytest.fixture(params=["lora", "full"])
def artifact(request) -> AdapterArtifact:
    return {"lora": an_artifact, "full": a_whole_model}[request.param]()


@pytest.fixture
def folder(tmp_path, artifact) -> Path:
    save_adapter(artifact, tmp_path / "best_adapter")
    return tmp_path / "best_adapter"


@pytest.fixture
def lora(tmp_path) -> Path:
    save_adapter(an_artifact(), tmp_path / "lora")
    return tmp_path / "lora"


def same(a: AdapterArtifact, b: AdapterArtifact) -> bool:
    arrays = {name: (v.shape, v.dtype, v.tobytes()) for name, v in a.arrays.items()}
    return arrays == {name: (v.shape, v.dtype, v.tobytes()) for name, v in b.arrays.items()} and all(
        getattr(a, part) == getattr(b, part) for part in (*PARTS, "adapter_config")
    )


# The safetensors format by hand: length of the header, header in JSON, then the bytes of the tensors.
def put_together(arrays: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    header, data = {}, b""
    for name, (dtype, shape, raw) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def checksum(folder: Path) -> str:
    described = json.loads((folder / "flaretune.json").read_text())
    digest = hashlib.sha256((folder / ARRAYS[described["options"]["tuning"]]).read_bytes())
    config = None
    if (folder / "adapter_config.json").exists():
        config = json.loads((folder / "adapter_config.json").read_text())
        config = {name: value for name, value in config.items() if name != "base_model_name_or_path"}
    for part, values in {**{p: described[p] for p in PARTS}, "adapter_config": config}.items():
        digest.update(f"\n{part}\n{json.dumps(values, sort_keys=True)}".encode())
    return digest.hexdigest()


def with_changes(folder: Path, arrays: bytes | None = None, **parts) -> Path:
    """The folder with other contents, and a checksum that fits them."""
    file = folder / "flaretune.json"
    if arrays is not None:
        (folder / "adapter_model.safetensors").write_bytes(arrays)
    file.write_text(json.dumps({**json.loads(file.read_text()), **parts}))
    file.write_text(json.dumps({**json.loads(file.read_text()), "sha256": checksum(folder)}))
    return folder


# ---- what is written ----


def test_what_was_saved_comes_back(folder, artifact):
    loaded = load_adapter(folder)
    assert same(loaded, artifact)
    assert same(load_adapter(str(folder)), artifact)
    assert loaded.spec.label_values == load_task("sst2").label_values


def test_the_folder_is_readable_without_flaretune(lora, tmp_path):
    assert sorted(file.name for file in lora.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "flaretune.json",
    ]
    config = json.loads((lora / "adapter_config.json").read_text())
    assert config == {**an_artifact().adapter_config, "base_model_name_or_path": "some/model"}
    described = json.loads((lora / "flaretune.json").read_text())
    assert described["format"] == "flaretune-lpfl-adapter-1"
    assert described["task"]["masked"]["label_words"] == an_artifact().task["masked"]["label_words"]
    assert described["sha256"] == checksum(lora)
    raw = (lora / "adapter_model.safetensors").read_bytes()
    [length] = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    for name, values in an_artifact().arrays.items():
        begin, end = header[name]["data_offsets"]
        assert (header[name]["dtype"], header[name]["shape"]) == ("F32", list(values.shape))
        assert raw[8 + length :][begin:end] == values.astype("<f4").tobytes()
    assert set(header) == set(an_artifact().arrays)
    save_adapter(a_whole_model(), tmp_path / "full")
    assert sorted(file.name for file in (tmp_path / "full").iterdir()) == ["flaretune.json", "parameters.safetensors"]


def test_arrays_in_another_format_are_saved_in_float32(tmp_path):
    turned = np.random.default_rng(0).standard_normal((6, 4)).T[::2]  # float64, not contiguous
    save_adapter(an_artifact(arrays={"a": turned}), tmp_path / "a")
    loaded = load_adapter(tmp_path / "a").arrays["a"]
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, turned.astype(np.float32))


def test_equal_adapters_give_equal_folders(tmp_path):
    """Whatever order their entries were made in."""
    one = an_artifact()
    turned = {name: dict(reversed(getattr(one, name).items())) for name in ("arrays", "adapter_config", "options")}
    for name, artifact in (("a", one), ("b", replace(one, **turned))):
        save_adapter(artifact, tmp_path / name)
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]


def test_others_may_read_the_files_as_the_umask_says(tmp_path, artifact):
    old = os.umask(0o022)
    try:
        save_adapter(artifact, tmp_path / "a")
    finally:
        os.umask(old)
    modes = {entry.stat().st_mode & 0o777 for entry in (tmp_path / "a").iterdir()}
    assert (modes, (tmp_path / "a").stat().st_mode & 0o777) == ({0o644}, 0o755)


@pytest.mark.parametrize("spec", [pair_task(), *map(load_task, available_tasks())], ids=lambda spec: spec.name)
def test_the_task_comes_back_without_its_data_source(tmp_path, spec):
    table = {"name": spec.name, **{k: v for k, v in task_table(spec).items() if k != "source"}}
    save_adapter(an_artifact(task=table), tmp_path / "a")
    back = load_adapter(tmp_path / "a").spec
    assert back.name == spec.name
    assert {**task_table(back), "source": None} == {**task_table(spec), "source": None}
    assert (back.source.path, back.source.hub) == (None, "none (a adapter folder names no data)")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter_config": None}, "tuning is 'lora', which does not go with the adapter_config None"),
        ({"options": {"tuning": "full"}}, "tuning is 'full'"),
        ({"arrays": {}}, "there is no array"),
        ({"arrays": {"a": np.array([1.0, np.nan])}}, "a has entries that are not finite"),
        ({"arrays": {"a": np.float32(1)}}, r"a is float32 of shape \(\)"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        save_adapter(an_artifact(**changes), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


# ---- saving anew ----


def test_another_save_replaces_the_whole_folder(tmp_path, lora):
    (lora / "notes.txt").write_text("mine")
    save_adapter(a_whole_model(), lora)
    assert same(load_adapter(lora), a_whole_model())
    assert sorted(file.name for file in lora.iterdir()) == ["flaretune.json", "parameters.safetensors"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["lora"]


def test_the_old_folder_stays_when_saving_fails(lora, monkeypatch):
    with pytest.raises(TypeError):
        save_adapter(an_artifact(result={"round": object()}), lora)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save_adapter(an_artifact(result={"round": 4}), lora)
    assert same(load_adapter(lora), an_artifact())
    assert [entry.name for entry in lora.parent.iterdir()] == ["lora"]


class Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("step", range(11))
def test_a_whole_folder_is_left_wherever_a_save_is_killed(lora, monkeypatch, step):
    """Before any of the calls that change the disk; none of those that clean up comes after."""
    new, count = an_artifact(result={"round": 4}), 0

    def stopping(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("mkdir", "write_text", "write_bytes", "rename"):
            patch.setattr(Path, name, stopping(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", stopping(shutil.rmtree))
        try:
            save_adapter(new, lora)
        except Killed:
            done = False
        else:
            done = True
    assert done == (step >= 9)  # .partial cleared, made, three files, .old cleared, two renamed, .old cleared
    old = lora.with_name("lora.old")
    if lora.is_dir():
        assert same(load_adapter(lora), new if step >= 8 else an_artifact())
    else:
        assert same(load_adapter(old), an_artifact())
        with pytest.raises(UserError, match=rf"{lora} does not exist; {old} is the one before, left when a save was"):
            load_adapter(lora)
    save_adapter(new, lora)
    assert same(load_adapter(lora), new)
    assert [entry.name for entry in lora.parent.iterdir()] == ["lora"]


# ---- what is refused ----


def test_a_folder_that_is_not_there_or_another_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(UserError, match=r"adapter folder .* does not exist; a job leaves it as best_adapter$"):
            load_adapter(place)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no flaretune.json, so it is no adapter of LP-FL; give one that a job"):
        load_adapter(tmp_path)


def test_a_missing_file_is_named(folder):
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(UserError, match=f"has no {file.name}"):
            load_adapter(folder)
        file.write_bytes(content)
    load_adapter(folder)


def test_an_unreadable_file_is_refused(folder, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    for name in ("open", "read_text"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refuse)
            with pytest.raises(UserError, match="Permission denied"):
                load_adapter(folder)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[1]", b"null"])
@pytest.mark.parametrize("name", ["flaretune.json", "adapter_config.json"])
def test_json_that_cannot_be_read_is_refused(lora, name, raw):
    (lora / name).write_bytes(raw)
    with pytest.raises(UserError, match=rf"{name} is damaged \(.*\); copy the folder anew"):
        load_adapter(lora)


@pytest.mark.parametrize("key", ["format", "sha256", *PARTS])
@pytest.mark.parametrize("value", [None, 5, []])
def test_an_entry_that_is_missing_or_odd_is_noticed(folder, key, value):
    file = folder / "flaretune.json"
    described = json.loads(file.read_text())
    for changed in ({k: v for k, v in described.items() if k != key}, {**described, key: value}):
        file.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=rf"has no '{key}'; copy it anew|its format is .*, not 'flaretune-lpfl-"):
            load_adapter(folder)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("flaretune.json", '"seed": 42', '"seed": 43'),
        ("flaretune.json", '"some/model"', '"other/model"'),
        ("adapter_config.json", '"lora_alpha": 4.0', '"lora_alpha": 8.0'),
        ("adapter_config.json", '"r": 2', '"r": 2, "use_dora": true'),
    ],
)
def test_an_edit_is_noticed(lora, file, before, after):
    text = (lora / file).read_text()
    assert text.count(before) == 1
    (lora / file).write_text(text.replace(before, after))
    with pytest.raises(UserError, match=r"was damaged or edited: its contents do not have the sha256 noted in flaret"):
        load_adapter(lora)


def test_where_peft_finds_the_model_and_how_files_are_laid_out_may_be_changed(lora):
    config = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/here"}))
    described = json.loads((lora / "flaretune.json").read_text())
    (lora / "flaretune.json").write_text(json.dumps(dict(reversed(described.items())), indent=8))
    assert same(load_adapter(lora), an_artifact())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": ("F64", [2], bytes(16))}, r"holds no adapter: a is float64 of shape \(2,\), not float32"),
        ({"a": ("F32", [], bytes(4))}, r"a is float32 of shape \(\)"),
        ({"a": ("F32", [1] * 5, bytes(4))}, r"a is float32 of shape \(1, 1, 1, 1, 1\)"),
        ({"a": ("F32", [0, 3], b"")}, r"a is float32 of shape \(0, 3\)"),
        ({"a": ("F32", [1], bytes(4)), "b": ("I32", [1], bytes(4))}, "b is int32"),
        ({"a": ("F32", [1], struct.pack("<f", np.inf))}, "a has entries that are not finite"),
        ({"a": ("F32", [2], struct.pack("<2f", 1, np.nan))}, "a has entries that are not finite"),
        ({"a": ("F32", [3], bytes(4))}, "is damaged or no adapter"),
        ({"a": ("X", [1], bytes(4))}, "is damaged or no adapter"),
        ({}, "there is no array"),
    ],
)
def test_arrays_of_other_formats_are_refused(lora, arrays, message):
    with pytest.raises(UserError, match=message) as refused:
        load_adapter(with_changes(lora, put_together(arrays)))
    assert str(lora / "adapter_model.safetensors") in str(refused.value)


def test_no_format_but_float32_is_taken(lora):
    for dtype, size in (("F16", 2), ("BF16", 2), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1), ("F8_E5M2", 1)):
        with pytest.raises(UserError, match=r"is damaged or no adapter|holds no adapter"):
            load_adapter(with_changes(lora, put_together({"a": (dtype, [4], bytes(4 * size))})))


def test_a_pickle_is_not_read(lora):
    import pickle

    with pytest.raises(UserError, match="is damaged or no adapter"):
        load_adapter(with_changes(lora, pickle.dumps({"a": np.ones(3)})))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": {"name": "m", "kind": "masked"}}, "another version of flaretune .*'hidden_size'"),
        ({"model": {"name": 5, "kind": "masked", "hidden_size": 3}}, "another version of flaretune .*name is 5"),
        ({"task": {}}, "'name'"),
        (
            {"task": {"name": "t", "metrc": 1}},
            "the task in the adapter folder: unknown key 'metrc'; did you mean 'metric'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(lora, parts, message):
    with pytest.raises(UserError, match=message) as refused:
        load_adapter(with_changes(lora, **parts))
    assert str(lora) in str(refused.value)


@pytest.mark.parametrize("options", [{}, {"tuning": "none"}, {"tuning": 5}, {"tuning": ["lora"]}])
def test_options_without_a_known_tuning_are_refused(lora, options):
    file = lora / "flaretune.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "options": options}))
    with pytest.raises(UserError, match="damaged or written by another version of flaretune: its tuning is"):
        load_adapter(lora)


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage as disks and transfers do it."""
    kind, place = rng.integers(4), int(rng.integers(len(raw)))
    changed = bytearray(raw)
    if kind == 0:  # one bit
        changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # cut off
        del changed[place:]
    elif kind == 2:  # a hole of zeros
        length = min(int(rng.integers(1, 64)), len(raw) - place)
        changed[place : place + length] = bytes(length)
    else:  # something added
        changed[place:place] = rng.bytes(int(rng.integers(1, 8)))
    return bytes(changed)


def test_damage_of_any_kind_is_noticed(lora):
    rng, refused = np.random.default_rng(2014), 0
    for file in sorted(lora.iterdir()):
        raw = file.read_bytes()
        for _ in range(150):
            file.write_bytes(mutate(raw, rng))
            try:
                loaded = load_adapter(lora)
            except UserError:
                refused += 1
            else:
                assert same(loaded, an_artifact())
        file.write_bytes(raw)
    assert refused > 380  # what leaves JSON as it means is more than of one binary file, and still rare


def test_the_server_needs_no_torch():
    code = (
        "import sys, flaretune.lpfl.artifact\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'peft', 'nvflare'})"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(flaretune.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.stdout == "set()\n", done.stderr
