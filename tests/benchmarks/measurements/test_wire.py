"""Bytes of a round by the form of the covariance."""

import json
import os

import pytest
from measurements.wire import DIMS, wire, wire_table

from flaretune.errors import UserError


@pytest.fixture(scope="module")
def result():
    return wire()


def test_limits_of_a_client_and_round(result):
    """At most 10 KB with the small forms and 0.6 MB with the full matrix, at d = 500, both ways together."""
    assert set(result["bytes"]) == {"full", "diagonal", "identity"}
    assert result["bytes"]["identity"]["500"]["total"] < result["bytes"]["diagonal"]["500"]["total"] <= 10_000
    assert 500_000 < result["bytes"]["full"]["500"]["total"] <= 600_000


def test_the_numbers_are_in_the_messages(result):
    for d in DIMS:
        down = {form: by_dim[str(d)]["down"] for form, by_dim in result["bytes"].items()}
        assert down["identity"] > 4 * d  # the mean, in float32
        # what a form has more, and a little for its name and shape
        assert 4 * d < down["diagonal"] - down["identity"] < 4 * d + 500
        assert 2 * d * (d + 1) < down["full"] - down["identity"] < 2 * d * (d + 1) + 500
        assert len({by_dim[str(d)]["up"] for by_dim in result["bytes"].values()}) == 1
        for sizes in (by_dim[str(d)] for by_dim in result["bytes"].values()):
            assert sizes["total"] == sizes["down"] + sizes["up"]
            assert sizes["up"] > 4 * d


def test_what_is_reported(result):
    assert json.loads(json.dumps(result)) == result
    assert set(result) >= {"machine", "versions", "date"}
    lines = wire_table(result).splitlines()
    assert lines[0] == "| covariance | d = 50 | d = 100 | d = 200 | d = 500 |"
    sizes = result["bytes"]["full"]["500"]
    assert lines[2].endswith(f"| {sizes['down']:,} + {sizes['up']:,} |")


@pytest.mark.parametrize("before", [None, "4096"])
def test_the_environment_is_left_as_it_was(monkeypatch, before):
    name = "NVFLARE_NP_DOWNLOAD_CHUNK_SIZE"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    # more than 2 MiB, which NVFlare would else leave out of the message
    assert wire(dims=[1100])["bytes"]["full"]["1100"]["down"] > 2 * 1100 * 1101
    assert os.environ.get(name) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([0],), "--intrinsic_dim 0: must be at least 1"), (([5], 0), "--n_clients 0: must be at least 1")],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        wire(*arguments)
