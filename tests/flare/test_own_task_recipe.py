"""What a recipe's job carries of a task of one's own; nothing is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flaretune import FedBPTRecipe, LPFLRecipe, UserError, VerbalizerRecipe
from flaretune.flare.executor import OPTIONS
from flaretune.tasks import spec as spec_module
from tests.authoring.tickets import write_task, write_tickets

METHODS = [(FedBPTRecipe, {}), (LPFLRecipe, {"soft_labels": "off"})]


def exported(recipe, needed, folder: Path, **options) -> tuple[Path, dict]:
    """The job's folder `config`, and what its clients are told besides the defaults."""
    recipe(**needed, **options, name="own").export(str(folder))
    app = folder / "own" / "app"
    return app / "config", json.loads((app / OPTIONS).read_text(encoding="utf-8"))


@pytest.mark.parametrize("written", ["mine/tickets.toml", "~/mine/tickets.toml"])
@pytest.mark.parametrize(("recipe", "needed"), METHODS, ids=["fedbpt", "lpfl"])
def test_a_task_file_travels_and_its_relative_data_is_still_found(tmp_path, monkeypatch, recipe, needed, written):
    file = write_task(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    carried, told = exported(recipe, needed, tmp_path / "job", task_file=written)
    assert (carried / "tickets.toml").read_text() == file.read_text()
    assert told["task_file"] == "config/tickets.toml"
    assert told["dataset"] == str(tmp_path / "mine" / "tickets")


@pytest.mark.parametrize(("recipe", "needed"), METHODS, ids=["fedbpt", "lpfl"])
def test_a_task_of_tasks_local_travels_as_a_file(tmp_path, monkeypatch, recipe, needed):
    monkeypatch.setattr(spec_module, "LOCAL_FOLDER", tmp_path / "tasks_local")
    file = write_task(tmp_path / "tasks_local")
    (tmp_path / "tasks_local" / "another.toml").write_text("not of this job")
    carried, told = exported(recipe, needed, tmp_path / "job", task_name="tickets")
    assert [entry.name for entry in carried.glob("*.toml")] == ["tickets.toml"]
    assert (carried / "tickets.toml").read_text() == file.read_text()
    assert told["task_file"] == "config/tickets.toml"
    assert told["dataset"] == str(tmp_path / "tasks_local" / "tickets")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["{cache}/tickets", "~/tickets", "/data/tickets"])
@pytest.mark.parametrize("is_local", [False, True], ids=["task_file", "tasks_local"])
def test_a_place_that_each_client_has_of_its_own_is_found_at_the_client(tmp_path, monkeypatch, place, is_local):
    """The author's folders are not those of the clients."""
    for name in ("author", "client"):
        write_tickets(tmp_path / name / "tickets")
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "author"))
    monkeypatch.setenv("HOME", str(tmp_path / "author"))
    place = place.replace("/data", str(tmp_path / "author"))
    file = write_task(tmp_path / "tasks_local", ('path = "tickets"', f'path = "{place}"'))
    monkeypatch.setattr(spec_module, "LOCAL_FOLDER", file.parent)
    named = {"task_name": "tickets"} if is_local else {"task_file": str(file)}
    carried, told = exported(*METHODS[0], tmp_path / "job", **named)
    assert "dataset" not in told
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "client"))
    monkeypatch.setenv("HOME", str(tmp_path / "client"))
    found = spec_module.load_task(carried / "tickets.toml").source.path
    assert found == place.replace("{cache}", str(tmp_path / "client")).replace("~", str(tmp_path / "client"))


def test_data_that_the_job_names_goes_before_the_task_s(tmp_path):
    file = write_task(tmp_path)
    own = tmp_path / "own.csv"
    own.write_text("subject,body,priority\n")
    _, told = exported(*METHODS[0], tmp_path / "a", task_file=str(file), dataset="owner/tickets")
    assert told["dataset"] == "owner/tickets"
    _, told = exported(*METHODS[0], tmp_path / "b", task_file=str(file), data_path=str(own))
    assert "dataset" not in told
    assert told["data_path"] == str(own)


def test_a_shipped_task_carries_no_place(tmp_path):
    carried, told = exported(*METHODS[0], tmp_path / "job", task_name="rte")
    assert "dataset" not in told
    assert not list(carried.glob("*.toml"))


def test_a_mistake_in_the_file_is_told_before_anything_runs(tmp_path):
    file = write_task(tmp_path, ('metric = "accuracy"', 'metric = "rouge"'))
    with pytest.raises(UserError, match=r"tickets\.toml, line 5: metric 'rouge' is unknown.*classification only"):
        FedBPTRecipe(task_file=str(file)).export(str(tmp_path / "job"))


WORDS = 'label_words = [" fine", " urgent"]'


def test_label_words_are_left_to_the_verbalizer_alone(tmp_path):
    file = write_task(tmp_path, (WORDS, 'label_words = "auto"'))
    for recipe, needed in METHODS:
        with pytest.raises(UserError, match=r"is for the verbalizer method, .* needs label words") as refused:
            exported(recipe, needed, tmp_path / "job", task_file=str(file))
        assert "\n" not in str(refused.value)
    assert exported(VerbalizerRecipe, {}, tmp_path / "job", task_file=str(file))[1]["task_file"]
