"""An adapter's folder: what is written, and what is left of it wherever a save ends."""

from __future__ import annotations

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
from flaretune.methods.lpfl.artifact import load_adapter, save_adapter
from flaretune.tasks.spec import available_tasks, load_task, task_table
from tests.methods.lpfl.adapter_files import checksum
from tests.methods.lpfl.made_up_adapters import a_whole_model, an_artifact, same
from tests.tasks_for_tests import pair_task


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


def test_the_server_needs_no_torch():
    code = (
        "import sys, flaretune.methods.lpfl.artifact\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'peft', 'nvflare'})"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(flaretune.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.stdout == "set()\n", done.stderr
