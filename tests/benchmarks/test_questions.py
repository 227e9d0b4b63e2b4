"""Accuracy against example-forwards: the points of made-up runs that are all there, in table and figure."""

import json

import questions


def run(line, options, seed, *rounds):
    found = [{"example_forwards": asked, "accuracy": accuracy} for asked, accuracy in rounds]
    return {"line": line, "options": options, "seed": seed, "chosen": found[-1]["accuracy"], "rounds": found}


def test_a_job_is_a_line_and_jobs_of_one_round_are_one_together(tmp_path, capsys):
    several, one = "learned verbalizer", "FedBPT, two label words"
    runs = [
        run(several, dict(own), seed, (0, 0.5), (21 * own["k_shot"], 0.6 + seed / 10))
        for own in questions.LINES[several].jobs
        for seed in (1, 2)
    ]
    runs += [run(one, {}, seed, (0, 0.5), (100, 0.7), (200 + seed, 0.8 + seed / 100)) for seed in (1, 2)]
    file, figure = tmp_path / "runs.json", tmp_path / "figure.png"
    file.write_text(json.dumps({"runs": runs}), encoding="utf-8")
    given = ["--output", str(file), "--figure", str(figure), "--seeds", "1", "2", "--quiet"]
    assert questions.main([*given, "--lines", several, one]) == 0

    rows = [
        line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith(("| learned", "| Fed"))
    ]
    assert [row[2] for row in rows] == ["84", "168", "336", "672", "1,344", "0", "100", "202"]
    assert [row[3].rstrip(" |") for row in rows[-3:]] == ["0.500 ± 0.000", "0.700 ± 0.000", "0.815 ± 0.007"]
    assert {row[3].rstrip(" |") for row in rows[:5]} == {"0.750 ± 0.071"}
    assert figure.stat().st_size > 10_000
    assert json.loads(file.read_text(encoding="utf-8"))["runs"] == runs
