"""The comparison's plan, its runs (with a made-up job in place of a real one), its table and its figure."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import compare  # noqa: E402
import compare_report  # noqa: E402
from compare_report import Layout, Result  # noqa: E402

from flaretune.config.options import build  # noqa: E402
from flaretune.errors import UserError  # noqa: E402
from flaretune.flare.job_cli import FEDBPT, LPFL, parse, read_preset  # noqa: E402, read_preset

PLAN = """
seeds = [3, 1]
[common]
model_name = "{cache}/model"
n_clients = 3
k_shot = 12
[method.lpfl]
unlabelled = 40
num_rounds = 2
[method.fedbpt]
intrinsic_dim = 7
[splits]
IID = { iid = 1 }
Skewed = { iid = 0, alpha_dir = 0.5 }
[[rows]]
name = "LP-FL"
method = "lpfl"
[[rows]]
name = "centralised (all)"
method = "lpfl"
splits = ["IID"]
options = { n_clients = 1, k_shot = 24 }
[[rows]]
name = "FedBPT"
method = "fedbpt"
splits = ["Skewed"]
"""

# A job that ends well, badly, or not at all, by its seed's place in the plan; it counts how often it was started.
FAKE_JOB = """
import json, pathlib, subprocess, sys, time
flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[1:])
folder = pathlib.Path(flags["output"])
with open(folder.parent / "started.txt", "a") as file:
    print(folder.name, file=file)
print("a line of the job's log")
if folder.name in {failing}:
    print("error: site-2: there is no model at /x", file=sys.stderr)
    sys.exit(1)
if folder.name in {hanging}:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (folder / "pids.partial").write_text(str(child.pid))
    (folder / "pids.partial").rename(folder / "pids.txt")
    time.sleep(600)
for name in ("workspace", "best_adapter", "last_adapter", "rounds", "tb_events"):
    (folder / name).mkdir()
    (folder / name / "large").write_text("x")
values = {summary}
(folder / "summary.json").write_text(json.dumps(values))
(folder / "config.json").write_text(json.dumps({{"options": {{}}, "versions": {{"torch": "2.0"}}}}))
"""


def a_summary(**changes):
    values = {
        "zero_shot_accuracy": 0.5, "test_accuracy": 0.8, "dev_accuracy": 0.9, "best_round": 2, "queries": 9,
        "example_forwards": 1000, "bytes_down_per_client_round": 1500.0, "bytes_up_per_client_round": 1400.0,
        "memory_mb": 900.5, "seconds": 61.0, "method": "LP-FL", "artifact": "a", "artifact_kind": "adapter",
        "task": "t", "metric": "accuracy", "sites": ["site-1"], "trained_parameters": 4096,
        "soft_label_agreement": 0.75, "rounds": [{}, {}, {}],
    }  # fmt: skip
    return {**values, **changes}


def write_plan(folder: Path, text: str = PLAN) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _signals():
    """`main` takes SIGTERM; pytest gets it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def fake_job(monkeypatch, tmp_path):
    """Put a made-up job in place of the real ones."""

    def use(failing=(), hanging=(), summary=None):
        code = FAKE_JOB.format(failing=list(failing), hanging=list(hanging), summary=repr(summary or a_summary()))
        script = tmp_path / "fake_job.py"
        script.write_text(code, encoding="utf-8")

        def command(run, folder):
            return [sys.executable, str(script), *compare.job_command(run, folder)[2:]]

        monkeypatch.setattr(compare.run_job, "__defaults__", (command,))
        # tests of the figure draw it themselves, once
        monkeypatch.setattr(compare_report, "draw", lambda _layout, _results, path: path.touch())
        return script

    return use


@pytest.fixture
def main(tmp_path):
    """Run the command line on a plan of its own."""

    def call(*argv, text=PLAN):
        return compare.main(["--plan", str(write_plan(tmp_path, text)), "--output", str(tmp_path / "out"), *argv])

    return call


def started(tmp_path: Path) -> list[str]:
    """Folders of the jobs that were started since the last call."""
    file = tmp_path / "out" / "started.txt"
    names = file.read_text(encoding="utf-8").split() if file.exists() else []
    file.unlink(missing_ok=True)
    return names


