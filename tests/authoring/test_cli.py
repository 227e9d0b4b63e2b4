from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import flaretune
from flaretune.cli.main import main
from flaretune.tasks import spec as spec_module
from flaretune.tasks.spec import available_tasks
from tests.authoring.tickets import GOOD, write_task, write_tickets


@pytest.fixture
def local(monkeypatch, tmp_path) -> Path:
    """Stands for src/tasks_local, with one task in it."""
    folder = tmp_path / "tasks_local"
    folder.mkdir()
    (folder / "tickets.toml").write_text(GOOD, encoding="utf-8")
    monkeypatch.setattr(spec_module, "LOCAL_FOLDER", folder)
    return folder


def run(capsys, *argv) -> tuple[int, str, str]:
    status = main(["tasks", *map(str, argv)])
    return (status, *capsys.readouterr())


def test_local_tasks_are_listed_behind_the_shipped_ones_with_their_place(capsys, local):
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [*available_tasks(), "tickets"]
    assert out.splitlines()[-1].endswith(f"Is a support ticket urgent? ({local / 'tickets.toml'})")


def test_a_local_task_that_is_wrong_hides_no_other(capsys, local):
    (local / "a_broken_one.toml").write_text(GOOD.replace('metric = "accuracy"', 'metric = "f2"'), encoding="utf-8")
    status, out, _ = run(capsys, "list")
    assert status == 0
    broken, tickets = out.splitlines()[-2:]
    assert broken.startswith("a_broken_one   wrong: task file ")
    assert "line 5: metric 'f2' is unknown" in broken
    assert tickets.startswith("tickets ")


def test_the_list_as_json(capsys, local):
    (local / "broken.toml").write_text("", encoding="utf-8")
    status, out, err = run(capsys, "list", "--json")
    assert (status, err) == (0, "")
    *shipped, broken, tickets = json.loads(out)
    assert [task["name"] for task in shipped] == available_tasks()
    assert all(task["shipped"] and task["description"] and Path(task["file"]).is_file() for task in shipped)
    assert {task["name"]: task["classes"] for task in shipped}["dbpedia"] == 14
    assert broken["error"].startswith(f"task file {local / 'broken.toml'}, line 1: ")
    assert tickets == {
        "name": "tickets", "shipped": False, "file": str(local / "tickets.toml"), "classes": 2, "metric": "accuracy",
        "description": "Is a support ticket urgent?",
    }  # fmt: skip


def test_a_local_task_with_a_shipped_one_s_name_is_told_beside_the_others(capsys, local):
    (local / "sst2.toml").write_text(GOOD, encoding="utf-8")
    status, out, _ = run(capsys)
    assert status == 0
    told = [line for line in out.splitlines() if line.startswith("sst2 ")]
    assert len(told) == 2
    assert all("has the same name; give yours another" in line for line in told)
    assert out.splitlines()[-1].startswith("tickets ")


def test_a_description_is_no_command_for_a_terminal(capsys, local):
    (local / "tickets.toml").write_text(GOOD.replace("Is a", "\\u001b[31mIs a"), encoding="utf-8")
    assert run(capsys)[1].splitlines()[-1].startswith("tickets        \\x1b[31mIs a support")


def test_what_to_do_next_is_a_line_for_the_shell_and_a_place_that_cannot_be_written_is_told(capsys, tmp_path):
    write_tickets(tmp_path / "tickets")
    flags = ["--data", tmp_path / "tickets", "--text_columns", "body", "--label_column", "priority"]
    flags += ["--label_words", "fine,urgent", "--no_questions"]
    file = tmp_path / "my task.toml"
    status, out, _ = run(capsys, "new", file, *flags)
    assert (status, out) == (0, f"{file}\nnext: python -m flaretune tasks check '{file}' --model_name NAME\n")
    status, _, err = run(capsys, "new", file / "x.toml", *flags)
    assert (status, err) == (1, f"error: {file / 'x.toml'} cannot be written (File exists); give another place\n")


def test_a_local_task_is_shown_and_checked_by_its_name(capsys, local):
    assert run(capsys, "show", "tickets") == (0, GOOD, "")
    assert run(capsys, "check", "tickets")[:2] == (
        0,
        f"task tickets ({local / 'tickets.toml'}): Is a support ticket urgent?\nno mistakes\n",
    )


def test_torch_is_loaded_for_a_model_only(tmp_path):
    file = write_task(tmp_path)
    code = (
        "import sys, flaretune.__main__\n"
        f"assert flaretune.cli.main.main(['tasks', 'check', {str(file)!r}]) == 0\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'nvflare', 'datasets'})"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(flaretune.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
