"""`python -m flaretune`: its commands without a model, its flags, its help, and what it imports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flaretune.cli.main import main
from flaretune.data import demo as demo_assets
from flaretune.tasks.spec import available_tasks
from tests.commands_for_tests import SRC, python, run
from tests.engine.summaries import a_summary


@pytest.fixture
def finished_run(tmp_path) -> Path:
    (tmp_path / "summary.json").write_text(json.dumps(a_summary()))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "argv",
    [
        *([], ["predikt"], ["predict", "text"], ["evaluate", "--prompt", "p"], ["plot"]),
        *(["watch"], ["watch", "--startup_kit", "k", "--interval", "-1"]),
        *(["tasks", "delete"], ["tasks", "show"], ["tasks", "check"], ["tasks", "new", "a.toml"]),
    ],
)
def test_argparse_answers_wrong_flags_with_status_2(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: flaretune" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["predict", "evaluate", "plot", "report", "tasks", "try", "watch", "serve", "options", "fetch"]
)
def test_every_command_has_a_help_text(capsys, command):
    for argv in (["--help"], [command, "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 0
        assert command in capsys.readouterr().out


def test_plot_draws_into_the_run_or_where_it_is_told(capsys, finished_run, tmp_path):
    elsewhere = tmp_path / "figure.png"
    for argv, file in (([], finished_run / "curve.png"), (["--output", elsewhere], elsewhere)):
        assert run(capsys, "plot", finished_run, *argv) == (0, f"{file}\n", "")
        assert file.read_bytes()[:4] == b"\x89PNG"


def test_report_is_written_into_the_run_or_where_it_is_told(capsys, finished_run, tmp_path):
    elsewhere = tmp_path / "elsewhere.html"
    for argv, file in (([], finished_run / "report.html"), (["--output", elsewhere], elsewhere)):
        assert run(capsys, "report", finished_run, *argv) == (0, f"{file}\n", "")
        assert "Test accuracy <strong>0.600 ± 0.024</strong>" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["absent"], "absent/summary.json cannot be read"),
        (["{run}", "--evaluation", "absent.json"], "absent.json cannot be read"),
        (["{run}", "--output", "absent/a.html"], "--output absent/a.html: there is no folder absent"),
    ],
)
def test_a_report_that_cannot_be_written_is_one_sentence(capsys, finished_run, argv, message):
    status, out, err = run(capsys, "report", *(word.format(run=finished_run) for word in argv))
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_tasks_lists_all_with_their_descriptions(capsys):
    status, out, _ = run(capsys, "tasks")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == available_tasks()
    assert all(len(line.split()) > 3 for line in out.splitlines())
    assert run(capsys, "tasks", "list") == (0, out, "")


def test_tasks_show_prints_a_file(capsys, tmp_path):
    shipped = (SRC / "flaretune" / "tasks" / "builtin" / "sst2.toml").read_text()
    assert run(capsys, "tasks", "show", "sst2") == (0, shipped, "")
    (tmp_path / "mine.toml").write_text(shipped + "# mine\n")
    assert run(capsys, "tasks", "show", tmp_path / "mine.toml") == (0, shipped + "# mine\n", "")


def test_options_prints_the_reference(capsys):
    reference = SRC.parent / "docs" / "reference" / "options.md"
    assert run(capsys, "options") == (0, reference.read_text(encoding="utf-8"), "")


def test_fetch_says_where_the_assets_are(capsys, monkeypatch):
    assets = {"model": "/cache/models/m", "movie_reviews": "/cache/data/a", "product_reviews": "/cache/data/b"}
    assets = {name: Path(place) for name, place in assets.items()}
    monkeypatch.setattr(demo_assets, "fetch_all", lambda log: log("Fetching") or assets)
    found = "model            /cache/models/m\nmovie_reviews    /cache/data/a\nproduct_reviews  /cache/data/b\n"
    assert run(capsys, "fetch") == (0, f"Fetching\n{found}", "")
    assert run(capsys, "fetch", "--quiet") == (0, found, "")
    status, out, _ = run(capsys, "fetch", "--json")
    assert (status, json.loads(out)["product_reviews"]) == (0, "/cache/data/b")


def test_the_command_line_is_there_before_torch_and_never_needs_nvflare():
    code = (
        "import sys, flaretune.__main__\n"
        "flaretune.cli.main.main(['tasks'])\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'nvflare', 'matplotlib'})"
    )
    done = python("-c", code)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.slow
def test_runs_can_be_plotted_where_nvflare_is_not_installed(without_nvflare, finished_run):
    code = (
        "import importlib.util, sys, flaretune.cli.main\n"
        f"assert importlib.util.find_spec('nvflare').origin.startswith({str(without_nvflare)!r})\n"
        "sys.exit(flaretune.cli.main.main(sys.argv[1:]))"
    )
    done = python("-c", code, "plot", str(finished_run), path=without_nvflare)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{finished_run / 'curve.png'}\n", "")


def test_a_command_says_which_package_it_lacks(without_models, tmp_path):
    rows = [f"a film of {number} hours,{number % 2}" for number in range(40)]
    (tmp_path / "texts.csv").write_text("\n".join(["sentence,label", *rows]) + "\n", encoding="utf-8")
    asked = ("try", tmp_path / "texts.csv", "--text", "sentence", "--label", "label", "--model_name", tmp_path)
    done = python("-m", "flaretune", *asked, path=without_models)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the package torch is not installed: this takes all of ")
    assert "Traceback" not in done.stderr