SEED_3 = ["lp-fl-iid-3", "lp-fl-skewed-3", "centralised-all-iid-3", "fedbpt-skewed-3"]
SEED_1 = [name.removesuffix("3") + "1" for name in SEED_3]


# --- the plan


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
        ("seeds = [3, 1]", "seeds = [3]\nsplit = 1", "there is no option 'split'; did you mean 'splits'"),
        ("seeds = [3, 1]", "seeds = 3", "seeds = 3 must be of type list"),
        ("seeds = [3, 1]", "seeds = [3", "is not valid TOML"),
        ("[method.fedbpt]", "[method.fedbtp]", r"\[method\]: there is no 'fedbtp'; did you mean 'fedbpt'"),
        ("k_shot = 12", "k_shots = 12", "row 'LP-FL', split IID: there is no 'k_shots'; did you mean 'k_shot'"),
        ("k_shot = 12", "k_shot = 0", "row 'LP-FL', split IID: --k_shot 0: must be at least 1"),
        ("k_shot = 12", "k_shot = 1.5", "--k_shot 1.5: must be of type int"),
        ("k_shot = 12", "unlabelled = 12", "row 'FedBPT', split Skewed: there is no 'unlabelled'"),
        ("k_shot = 12", 'output = "x"', "row 'LP-FL', split IID: there is no 'output'"),
        ("k_shot = 12", "seed = 12", "seed = 12 stands among the options; give all seeds at the top"),
        ("unlabelled = 40", "unlabelled = 0", "split IID: --soft_labels on needs unlabelled texts"),
        ("IID = { iid = 1 }", "IID = 1", "IID is 1 and must be a table"),
        ('splits = ["IID"]', 'splits = ["iid"]', "row 'centralised .all.', splits: there is no 'iid'"),
        ('splits = ["IID"]', 'splits = "IID"', "splits is 'IID' and must be a list"),
        ('splits = ["IID"]', 'splits = ["IID", "IID"]', r"the names \['IID', 'IID'\] must differ"),
        ('splits = ["IID"]', 'split = ["IID"]', "row 'centralised .all.': there is no 'split'; did you mean 'splits'"),
        ('method = "fedbpt"', 'method = "fedavg"', "row 'FedBPT': there is no 'fedavg'; there are lpfl, fedbpt"),
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
    for row in ("LP-FL", "LP-FL, no soft labels", "LP-FL, A frozen (FFA-LoRA)", "FP-FL (every parameter)", "FedBPT"):
        assert plan.layout.rows[row] == ("IID", "Dirichlet")
    assert plan.layout.rows["centralised"] == plan.layout.rows["LP-FL, 30 % of soft labels random"] == ("IID",)
    changed = {"LP-FL, no soft labels": ("soft_labels", "off"), "FP-FL (every parameter)": ("tuning", "full")}
    for run in plan.runs:
        method = FEDBPT if run.method == "fedbpt" else LPFL
        given = parse(method, compare.job_command(run, tmp_path)[2:])
        site, server = build(method.site, given), build(method.server, given)
        assert (site.seed, site.iid) == (run.seed, int(run.split == "IID"))
        assert given["n_clients"] == server.min_clients == (1 if run.row == "centralised" else 3)
        assert site.k_shot == plan.values["common"]["k_shot"]
        if run.row in changed:
            name, value = changed[run.row]
            assert getattr(site, name) == value


def test_the_rows_of_the_search_study_ask_equally_many_candidates():
    plan = compare.read_plan(compare.SHIPPED_PLAN.with_name("search.toml"))
    assert len(set(plan.values["seeds"])) >= 3
    for run in plan.runs:
        o = run.resolved
        on_texts = 2 if o["perturb"] else 1
        assert o["local_popsize"] * o["local_iter"] * o["num_rounds"] * on_texts == 480, run.title
    first, *others = [run for run in plan.runs if run.seed == plan.values["seeds"][0] and run.split == "IID"]
    demo = {name: value for name, value in read_preset(FEDBPT, "demo").items() if name not in ("seed", "model_name")}
    demo.pop("name")
    assert {name: first.resolved[name] for name in demo} == demo
    for run in others:  # which differ from it, each in something else
        changed = {name for name, value in run.resolved.items() if value != first.resolved[name]}
        assert changed, run.title


