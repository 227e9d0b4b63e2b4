"""What a job has left is known by what it says of itself; and what is no result is said in a sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from flaretune.errors import UserError
from flaretune.methods.registry import load_saved

GIVE = r"give .*best_prompt\.safetensors or .*best_adapter"


def description(folder: Path, text: str) -> Path:
    (folder / "flaretune.json").write_text(text)
    return folder


def tensors(folder: Path, metadata: dict[str, str] | None) -> Path:
    save_file({"point": np.zeros(3, np.float32)}, folder / "file.safetensors", metadata=metadata)
    return folder / "file.safetensors"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda f: f / "absent", r"there is no such file or folder; a job leaves .*best_prompt\.safetensors or "),
        (lambda f: f, rf"no result of a job, or a damaged one \(.*flaretune\.json.*; {GIVE}"),
        (lambda f: description(f, "{"), rf"no result of a job, or a damaged one .*; {GIVE}"),
        (lambda f: description(f, "[" * 100_000), rf"no result of a job, or a damaged one .*; {GIVE}"),
        (lambda f: description(f, "[1]"), rf"no result of a job, or a damaged one .*; {GIVE}"),
        (lambda f: description(f, json.dumps({"format": [3]})), rf"its format is \[3\], not 'flaretune-.*; {GIVE}"),
        (lambda f: tensors(f, None), rf"its format is None, not 'flaretune-.*; {GIVE}"),
        (lambda f: tensors(f, {"format": "pt"}), rf"its format is 'pt', not 'flaretune-.*; {GIVE}"),
    ],
)
def test_what_is_no_result(tmp_path, make, sentence):
    place = make(tmp_path)
    with pytest.raises(UserError, match=sentence) as caught:
        load_saved(place)
    assert str(caught.value).startswith(f"--result {place}: ")


def test_what_a_cut_off_save_has_left_is_named(tmp_path):
    (tmp_path / "best_adapter.old").mkdir()
    with pytest.raises(UserError, match=r"best_adapter\.old is the one before, left when a save was cut off"):
        load_saved(tmp_path / "best_adapter")
