"""What is read from a plan: its runs, their commands, and what is wrong in it."""

import sys
from pathlib import Path

import compare
import pytest
from compare_table import Layout

from flaretune.cli.jobs import parse, read_preset
from flaretune.config.options import build
from flaretune.errors import UserError
from flaretune.methods.registry import METHODS
from tests.benchmarks.made_up_comparison import PLAN, SEED_1, SEED_3, write_plan
from tests.jobs_for_tests import REPOSITORY


def of_plans(method):
    """The preset that plans start from: the demo's, and of FedBPT the one with two label words.

    When they were run, the adapters of LP-FL's demo were those of its defaults.
    """
    preset = read_preset(method, "words" if method.name == "fedbpt" else "demo")
    return {name: value for name, value in preset.items() if name not in ("lora_rank", "target_modules", "first_layer")}


def test_every_row_has_its_first_seed_before_any_has_its_second(tmp_path):
    plan = compare.read_plan(write_plan(tmp_path))
    assert [run.folder for run in plan.runs] == SEED_3 + SEED_1
    assert plan.layout == Layout(
        {"LP-FL": ("IID", "Skewed"), "centralised (all)": ("IID",), "FedBPT": ("Skewed",)}, ("IID", "Skewed"), 2
    )


def test_options_of_common_method_split_and_row_in_this_order(tmp_path, monkeypatch):
    monkeypatch.setenv("FLARETUNE_CACHE", "/my/cache")
    plan = compare.read_plan(write_plan(tmp_path))
    commands = {run.folder: compare.job_command(run, Path("/out") / run.folder) for run in plan.runs}
    assert commands["centralised-all-iid-3"] == [
        sys.executable, str(REPOSITORY / "jobs" / "lpfl_job.py"), "--model_name=/my/cache/model", "--n_clients=1",
        "--k_shot=24", "--unlabelled=40", "--num_rounds=2", "--iid=1", "--min_clients=1", "--seed=3",
        "--output=/out/centralised-all-iid-3",
    ]  # fmt: skip
    assert commands["fedbpt-skewed-1"][1:] == [
        str(REPOSITORY / "jobs" / "fedbpt_job.py"), "--model_name=/my/cache/model", "--n_clients=3", "--k_shot=12",
        "--intrinsic_dim=7", "--iid=0", "--alpha_dir=0.5", "--min_clients=3", "--seed=1",
        "--output=/out/fedbpt-skewed-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seeds = [3, 1]", "", "it has no seeds"),
        ("seeds = [3, 1]", "seeds = [3, 3]", r"seeds = \[3, 3\] must be different whole numbers"),
        ("seeds = [3, 1]", "seeds = [true]", r"seeds = \[True\] must be different whole numbers"),
        ("seeds = [3, 1]", "seeds = [3]\nsplit = 1", "there is no 'split'; did you mean 'splits'"),
        ("seeds = [3, 1]", "seeds = 3", "seeds is 3 and must be a list"),
        (
            "seeds = [3, 1]",
            'seeds = [3]\ncolumns = ["second"]',
            "columns: there is no 'second'; did you mean 'seconds'",
        ),
        ("seeds = [3, 1]", "seeds = [3]\ncolumns = [[1]]", r"columns: there is no \[1\]; there are last, "),
        ("seeds = [3, 1]", "seeds = [3", "is not valid TOML"),
        ("[method.fedbpt]", "[method.fedbtp]", r"\[method\]: there is no 'fedbtp'; did you mean 'fedbpt'"),
        ("k_shot = 12", "k_shots = 12", "row 'LP-FL', split IID: there is no 'k_shots'; did you mean 'k_shot'"),
        ("k_shot = 12", "k_shot = 0", "row 'LP-FL', split IID: --k_shot 0: must be at least 1"),
        ("k_shot = 12", "k_shot = 1.5", "--k_shot 1.5: must be a whole number"),
        ("k_shot = 12", "unlabelled = 12", "row 'FedBPT', split Skewed: there is no 'unlabelled'"),
        ("k_shot = 12", 'output = "x"', "row 'LP-FL', split IID: there is no 'output'"),
        ("k_shot = 12", "seed = 12", "seed = 12 stands among the options; give all seeds at the top"),
        ("unlabelled = 40", "unlabelled = 0", "split IID: --soft_labels on needs unlabelled texts"),
        ("IID = { iid = 1 }", "IID = 1", "IID is 1 and must be a table"),
        ('splits = ["IID"]', 'splits = ["iid"]', "row 'centralised .all.', splits: there is no 'iid'"),
        ('splits = ["IID"]', 'splits = "IID"', "splits is 'IID' and must be a list"),
        ('splits = ["IID"]', 'splits = ["IID", "IID"]', r"the names \['IID', 'IID'\] must differ"),
        ('splits = ["IID"]', 'split = ["IID"]', "row 'centralised .all.': there is no 'split'; did you mean 'splits'"),
        ('method = "fedbpt"', 'method = "fedavg"', "row 'FedBPT': there is no 'fedavg'; there are fedbpt, lpfl"),
        ('method = "fedbpt"', "", "a row's method is None; every row needs a text there"),
        ('name = "FedBPT"', 'name = "LP FL"', "must differ in letters or digits"),
    ],
)
def test_what_is_wrong_in_a_plan_is_one_sentence(tmp_path, old, new, sentence):
    assert PLAN.count(old) == 1
    path = write_plan(tmp_path, PLAN.replace(old, new))
    with pytest.raises(UserError, match=sentence) as caught:
        compare.read_plan(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shipped_plan_has_the_rows_of_the_issue_and_flags_that_the_jobs_take(tmp_path):
    plan = compare.read_plan(compare.SHIPPED_PLAN)
    assert len(set(plan.values["seeds"])) >= 3
    for row in ("LP-FL", "LP-FL, no soft labels", "FP-FL (every parameter)", "FedBPT"):
        assert plan.layout.rows[row] == ("IID", "Dirichlet")
    assert plan.layout.rows["centralised"] == ("IID",)
    changed = {"LP-FL, no soft labels": ("soft_labels", "off"), "FP-FL (every parameter)": ("tuning", "full")}
    for run in plan.runs:
        method = METHODS[run.method]
        given = parse(method, compare.job_command(run, tmp_path)[2:])
        client, server = build(method.client_config, given), build(method.server_config, given)
        assert (client.seed, client.iid) == (run.seed, int(run.split == "IID"))
        assert given["n_clients"] == server.min_clients == (1 if run.row == "centralised" else 3)
        assert client.k_shot == plan.values["common"]["k_shot"]
        if run.row in changed:
            name, value = changed[run.row]
            assert getattr(client, name) == value


def test_the_plan_of_a_task_of_one_s_own_is_that_of_the_demos_but_for_the_task(monkeypatch, tmp_path):
    monkeypatch.setenv("FLARETUNE_CACHE", "/my/cache")
    plan = compare.read_plan(compare.SHIPPED_PLAN.with_name("own_task.toml"))
    assert plan.layout == Layout({"FedBPT": ("IID",), "LP-FL": ("IID",)}, ("IID",), 3)
    task = str(REPOSITORY / "jobs" / "tutorial" / "product_reviews.toml")
    for run in plan.runs:
        method = METHODS[run.method]
        demo = of_plans(method)
        assert demo.pop("task_name") == "movie_reviews"
        del demo["seed"], demo["name"]
        if run.method == "fedbpt":
            demo["calibrate"] = "none"  # as the demo was when the plan was run
        given = parse(method, compare.job_command(run, tmp_path)[2:])
        assert {name: given[name] for name in demo} == demo
        others = {"task_file": task, "seed": run.seed, "output": str(tmp_path), "iid": 1, "dtype": "bfloat16"}
        assert {name: value for name, value in given.items() if name not in demo} == {
            **others,
            **({"share_model": 1} if run.method == "fedbpt" else {}),
        }
        assert run.task["text_columns"] == ["sentence"]


def test_a_task_file_that_is_wrong_is_told_before_anything_is_run(tmp_path):
    for text, sentence in (("", "cannot be read"), ('text_columns = ["a"]', "line 1: ")):
        (tmp_path / "mine.toml").write_text(text) if text else None
        plan = PLAN.replace("k_shot = 12", f"k_shot = 12\ntask_file = '{tmp_path / 'mine.toml'}'")
        with pytest.raises(UserError, match=rf"row 'LP-FL', split IID: task file \S+mine.toml.* {sentence}"):
            compare.read_plan(write_plan(tmp_path, plan))


def test_the_rows_of_the_search_study_ask_half_as_many_candidates_as_the_demo():
    plan = compare.read_plan(compare.SHIPPED_PLAN.with_name("search.toml"))
    assert len(set(plan.values["seeds"])) >= 3
    for run in plan.runs:
        o = run.resolved
        on_texts = 2 if o["perturb"] else 1
        assert o["local_popsize"] * o["local_iter"] * o["num_rounds"] * on_texts == 240, run.title
    first, *others = [run for run in plan.runs if run.seed == plan.values["seeds"][0] and run.split == "IID"]
    demo = {name: value for name, value in of_plans(METHODS["fedbpt"]).items() if name not in ("seed", "model_name")}
    demo.pop("name")
    demo["num_rounds"] //= 2
    assert {name: first.resolved[name] for name in demo} == demo
    for run in others:  # which differ from it, each in something else
        changed = {name for name, value in run.resolved.items() if value != first.resolved[name]}
        assert changed, run.title


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("calibrate.toml", {"FedBPT, calibrated": "fedbpt", "LP-FL": "lpfl"}),
        ("privacy.toml", {"FedBPT, no noise": "fedbpt", "LP-FL, no noise": "lpfl"}),
        ("soft_labels.toml", {"as in the demo": "lpfl"}),
    ],
)
def test_what_other_plans_start_from_are_the_demos(file, rows):
    plan = compare.read_plan(compare.SHIPPED_PLAN.with_name(file))
    assert len(set(plan.values["seeds"])) >= 3
    for row, method in rows.items():
        demo = {k: v for k, v in of_plans(METHODS[method]).items() if k not in ("seed", "model_name", "name")}
        if file == "privacy.toml":  # few numbers to put noise on, and no prior, which would be told without
            demo |= {"subspace_dim": 200} if method == "lpfl" else {"calibrate": "none"}
        for run in plan.runs:
            if run.row == row:
                assert {name: run.resolved[name] for name in demo} == demo