# --- the runs


def test_runs_are_kept_with_what_was_asked_and_without_what_is_heavy(main, fake_job, tmp_path, capsys):
    fake_job()
    assert main() == 0
    assert started(tmp_path) == SEED_3 + SEED_1
    folder = tmp_path / "out" / "lp-fl-skewed-1"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "job.json", "log.txt", "summary.json"]
    assert (folder / "log.txt").read_text(encoding="utf-8") == "a line of the job's log\n"
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    assert job["asked"] == {
        "model_name": "{cache}/model", "n_clients": 3, "k_shot": 12, "unlabelled": 40, "num_rounds": 2, "iid": 0,
        "alpha_dir": 0.5, "min_clients": 3, "seed": 1,
    }  # fmt: skip
    assert job["asked"].items() <= job["options"].items()
    assert job["options"]["soft_labels"] == "on"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("8 runs to do, 0 kept in ")
    assert lines[1] == "LP-FL, IID, seed 3 … accuracy 0.800, 61 s, 7 left"
    assert sum(" left" in line for line in lines) == 8


# FedBPT's searched numbers stand in config.json, which the made-up job leaves empty: its summary is one of LP-FL
@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        ("k_shot = 12", "k_shot = 12", []),
        ("intrinsic_dim = 7", "intrinsic_dim = 8", ["fedbpt-skewed-3", "fedbpt-skewed-1"]),
        ("k_shot = 24", "k_shot = 25", ["centralised-all-iid-3", "centralised-all-iid-1"]),
        ("unlabelled = 40", "unlabelled = 40\nsoft_portion = 0.25", []),  # the default, said explicitly
        ("seeds = [3, 1]", "seeds = [1, 2]", [name.removesuffix("1") + "2" for name in SEED_1]),
    ],
)
def test_only_runs_whose_options_have_changed_are_run_again(main, fake_job, tmp_path, old, new, again):
    fake_job()
    main()
    started(tmp_path)
    assert main(text=PLAN.replace(old, new)) == 0
    assert started(tmp_path) == again


def test_a_default_that_has_changed_since_makes_a_run_anew_and_a_new_option_does_not(main, fake_job, tmp_path):
    fake_job()
    main()
    started(tmp_path)
    for name, change in (("lp-fl-iid-3", {"soft_portion": 0.5}), ("lp-fl-iid-1", {"soft_temperature": None})):
        file = tmp_path / "out" / name / "job.json"
        job = json.loads(file.read_text(encoding="utf-8"))
        job["options"] |= change
        job["options"] = {key: value for key, value in job["options"].items() if value is not None}
        file.write_text(json.dumps(job), encoding="utf-8")
    assert main() == 0
    assert started(tmp_path) == ["lp-fl-iid-3"]


@pytest.mark.parametrize("damage", ["summary.json", "job.json", "config.json"])
def test_a_run_whose_files_are_damaged_is_run_again(main, fake_job, tmp_path, damage):
    fake_job()
    main()
    started(tmp_path)
    (tmp_path / "out" / "lp-fl-iid-1" / damage).write_text("[", encoding="utf-8")
    assert main() == 0
    assert started(tmp_path) == ["lp-fl-iid-1"]


def test_a_failed_run_is_named_the_others_go_on_and_it_is_run_again(main, fake_job, tmp_path, capsys):
    fake_job(failing=["lp-fl-skewed-3"])
    assert main() == 1
    assert started(tmp_path) == SEED_3 + SEED_1
    log = tmp_path / "out" / "lp-fl-skewed-3" / "log.txt"
    out, err = capsys.readouterr()
    assert err == f"error: LP-FL, Skewed, seed 3 failed: site-2: there is no model at /x (see {log})\n"
    assert "LP-FL, Skewed, seed 3 … failed, 6 left" in out
    assert "a line of the job's log" in log.read_text(encoding="utf-8")
    assert "0.800 (1 of 2 seeds)" in out
    fake_job()
    assert main() == 0
    assert started(tmp_path) == ["lp-fl-skewed-3"]


