from __future__ import annotations

import pytest

from flaretune.config.toml import key_lines, line_of

TEXT = '''# a comment = 1
a = 1

b = [
  "x = 1",
  "[c]",
] # b ends
[c]
d = """
e = 2
"""
"quoted key" = { f = 1 }

[g.h]
i.j = 3
'''


def test_every_key_has_the_line_on_which_it_begins():
    assert key_lines(TEXT) == {
        ("a",): 2, ("b",): 4, ("c",): 8, ("c", "d"): 9, ("c", "quoted key"): 12, ("c", "quoted key", "f"): 12,
        ("g",): 14, ("g", "h"): 14, ("g", "h", "i"): 15, ("g", "h", "i", "j"): 15,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "line"), [(("b",), 4), (("c", "missing"), 8), (("missing", "too"), 1), ((), 1), (("g", "h", "k", "l"), 14)]
)
def test_what_is_missing_stands_where_it_would_belong(path, line):
    assert line_of(TEXT, path) == line


def test_lines_of_a_file_with_another_line_ending():
    assert key_lines("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}
