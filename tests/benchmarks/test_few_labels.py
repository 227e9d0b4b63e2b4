"""The table of few labels, on a tiny model: what it runs, and what it does not run again."""

import json

import few_labels

from tests.learnable import write_reviews


def test_runs_are_kept_and_not_made_again(roberta, tmp_path, capsys):
    data = write_reviews(tmp_path / "data", 60, 30)
    given = ["--tasks", f"sst2={data}", "--model_name", str(roberta), "--output", str(tmp_path / "runs.json")]
    assert few_labels.main([*given, "--labels", "1", "4", "--seeds", "1", "2"]) == 0
    runs = json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))["runs"]
    assert [(run["labels"], run["seed"]) for run in runs] == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert len({run["zero_shot"] for run in runs}) == 1  # the same test texts, and nothing learned
    assert all(0 <= run[name] <= 1 for run in runs for name in ("auto", "label_words"))
    capsys.readouterr()

    assert few_labels.main([*given, "--labels", "4", "--seeds", "1", "2", "--quiet"]) == 0
    assert json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))["runs"] == runs
    table, told = capsys.readouterr()
    assert told == ""
    [of_one, of_four] = [row for row in table.splitlines() if row.startswith("| sst2 ")]
    halves = [sum(run["auto"] for run in runs if run["labels"] == 4) / 2, runs[0]["zero_shot"]]
    assert f"{halves[0]:.3f} ± " in of_four
    assert f"{halves[1]:.3f} ± 0.000" in of_one
