"""What a client keeps of its soft labels."""

from __future__ import annotations

import numpy as np
import pytest

from flaretune.errors import UserError
from flaretune.methods.lpfl.kept_states import KeptStates


def test_states_by_round(tmp_path):
    states = KeptStates(tmp_path / "a" / "b")
    assert states.load() is None
    for number in (2, 3, 4, 10):
        states.save(number, {"n": np.array([number])})
    assert states.load()["n"].tolist() == [10]
    assert states.load(7)["n"].tolist() == [4]  # the last until then
    assert states.load(4)["n"].tolist() == [4]
    assert states.load(2) is None  # the last three are kept
    states.clear(after=4)
    assert states.load()["n"].tolist() == [4]
    states.clear()
    assert states.load() is None


def test_a_damaged_state_is_one_sentence(tmp_path):
    states = KeptStates(tmp_path)
    states.save(2, {"n": np.array([2])})
    file = tmp_path / "soft_labels_00002.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match="the soft labels that this client has kept, is damaged"):
        states.load()
