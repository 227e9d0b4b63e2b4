from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flaretune
from flaretune.__main__ import main
from flaretune.tasks import spec as spec_module
from flaretune.tasks.spec import available_tasks
from tests.own_task.tickets import GOOD, write_task


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
        f"assert flaretune.__main__.main(['tasks', 'check', {str(file)!r}]) == 0\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'nvflare', 'datasets'})"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(flaretune.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
