"""The comparison's runs, with a made-up job in place of a real one: which are done, kept, done again, stopped."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import compare
import psutil
import pytest

from tests.benchmarks.made_up_comparison import PLAN, SEED_1, SEED_3, a_summary, started, write_plan
from tests.jobs_for_tests import REPOSITORY


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
    assert lines[0].startswith("8 runs to do, 0 done (kept in ")
    assert lines[1] == "LP-FL, IID, seed 3 … accuracy 0.800, 61 s, 7 left"
    assert sum(" left" in line for line in lines) == 8


def test_the_report_tells_which_runs_share_a_model(main, fake_job, tmp_path, capsys):
    fake_job()
    plan = PLAN.replace("intrinsic_dim", "share_model = 1\nintrinsic_dim")
    assert main("--only", "FedBPT", "centralised (all)", text=plan) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| FedBPT |")]
    assert "| 900 * |" in line
    facts = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    found = {run["row"]: run["shared_model"] for run in facts["runs"]}
    assert found == {"FedBPT": True, "centralised (all)": False}


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
@pytest.mark.usefixtures("finished")
def test_only_runs_whose_options_have_changed_are_run_again(main, tmp_path, old, new, again):
    assert main(text=PLAN.replace(old, new)) == 0
    assert started(tmp_path) == again


def test_a_default_that_has_changed_since_makes_a_run_anew_and_a_new_option_does_not(main, finished, tmp_path):
    for name, change in (("lp-fl-iid-3", {"soft_portion": 0.5}), ("lp-fl-iid-1", {"soft_select": None})):
        file = finished / name / "job.json"
        job = json.loads(file.read_text(encoding="utf-8"))
        job["options"] |= change
        job["options"] = {key: value for key, value in job["options"].items() if value is not None}
        file.write_text(json.dumps(job), encoding="utf-8")
    assert main() == 0
    assert started(tmp_path) == ["lp-fl-iid-3"]


def test_a_task_file_that_has_changed_makes_runs_anew(main, fake_job, tmp_path):
    fake_job()
    task = tmp_path / "mine.toml"
    shipped = REPOSITORY / "jobs" / "tutorial" / "product_reviews.toml"
    task.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    plan = PLAN.replace("k_shot = 12", f"k_shot = 12\ntask_file = '{task}'")
    main("--only", "LP-FL", "centralised (all)", text=plan)
    assert len(started(tmp_path)) == 6
    for before, after, n_runs in (
        ('path = "{cache}/data/product_reviews"', 'path = "elsewhere"', 0),
        ('[" terrible", " great"]', '[" bad", " good"]', 6),
    ):
        assert before in task.read_text(encoding="utf-8")
        task.write_text(task.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
        assert main("--only", "LP-FL", "centralised (all)", text=plan) == 0
        assert len(started(tmp_path)) == n_runs


@pytest.mark.parametrize("damage", ["summary.json", "job.json", "config.json"])
def test_a_run_whose_files_are_damaged_is_run_again(main, finished, tmp_path, damage):
    (finished / "lp-fl-iid-1" / damage).write_text("[", encoding="utf-8")
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


def test_two_processes_may_work_on_one_plan(main, fake_job, tmp_path, capsys, monkeypatch):
    fake_job()
    held, done = SEED_3[1], SEED_3[2]
    main("--only", "centralised (all)")
    started(tmp_path)
    (tmp_path / "out" / done / "job.json").rename(tmp_path / "job.json")
    run_job = compare.run_job

    def while_another_works(run, output):
        if run.folder == SEED_3[0]:  # meanwhile the other finishes one run and is at another
            (tmp_path / "job.json").rename(output / done / "job.json")
        return run_job(run, output)

    monkeypatch.setattr(compare, "run_job", while_another_works)
    with (tmp_path / "out" / f".{held}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main() == 0
    assert started(tmp_path) == [SEED_3[0], SEED_3[3], *(name for name in SEED_1 if "centralised" not in name)]
    out = capsys.readouterr().out
    assert "LP-FL, Skewed, seed 3 … being run by another process, " in out
    assert "centralised (all), IID, seed 3 … done by another process, " in out
    assert main() == 0
    assert started(tmp_path) == [held]


def test_reports_of_two_processes_are_written_one_after_the_other(main, fake_job, tmp_path, monkeypatch):
    fake_job()
    write_report, held = compare.write_report, []

    def when_another_would_write(*args):
        with (tmp_path / "out" / ".report.lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.append(True)
        return write_report(*args)

    monkeypatch.setattr(compare, "write_report", when_another_would_write)
    assert main("--only", "centralised (all)") == 0
    assert len(held) == 3  # after each of the two runs, and at the end


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


@pytest.mark.slow
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
