"""What the clients of the comparison with other frameworks get, and how their rounds are timed."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import beside_others
import numpy as np
import pytest

from flaretune.data.load import Examples
from flaretune.errors import UserError


def test_every_client_has_texts_of_its_own_the_classes_in_turns(tmp_path, monkeypatch):
    labels = [1, 1, 1, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1]
    pool = Examples(tuple({"sentence": f"text {i}"} for i in range(len(labels))), np.array(labels))
    monkeypatch.setattr(beside_others, "load_split", lambda spec, name: pool)
    files = beside_others.write_texts(tmp_path, n_clients=2, per_class=2)
    rows = [list(csv.DictReader(Path(file).read_text(encoding="utf-8").splitlines())) for file in files]
    for own in rows:
        assert [int(row["label"]) for row in own] == [0, 1] * 4
        for half in (own[:4], own[4:]):  # to train on, and for validation
            assert Counter(row["label"] for row in half) == {"0": 2, "1": 2}
    texts = [row["sentence"] for own in rows for row in own]
    assert len(set(texts)) == 16
    assert all(labels[int(row["sentence"].split()[1])] == int(row["label"]) for own in rows for row in own)


def test_rounds_are_timed_without_the_first_and_the_last():
    times = {0: [1.0, 9.0, 12.0, 16.0], 1: [1.5, 9.5, 12.5, 16.5]}
    lines = [{"client": client, "time": time} for client in times for time in times[client]]
    assert beside_others.seconds_between(lines, 4) == [3.0, 4.0]
    with pytest.raises(UserError, match="4 of 5 rounds have begun"):
        beside_others.seconds_between(lines, 5)
