"""`python benchmarks/measure.py`, as a script would call it."""

from __future__ import annotations

import json

import pytest
from measure import main
from measurements import memory as bench_memory
from measurements import round as bench_round
from measurements.simulated import JobRun


def test_wire_as_json_and_as_a_table(capsys, tmp_path):
    assert main(["wire", "--clients", "3", "--json", "--output", str(tmp_path / "wire.json")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "wire.json").read_text(encoding="utf-8"))
    assert set(printed["bytes"]) == {"full", "diagonal", "identity"}
    assert main(["wire"]) == 0
    assert "| diagonal |" in capsys.readouterr().out


TINY = ["--shapes", "tiny-masked", "tiny-causal", "--n_examples", "4", "--device", "cpu", "--dtype", "bfloat16"]


def test_evaluate_in_short_and_in_full(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path))  # where no model is
    found = {}
    for name, flags in (("short", []), ("full", ["--full"])):
        assert main(["evaluate", "--json", *TINY, *flags]) == 0
        found[name] = json.loads(capsys.readouterr().out)
        assert {"ratio_masked", "ratio_causal", "rank_correlation", "machine", "versions", "date"} <= set(found[name])
        assert found[name]["settings"]["n_examples"] == 4
    assert "it was not asked for" in found["short"]["rank_correlation_note"]
    assert "fetch" in found["full"]["rank_correlation_note"]
    assert found["short"]["settings"]["repeats"] < found["full"]["settings"]["repeats"]


@pytest.mark.parametrize("what", ["evaluate", "round", "wire", "memory", "clients", "load"])
def test_every_measurement_has_a_help_text(capsys, what):
    with pytest.raises(SystemExit) as stop:
        main([what, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert {"--json", "--output", "--quiet", "--debug"} <= {word.strip("[],") for word in said.split()}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["evaluate", "--shapes", "huge"], "shape 'huge' is unknown"),
        (["evaluate", "--repeats", "0"], "--repeats 0: must be at least 1"),
        (["memory", "--clients", "0"], "--clients 0: must be at least 1"),
        (["clients", "--rounds", "0"], "--rounds 0: must be at least 1"),
        (["clients", "--models", "huge"], "--models huge: use tiny or demo"),
        (["clients", "--against", "absent"], "--against absent: is no checkout of flaretune"),
        (["wire", "--clients", "0"], "--n_clients 0: must be at least 1"),
        (["wire", "--output", "absent/wire.json"], "--output absent/wire.json: there is no folder absent"),
        (["memory", "--output", "/"], "--output /: is a folder; give a file"),
    ],
)
def test_wrong_flags_are_one_sentence(capsys, argv, sentence):
    assert main(argv) == 1
    assert sentence in capsys.readouterr().err


def a_round(seconds, overhead):
    return {"seconds": seconds, "overhead_seconds": overhead}


def run_of(n_clients, share, threads, seconds):
    rounds = [a_round(30.0, 1.0), a_round(seconds, 0.5), a_round(seconds + 2, 0.7), a_round(seconds + 1, 0.6)]
    summary = {"memory_mb": 500.0 - 300 * share, "seconds": 60.0, "test_accuracy": 0.5, "rounds": rounds}
    return JobRun(summary, 1000.0 * (1 if share else n_clients) + threads)


def test_memory_runs_every_way_that_there_is(monkeypatch):
    asked = []

    def run(options):
        asked.append(options)
        return run_of(options["n_clients"], options.get("share_model", 0), options.get("threads", 0), 4.0)

    monkeypatch.setattr(bench_memory, "run_fedbpt", run)
    result = bench_memory.memory([1, 4])
    ways = [(o["n_clients"], o.get("share_model", 0), o.get("threads", 0)) for o in asked]
    assert ways == [(1, 0, 0), (1, 1, 0), (4, 0, 0), (4, 1, 0), (4, 1, 2)]
    assert all(o["preset"] == "words" and o["num_rounds"] == result["rounds"] for o in asked)
    assert result["local"]["4"]["peak_mb"] == 4000
    assert result["shared"]["4"]["peak_mb"] == 1000
    assert result["shared"]["4"]["client_mb"] == 200
    assert result["local"]["1"]["round_seconds"] == 5.0
    assert set(result["turns"]) == {"4"}
    lines = bench_memory.memory_table(result).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:7]] == ["1", "1", "4", "4", "4"]


def test_parts_of_a_round_add_up(monkeypatch):
    monkeypatch.setattr(bench_round, "run_fedbpt", lambda options: run_of(4, 0, 0, 4.0))
    result = bench_round.round_seconds()
    seconds = result["seconds"]
    assert seconds["total"] == 5.0
    assert sum(seconds[part] for part in ("model", "cma", "messages", "nvflare")) == pytest.approx(5.0, abs=1e-3)
    assert seconds["nvflare"] + seconds["messages"] == pytest.approx(0.6, abs=1e-3)
    assert 0 < seconds["cma"] < 5
    assert "| a round | 5.000 |" in bench_round.round_table(result)