def test_a_run_without_test_accuracy_has_failed(main, fake_job, tmp_path, capsys):
    fake_job(summary=a_summary(test_accuracy=None))
    assert main("--only", "FedBPT") == 1
    assert "error: FedBPT, Skewed, seed 3 failed: the results in" in capsys.readouterr().err
    assert not (tmp_path / "out" / "fedbpt-skewed-3" / "job.json").exists()


def test_only_some_rows_and_no_run_after_the_minutes(main, fake_job, tmp_path, capsys):
    fake_job()
    assert main("--minutes", "0") == 0
    assert started(tmp_path) == []
    assert "0 minutes have passed and 8 runs are left: run it again to go on" in capsys.readouterr().out
    assert main("--only", "FedBPT", "centralised (all)") == 0
    assert started(tmp_path) == [*SEED_3[2:], *SEED_1[2:]]
    assert main("--only", "FedPT") == 1
    assert "--only: there is no 'FedPT'; did you mean 'FedBPT'?" in capsys.readouterr().err


def test_the_report_alone_runs_nothing(main, fake_job, tmp_path, capsys):
    fake_job()
    assert main("--report") == 1
    assert "has no finished run of this plan" in capsys.readouterr().err
    main("--only", "LP-FL")
    facts, picture = (tmp_path / "out" / name for name in ("compare.json", "compare.png"))
    before = facts.read_text(encoding="utf-8")
    facts.unlink()
    picture.unlink()
    started(tmp_path)
    capsys.readouterr()
    assert main("--report") == 0
    assert started(tmp_path) == []
    assert facts.read_text(encoding="utf-8") == before
    assert picture.is_file()
    assert "| LP-FL | 0.800 ± 0.000 | 0.800 ± 0.000 | 4,096 |" in capsys.readouterr().out


