"""What went wrong at the server or a client, recorded and read."""

import json

import pytest

from flaretune.engine.errors import FILE, SERVER, Failure, failures_below, record_failure


def test_failures_of_clients_and_server_are_read_as_they_were_recorded(tmp_path):
    told = [
        ("job/site-1/flaretune", Failure("site-1", "--device cuda:7 is not there")),
        ("job/site-2/flaretune", Failure("site-2", "a")),
        ("job/site-2/flaretune", Failure("site-2", "a")),  # of a script that was started anew
        ("job/site-2/flaretune", Failure("site-2", "b")),
        ("job/server/flaretune", Failure(SERVER, "round 0: 1 of 2 clients gave a usable initialize reply")),
    ]
    for folder, failure in told:
        record_failure(tmp_path / folder, failure)
    found = list(failures_below(tmp_path))
    assert sorted(found, key=lambda f: (f.who, f.sentence)) == [told[4][1], told[0][1], told[1][1], told[3][1]]
    assert not list(failures_below(tmp_path / "job" / "elsewhere"))


@pytest.mark.parametrize("sentence", ["ε = 1, “ζ” {braces} $HOME", "two\nlines", 'a "quoted" one', "\u2028"])
def test_any_sentence_is_a_line(tmp_path, sentence):
    record_failure(tmp_path, Failure("site-1", sentence))
    record_failure(tmp_path, Failure("site-1", "another"))
    assert [f.sentence for f in failures_below(tmp_path)] == [sentence, "another"]
    lines = (tmp_path / FILE).read_bytes().rstrip(b"\n").split(b"\n")
    assert json.loads(lines[0]) == {"who": "site-1", "sentence": sentence}


@pytest.mark.parametrize("line", [b'{"who": "site-1", "sent', b"[]", b'{"who": "x"}', b"\xff\xfe", b"5", b"", b"null"])
def test_a_line_that_a_killed_process_left_is_passed_over(tmp_path, line):
    record_failure(tmp_path, Failure("site-1", "first"))
    with (tmp_path / FILE).open("ab") as stream:
        stream.write(line + b"\n")
    record_failure(tmp_path, Failure("site-2", "second"))
    assert [f.sentence for f in failures_below(tmp_path)] == ["first", "second"]
