"""Going on from the runs that an earlier report tells of, where their folders are gone."""

import json
import shutil

import pytest
from compare_kept import read_earlier
from compare_plan import read_plan
from compare_result import read_entry

from tests.benchmarks.made_up_comparison import PLAN, SEED_1, SEED_3, started
from tests.jobs_for_tests import REPOSITORY


@pytest.fixture
def reported(main, finished, tmp_path):
    """A report of the runs of two rows, made on another machine on another day, whose folders are gone."""
    assert main("--report") == 0
    facts = finished / "compare.json"
    told = read(facts)
    told |= {"date": "2020-02-02", "machine": "an abacus", "versions": {"torch": "1.0"}}
    told["runs"] = [run for run in told["runs"] if run["row"] in ("LP-FL", "FedBPT")]
    for run in told["runs"]:
        run |= {"date": "2020-02-01", "machine": "an abacus", "test_accuracy": 0.6}
    shutil.rmtree(finished)
    finished.mkdir()
    write(facts, told)
    return facts


def read(facts):
    return json.loads(facts.read_text(encoding="utf-8"))


def write(facts, told):
    facts.write_text(json.dumps(told), encoding="utf-8")


def test_only_the_other_runs_are_done_and_the_report_tells_of_all(main, reported, tmp_path, capsys):
    assert main("--go_on") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"6 runs in {reported} count"
    assert lines[1].startswith("2 runs to do, 6 done (kept in ")
    assert started(tmp_path) == ["centralised-all-iid-3", "centralised-all-iid-1"]
    told = read(reported)
    assert told["versions"] == {"torch": "1.0; 2.0"}
    assert "an abacus" in told["machine"].split("; ")
    assert len(told["machine"].split("; ")) == 2
    by_row = {}
    for run in told["runs"]:
        by_row.setdefault(run["row"], set()).add((run["test_accuracy"], run["date"] == "2020-02-01", run["machine"]))
    [(_, _, here)] = by_row["centralised (all)"]
    assert by_row["centralised (all)"] == {(0.8, False, here)}
    assert by_row["LP-FL"] == by_row["FedBPT"] == {(0.6, True, "an abacus")}
    before = reported.read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "out" / "centralised-all-iid-3")
    shutil.rmtree(tmp_path / "out" / "centralised-all-iid-1")
    assert main("--go_on") == 0  # what was told twice is told as before
    assert started(tmp_path) == []
    assert reported.read_text(encoding="utf-8") == before


def test_without_it_everything_is_run(main, reported, tmp_path):
    assert main() == 0
    assert started(tmp_path) == SEED_3 + SEED_1


def test_a_run_that_has_a_folder_counts_and_not_what_was_told_of_it(main, reported, tmp_path):
    told = reported.read_text(encoding="utf-8")
    main("--only", "FedBPT")
    reported.write_text(told, encoding="utf-8")
    assert main("--go_on", "--only", "FedBPT") == 0
    found = {run["row"]: run["test_accuracy"] for run in read(reported)["runs"]}
    assert found == {"LP-FL": 0.6, "FedBPT": 0.8}


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        ("intrinsic_dim = 7", "intrinsic_dim = 8", ["fedbpt-skewed-3", "fedbpt-skewed-1"]),
        ("seeds = [3, 1]", "seeds = [1, 4]", ["lp-fl-iid-4", "lp-fl-skewed-4", "fedbpt-skewed-4"]),
        ("intrinsic_dim = 7", "intrinsic_dim = 7\nlocal_iter = 8", []),  # the default, said explicitly
    ],
)
def test_runs_whose_options_have_changed_do_not_count(main, reported, tmp_path, old, new, again):
    assert main("--go_on", "--only", "LP-FL", "FedBPT", text=PLAN.replace(old, new)) == 0
    assert started(tmp_path) == again


def test_defaults_are_those_of_then(main, reported, tmp_path, capsys):
    told = read(reported)
    told["defaults"]["fedbpt"]["local_iter"] = 9
    write(reported, told)
    assert main("--go_on", "--only", "LP-FL", "FedBPT") == 0
    assert f"4 runs in {reported} count; 2 not: local_iter was 9 and is 8" in capsys.readouterr().out
    assert started(tmp_path) == ["fedbpt-skewed-3", "fedbpt-skewed-1"]


def test_where_no_run_counts_nothing_is_run_or_replaced(main, fake_job, tmp_path, capsys):
    fake_job()
    task = REPOSITORY / "jobs" / "tutorial" / "product_reviews.toml"
    plan = PLAN.replace("k_shot = 12", f"k_shot = 12\ntask_file = '{task}'")
    main("--only", "FedBPT", text=plan)
    facts = tmp_path / "out" / "compare.json"
    started(tmp_path)
    before = facts.read_text(encoding="utf-8")
    assert main("--go_on", text=plan) == 1
    assert (
        f"error: --go_on: of the runs in {facts} none counts for this plan; 2 not: it has a task file of its own"
        in capsys.readouterr().err
    )
    assert started(tmp_path) == []
    assert facts.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    "content", [None, "[", "{}", '{"runs": [], "plan": 3}', '{"runs": [{}], "plan": {}}', "no defaults"]
)
def test_what_is_no_report_is_named(main, reported, tmp_path, capsys, content):
    told = read(reported)
    reported.unlink()
    if content == "no defaults":  # as reports were once
        del told["defaults"]
        write(reported, told)
    elif content is not None:
        reported.write_text(content, encoding="utf-8")
    assert main("--go_on") == 1
    assert f"error: --go_on: {reported} does not tell how its runs were made (" in capsys.readouterr().err
    assert started(tmp_path) == []


def test_a_committed_report_with_names_and_defaults_of_its_time_counts():
    folder = REPOSITORY / "benchmarks"
    plan, said = read_plan(folder / "search.toml"), []
    found = read_earlier(plan, folder / "search.json", said.append)
    assert set(found) == {run.folder for run in plan.runs}
    assert said == [f"{len(plan.runs)} runs in {folder / 'search.json'} count"]


@pytest.mark.parametrize("name", ["compare", "calibrate", "own_task", "privacy", "search", "soft_labels"])
def test_every_run_of_a_committed_report_can_be_read(name):
    for values in read(REPOSITORY / "benchmarks" / f"{name}.json")["runs"]:
        result = read_entry(values)
        assert (result.test_accuracy, result.validation_accuracy) == (values["test_accuracy"], values["dev_accuracy"])
