from __future__ import annotations

import numpy as np
import torch

from flaretune.models.padding import pad

ROWS = [np.array([5, 6]), np.array([], dtype=np.int64), np.array([9, 9, 9])]  # 9 is the padding token as well


def test_right():
    ids, attention = pad(ROWS, 9, "cpu")
    assert ids.tolist() == [[5, 6, 9], [9, 9, 9], [9, 9, 9]]
    assert attention.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert ids.dtype == attention.dtype == torch.int64


def test_left():
    ids, attention = pad(ROWS, 9, "cpu", "left")
    assert ids.tolist() == [[9, 5, 6], [9, 9, 9], [9, 9, 9]]
    assert attention.tolist() == [[0, 1, 1], [0, 0, 0], [1, 1, 1]]


def test_nothing_to_pad():
    ids, attention = pad([ROWS[1], ROWS[1]], 9, "cpu", "left")
    assert ids.shape == attention.shape == (2, 0)
