"""What a recipe's job carries of a task of one's own; nothing is started."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from flaretune.flare.fedbpt_recipe import FedBPTRecipe
from flaretune.flare.lpfl_recipe import LPFLRecipe

from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.tasks import spec as spec_module
from tests.authoring.tickets import write_task, write_tickets

METHODS = [(FedBPTRecipe, FedBPTConfig), (LPFLRecipe, partial(LPFLConfig, soft_labels="off"))]


def exported(recipe, config, folder: Path, **options) -> tuple[Path, list[str]]:
    """The job's folder `config`, and the command of its sites."""
    recipe(config(**options), name="own").export(str(folder))
    client = json.loads((folder / "own" / "app" / "config" / "config_fed_client.json").read_text())
    return folder / "own" / "app" / "config", client["executors"][0]["executor"]["args"]["command"]


def value_of(command: list[str], flag: str) -> str | None:
    return command[command.index(flag) + 1] if flag in command else None


@pytest.mark.parametrize(("recipe", "config"), METHODS, ids=["fedbpt", "lpfl"])
def test_a_task_file_travels_and_its_relative_data_is_still_found(tmp_path, monkeypatch, recipe, config):
    file = write_task(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    carried, command = exported(recipe, config, tmp_path / "job", task_file="mine/tickets.toml")
    assert (carried / "tickets.toml").read_text() == file.read_text()
    assert value_of(command, "--task_file") == "config/tickets.toml"
    assert value_of(command, "--dataset") == str(tmp_path / "mine" / "tickets")


@pytest.mark.parametrize(("recipe", "config"), METHODS, ids=["fedbpt", "lpfl"])
def test_a_task_of_tasks_local_travels_as_a_file(tmp_path, monkeypatch, recipe, config):
    monkeypatch.setattr(spec_module, "LOCAL_FOLDER", tmp_path / "tasks_local")
    file = write_task(tmp_path / "tasks_local")
    (tmp_path / "tasks_local" / "another.toml").write_text("not of this job")
    carried, command = exported(recipe, config, tmp_path / "job", task_name="tickets")
    assert [entry.name for entry in carried.glob("*.toml")] == ["tickets.toml"]
    assert (carried / "tickets.toml").read_text() == file.read_text()
    assert value_of(command, "--task_file") == "config/tickets.toml"
    assert value_of(command, "--dataset") == str(tmp_path / "tasks_local" / "tickets")


@pytest.mark.parametrize("place", ["{cache}/tickets", "~/tickets", "/data/tickets"])
@pytest.mark.parametrize("is_local", [False, True], ids=["task_file", "tasks_local"])
def test_a_place_that_each_site_has_of_its_own_is_found_at_the_site(tmp_path, monkeypatch, place, is_local):
    """The author's folders are not those of the sites."""
    for name in ("author", "site"):
        write_tickets(tmp_path / name / "tickets")
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "author"))
    monkeypatch.setenv("HOME", str(tmp_path / "author"))
    place = place.replace("/data", str(tmp_path / "author"))
    file = write_task(tmp_path / "tasks_local", ('path = "tickets"', f'path = "{place}"'))
    monkeypatch.setattr(spec_module, "LOCAL_FOLDER", file.parent)
    named = {"task_name": "tickets"} if is_local else {"task_file": str(file)}
    carried, command = exported(*METHODS[0], tmp_path / "job", **named)
    assert value_of(command, "--dataset") is None
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "site"))
    monkeypatch.setenv("HOME", str(tmp_path / "site"))
    found = spec_module.load_task(carried / "tickets.toml").source.path
    assert found == place.replace("{cache}", str(tmp_path / "site")).replace("~", str(tmp_path / "site"))


def test_data_that_the_job_names_goes_before_the_task_s(tmp_path):
    file = write_task(tmp_path)
    own = tmp_path / "own.csv"
    own.write_text("subject,body,priority\n")
    _, command = exported(*METHODS[0], tmp_path / "a", task_file=str(file), dataset="owner/tickets")
    assert value_of(command, "--dataset") == "owner/tickets"
    _, command = exported(*METHODS[0], tmp_path / "b", task_file=str(file), data_path=str(own))
    assert value_of(command, "--dataset") is None
    assert value_of(command, "--data_path") == str(own)


def test_a_shipped_task_carries_no_place(tmp_path):
    carried, command = exported(*METHODS[0], tmp_path / "job", task_name="rte")
    assert value_of(command, "--dataset") is None
    assert not list(carried.glob("*.toml"))


def test_a_mistake_in_the_file_is_told_before_anything_runs(tmp_path):
    file = write_task(tmp_path, ('metric = "accuracy"', 'metric = "rouge"'))
    with pytest.raises(UserError, match=r"tickets\.toml, line 5: metric 'rouge' is unknown.*classification only"):
        FedBPTRecipe(FedBPTConfig(task_file=str(file))).export(str(tmp_path / "job"))