def test_an_output_that_is_no_folder_is_named(main, tmp_path, capsys):
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    assert main() == 1
    assert "out cannot be made (File exists); give another folder" in capsys.readouterr().err


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_stopping_ends_the_job_and_all_its_processes(fake_job, tmp_path, signal_name):
    script = fake_job(hanging=["lp-fl-skewed-3"])
    output, plan = tmp_path / "out", write_plan(tmp_path)
    code = (
        "import signal, sys; sys.path.insert(0, 'benchmarks'); import compare\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where a shell started this in background
        f"made = lambda run, folder: [sys.executable, {str(script)!r}, *compare.job_command(run, folder)[2:]]\n"
        "compare.run_job.__defaults__ = (made,)\n"
        f"sys.exit(compare.main(['--plan', {str(plan)!r}, '--output', {str(output)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pids = output / "lp-fl-skewed-3" / "pids.txt"
    deadline = time.monotonic() + 120
    while not pids.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    job = psutil.Process(process.pid).children(recursive=True)
    assert int(pids.read_text(encoding="utf-8")) in [member.pid for member in job]
    os.kill(process.pid, getattr(signal, signal_name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"\nstopped: what is finished is kept in {output}; run it again to go on\n"
    assert "LP-FL, IID, seed 3 … accuracy 0.800" in out
    assert psutil.wait_procs(job, timeout=10)[1] == []
    assert (output / "lp-fl-iid-3" / "job.json").exists()
    assert not (output / "lp-fl-skewed-3" / "job.json").exists()


# --- the report


def a_result(row="LP-FL", split="IID", seed=1, **changes):
    values = {
        "row": row, "split": split, "seed": seed, "method": "LP-FL", "test_accuracy": 0.8, "zero_shot_accuracy": 0.5,
        "dev_accuracy": 0.9, "best_round": 2, "rounds": 5, "bytes_down_per_client_round": 1.5e6,
        "bytes_up_per_client_round": 1.4e6, "parameters": 368640, "example_forwards": 1000, "memory_mb": 900.0,
        "seconds": 60.0, "soft_label_agreement": None,
    }  # fmt: skip
    return Result(**{**values, **changes})


LAYOUT = Layout({"LP-FL": ("IID", "Skewed"), "FedBPT": ("IID",), "not run": ("IID",)}, ("IID", "Skewed"), 3)
RESULTS = [
    # mean 0.82, squared deviations 0.0004 + 0 + 0.0004, over n - 1 = 2: 0.02
    a_result(seed=1, test_accuracy=0.80, seconds=50.0, memory_mb=900.0, example_forwards=1000),
    a_result(seed=2, test_accuracy=0.82, seconds=70.0, memory_mb=1500.4, example_forwards=2000),
    a_result(seed=3, test_accuracy=0.84, seconds=60.0, memory_mb=800.0, example_forwards=3000),
    # two of three seeds: mean 0.7, deviations ±0.1, over 1: sqrt(0.02) = 0.1414
    a_result(split="Skewed", seed=1, test_accuracy=0.60, zero_shot_accuracy=0.49, seconds=80.0, example_forwards=4000),
    a_result(split="Skewed", seed=2, test_accuracy=0.80, zero_shot_accuracy=0.51, seconds=90.0, example_forwards=5000),
    a_result(
        "FedBPT", method="FedBPT", test_accuracy=0.755, parameters=100, rounds=12, bytes_down_per_client_round=2673.0,
        bytes_up_per_client_round=812.0, example_forwards=62976, memory_mb=1034.6, seconds=218.4,
    ),
]  # fmt: skip


def cells(text: str) -> dict[str, list[str]]:
    """Cells of a Markdown table by the first one of their line."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert len({len(line) for line in lines}) == 1
    return {first: others for first, *others in lines}


def test_the_table_s_numbers():
    text = compare_report.table(LAYOUT, RESULTS, date="2026-01-02", machine="2 cores")
    rows = cells(text)
    assert list(rows)[1:] == ["---", "zero-shot (model and template alone)", "LP-FL", "FedBPT", "not run"]
    assert rows[""][:2] == ["accuracy, IID", "accuracy, Skewed"]
    # forwards: 15000 / 5; memory: the most; seconds: 50 60 70 80 90
    assert rows["LP-FL"] == [
        "0.820 ± 0.020", "0.700 ± 0.141 (2 of 3 seeds)", "368,640", "1.5 MB + 1.4 MB", "3,000", "1,500", "50"
    ]  # fmt: skip
    assert rows["FedBPT"] == [
        "0.755 (1 of 3 seeds)", "–", "100 searched", "2.67 kB + 812 B", "62,976", "1,035", "218"
    ]  # fmt: skip
    assert rows["not run"] == ["(0 of 3 seeds)", *["–"] * 6]
    assert rows["zero-shot (model and template alone)"][:2] == ["0.500", "0.490 to 0.510"]
    assert "over 3 seeds" in text
    assert "Measured on 2 cores; last run 2026-01-02." in text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (1000, "1 kB"), (2673, "2.67 kB"), (1_474_560, "1.47 MB"),
     (999_600, "1 MB"), (1_072_000_000, "1.07 GB"), (12_345_678_901, "12.3 GB")],
)  # fmt: skip
def test_sizes_have_three_digits(n_bytes, text):
    assert compare_report.size(n_bytes) == text


@pytest.mark.parametrize("method", ["LP-FL", "FedBPT"])
def test_numbers_are_read_from_summary_and_config(tmp_path, method):
    summary = a_summary(method=method)
    if method == "FedBPT":
        del summary["trained_parameters"], summary["soft_label_agreement"]
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"options": {"intrinsic_dim": 77}}', encoding="utf-8")
    found = compare_report.read_result(tmp_path, "row", "split", 4)
    assert (found.row, found.split, found.seed, found.method) == ("row", "split", 4, method)
    assert found.parameters == (77 if method == "FedBPT" else 4096)
    assert found.soft_label_agreement == (None if method == "FedBPT" else 0.75)
    assert (found.rounds, found.best_round) == (2, 2)
    assert found.bytes_in_all == 2 * (1500 + 1400)
    assert (found.test_accuracy, found.memory_mb, found.seconds, found.example_forwards) == (0.8, 900.5, 61.0, 1000)


def test_the_facts_say_where_from_and_what_was_found(main, fake_job, tmp_path):
    fake_job()
    main("--only", "LP-FL")
    facts = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert facts["versions"] == {"torch": "2.0"}
    assert f"{len(os.sched_getaffinity(0))} cores" in facts["machine"]
    assert facts["plan"]["method"] == {"lpfl": {"unlabelled": 40, "num_rounds": 2}, "fedbpt": {"intrinsic_dim": 7}}
    named = [(run["row"], run["split"], run["seed"]) for run in facts["runs"]]
    assert named == [("LP-FL", "IID", 3), ("LP-FL", "Skewed", 3), ("LP-FL", "IID", 1), ("LP-FL", "Skewed", 1)]
    assert {run["bytes_in_all"] for run in facts["runs"]} == {5800}


def test_the_shipped_plan_s_table_goes_into_the_readme(fake_job, tmp_path, monkeypatch, capsys):
    fake_job()
    plan = write_plan(tmp_path)
    (tmp_path / "figs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_bytes("# Ä\r\n<!-- plan: begin -->\nold\n<!-- plan: end -->\nrest".encode())
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    monkeypatch.setattr(compare, "SHIPPED_PLAN", plan)
    argv = ["--plan", str(plan), "--output", str(tmp_path / "out"), "--only", "LP-FL"]
    assert compare.main(argv) == 0
    text = readme.read_bytes().decode()
    assert text.startswith("# Ä\r\n<!-- plan: begin -->\n|  | accuracy, IID |")
    assert text.endswith("\n<!-- plan: end -->\nrest")
    assert "old" not in text
    assert (tmp_path / "plan.json").is_file()
    assert (tmp_path / "figs" / "plan.png").is_file()
    assert "| LP-FL |" not in capsys.readouterr().out
    readme.write_text("no markers", encoding="utf-8")
    assert compare.main([*argv, "--report"]) == 0
    assert readme.read_text(encoding="utf-8") == "no markers"
    assert "| LP-FL |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n<!-- n: begin -->\nold\n<!-- n: end -->\nb\n", "a\n<!-- n: begin -->\nNEW\n<!-- n: end -->\nb\n"),
        ("<!-- n: begin --><!-- n: end -->", "<!-- n: begin -->\nNEW\n<!-- n: end -->"),
        ("<!-- other: begin -->\nold\n<!-- other: end -->", None),
        ("", None),
    ],
)
def test_what_stands_between_markers_is_replaced(text, expected):
    assert compare_report.between_markers(text, "n", "NEW") == expected


@pytest.mark.parametrize(
    "text",
    [
        "<!-- n: begin -->",
        "<!-- n: end -->",
        "<!-- n: end --><!-- n: begin -->",
        "<!-- n: begin --><!-- n: begin --><!-- n: end -->",
        "<!-- n: begin --><!-- n: end --><!-- n: end -->",
    ],
)
def test_markers_that_are_no_pair_are_an_error(text):
    with pytest.raises(UserError, match="the README must have <!-- n: begin --> once and, behind it, <!-- n: end -->"):
        compare_report.between_markers(text, "n", "NEW")


def test_the_figure_is_a_png(tmp_path):
    compare_report.draw(LAYOUT, RESULTS, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_figure_shows_every_seed_the_means_and_zero_shot(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_kwargs: drawn.append(figure))
    compare_report.draw(LAYOUT, RESULTS, tmp_path / "figure.png")
    lines = drawn[0].axes[0].get_lines()
    heights = [[round(float(y), 4) for y in line.get_ydata()] for line in lines]
    zero_shot = (4 * 0.5 + 0.49 + 0.51) / 6
    assert heights == [[0.8, 0.82, 0.84], [0.82], [0.6, 0.8], [0.7], [0.755], [0.755], [round(zero_shot, 4)] * 2]
    filled, hollow, fedbpt = lines[1], lines[3], lines[5]
    assert filled.get_color() == hollow.get_color() != fedbpt.get_color()
    assert filled.get_markerfacecolor() == filled.get_color()
    assert hollow.get_markerfacecolor() == "white"
    # both splits of LP-FL have 5 · 2.9 MB: side by side around it, a constant factor apart
    left, right = filled.get_xdata()[0], hollow.get_xdata()[0]
    assert left * right == pytest.approx((5 * 2.9e6) ** 2)
    assert right / left == pytest.approx(10**compare_report.DODGE)
    assert fedbpt.get_xdata()[0] == pytest.approx(12 * 3485)
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["LP-FL", "FedBPT", "IID", "Skewed", "zero-shot: 0.500"]
