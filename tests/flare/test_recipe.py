"""What an exported job holds, with flaretune's code and without; test_jobs.py runs those that carry it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.fuel.utils.wfconf import Configurator
from nvflare.recipe import SimEnv
from nvflare.recipe.spec import Recipe

import flaretune
from flaretune import FedBPTConfig, FedBPTRecipe, LPFLRecipe, UserError
from flaretune.config.client_flags import read_client_config
from flaretune.config.job import CARRIED, INSTALLED
from flaretune.config.options import as_dict
from flaretune.engine.errors import Failure, record_failure
from flaretune.flare.executor import OPTIONS, ClientExecutor
from flaretune.tasks.spec import task_file
from tests.test_templates import components

RECIPES = {"fedbpt": (FedBPTRecipe, {}), "lpfl": (LPFLRecipe, {"unlabelled": 9})}
EVERY_METHOD = pytest.mark.parametrize("method", RECIPES)


def export(method: str, folder: Path, code: str, tracker: str = "", **options) -> Path:
    """The app of a job for all clients."""
    make, needed = RECIPES[method]
    recipe = make(**needed, **options, num_rounds=7, name="job", code=code)
    if tracker:
        recipe.track(tracker)
    recipe.export(str(folder))
    return folder / "job" / "app"


def config(app: Path, side: str) -> dict:
    return json.loads((app / "config" / f"config_fed_{side}.json").read_text(encoding="utf-8"))


def client_options(app: Path) -> dict:
    """What the clients are told, those at their defaults left out."""
    return json.loads((app / OPTIONS).read_text(encoding="utf-8"))


@EVERY_METHOD
def test_a_job_of_installed_code_is_configuration_alone(method, tmp_path):
    app = export(method, tmp_path, INSTALLED, seed=3)
    assert sorted(entry.name for entry in app.iterdir()) == ["config"]
    [executor] = config(app, "client")["executors"]
    assert executor["executor"] == {"path": "flaretune.flare.executor.ClientExecutor", "args": {"method": method}}
    assert client_options(app) == {**RECIPES[method][1], "seed": 3}
    [workflow] = config(app, "server")["workflows"]
    assert workflow["args"]["method"] == method
    assert workflow["args"]["options"]["num_rounds"] == 7


@EVERY_METHOD
def test_both_ways_tell_the_clients_the_same(method, tmp_path):
    installed, carried = (export(method, tmp_path / code, code, seed=3) for code in (INSTALLED, CARRIED))
    assert config(installed, "server") == config(carried, "server")
    theirs = config(carried, "client")["executors"][0]
    ours = config(installed, "client")["executors"][0]
    assert ours["tasks"] == theirs["tasks"]
    assert client_options(installed) == client_options(carried)
    *_, script, flag, options = theirs["executor"]["args"]["command"]
    assert (flag, options) == ("--config", OPTIONS)
    assert (carried / script).is_file()
    assert (carried / "custom" / "flaretune" / "__init__.py").is_file()


@pytest.mark.parametrize("code", [CARRIED, INSTALLED])
def test_a_task_file_comes_with_the_configuration(code, tmp_path):
    task = tmp_path / "tickets.toml"
    task.write_bytes((Path(flaretune.__file__).parent / "tasks" / "builtin" / "sst2.toml").read_bytes())
    app = export("fedbpt", tmp_path / "jobs", code, task_file=str(task))
    assert (app / "config" / "tickets.toml").read_bytes() == task.read_bytes()
    assert client_options(app)["task_file"] == "config/tickets.toml"


@pytest.mark.parametrize(
    ("threads", "said", "each"), [(None, None, "2"), (1, None, "8"), (16, None, "1"), (2, "3", "3")]
)
def test_simulated_clients_share_the_cores_unless_the_user_has_said_otherwise(monkeypatch, threads, said, each):
    found = []
    monkeypatch.setattr(Recipe, "run", lambda *_, **__: found.append(os.environ["OMP_NUM_THREADS"]))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("OMP_NUM_THREADS", said or "")
    if said is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    FedBPTRecipe().run(SimEnv(num_clients=4, num_threads=threads))
    assert found == [each]
    assert os.environ.get("OMP_NUM_THREADS") == said


@pytest.fixture
def simulation_fails(monkeypatch, tmp_path):
    """Run a recipe whose simulation fails as NVFlare says it does; returns what is said then."""

    def fail(*_, **__):
        raise RuntimeError("Simulation failed. Logs are in places that do not exist")

    monkeypatch.setattr(Recipe, "run", fail)
    monkeypatch.setenv("PATH", os.environ["PATH"])

    def run(workspace):
        with pytest.raises(RuntimeError) as error:
            FedBPTRecipe(name="mine").run(SimEnv(num_clients=2, workspace_root=str(tmp_path / workspace)))
        return str(error.value).replace(f"{tmp_path}/", "")

    return run


@pytest.mark.parametrize("log", ["simulate_job/log.txt", "log.txt"])
@pytest.mark.parametrize("workspace", ["out", "my out"])
def test_a_simulator_that_dies_by_itself_tells_its_log_s_last_error(simulation_fails, workspace, log, tmp_path):
    file = tmp_path / workspace / "mine" / "server" / log
    file.parent.mkdir(parents=True)
    lines = ("ERROR - the first", "ERROR - the number of clients (2) must be larger", "INFO - Good Bye!")
    file.write_text("".join(f"2026-11-28 20:04:39,410 - SimulatorRunner - {line}\n" for line in lines), "utf-8")
    reason = "the simulator failed: the number of clients (2) must be larger"
    assert simulation_fails(workspace) == f"{reason} (its log is {file.relative_to(tmp_path)})"


def test_what_the_clients_of_a_failed_simulation_said_is_its_error(simulation_fails, tmp_path):
    record_failure(tmp_path / "out" / "mine" / "site-1", Failure("site-1", "its disk is full"))
    record_failure(tmp_path / "out" / "mine" / "site-2", Failure("site-2", "its disk is full"))
    record_failure(tmp_path / "out" / "mine" / "server", Failure("server", "too few clients"))
    assert simulation_fails("out") == "site-1, site-2: its disk is full; server: too few clients"


def test_a_simulation_that_left_nothing_fails_with_nvflare_s_words(simulation_fails):
    assert simulation_fails("out") == "Simulation failed. Logs are in places that do not exist"


@pytest.mark.parametrize("names", [["hospital.a", "b"], ["Server", "b"], ["a", "A"], ["a", "a"], ["a b", "c"]])
def test_names_that_nvflare_cannot_give_to_clients_are_refused_in_python_too(names, tmp_path):
    recipe = FedBPTRecipe(num_rounds=1)
    with pytest.raises(UserError, match=r"^client "):
        recipe.execute(SimEnv(clients=names, workspace_root=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="code 'borrowed': must be one of carried, installed"):
        FedBPTRecipe(code="borrowed")


@pytest.mark.parametrize("own", [{"dataset": "wards"}, {"data_path": "a.csv"}, {"task_file": "mine.toml"}])
def test_public_test_data_is_not_a_client_s_own(own):
    public, clients = FedBPTConfig(dp_noise=1.0, dp_public_test=1, dataset="common"), {"a": {"device": "cpu"}, "b": own}
    with pytest.raises(UserError, match="client b: --dp_public_test 1 tells correct predictions on test data without"):
        FedBPTRecipe(public, per_client=clients)
    FedBPTRecipe(public, per_client={**clients, "b": {"dataset": "common"}})


def test_a_client_s_option_stands_for_what_the_job_has_in_its_place(tmp_path):
    (tmp_path / "mine.toml").write_bytes(task_file("rte").read_bytes())
    per_client = {"a": {"task_name": "rte"}, "b": {"data_path": "/data/b.csv"}}
    recipe = FedBPTRecipe(task_file=str(tmp_path / "mine.toml"), dataset="common", name="job", per_client=per_client)
    recipe.export(str(tmp_path / "jobs"))
    assert client_options(tmp_path / "jobs" / "job" / "app_a") == {"task_name": "rte", "dataset": "common"}
    own = client_options(tmp_path / "jobs" / "job" / "app_b")
    assert own == {"task_file": "config/mine.toml", "data_path": "/data/b.csv"}


def test_unlabelled_texts_may_be_each_client_s_own(tmp_path):
    own = {"unlabelled_path": "/data/texts.csv"}
    LPFLRecipe(name="job", per_client={"a": own, "b": own}).export(str(tmp_path / "jobs"))
    assert client_options(tmp_path / "jobs" / "job" / "app_b") == own
    with pytest.raises(UserError, match="--soft_labels on needs unlabelled texts"):
        LPFLRecipe(name="job", per_client={"a": own, "b": {}}).export(str(tmp_path / "others"))


def test_the_executor_starts_flaretune_s_scripts_and_nothing_else(tmp_path):
    """Whatever lies in the job's folder, where they start, or is on PYTHONPATH."""
    [*command, _, _] = ClientExecutor("lpfl")._command  # which NVFlare keeps to itself
    for name in ("flaretune", "argparse", "numpy", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the job')", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}", "COLUMNS": "100"}
    said = subprocess.run([*command, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("usage: lpfl_train.py ")


@pytest.mark.parametrize("method", ["../evil", "/bin/sh", "evil.py", ""])
def test_the_executor_refuses_other_scripts(method):
    with pytest.raises(UserError, match=f"there is no method '{method}'; there are fedbpt, lpfl"):
        ClientExecutor(method)


def test_the_guide_allows_exactly_the_classes_that_jobs_need(tmp_path):
    """Besides those that NVFlare allows by itself."""
    guide = (Path(__file__).parents[2] / "docs" / "operations" / "federation.md").read_text(encoding="utf-8")
    allowed = {line.strip().split('"')[1] for line in guide.splitlines() if line.strip().startswith('"flaretune.')}
    needed = set()
    for method in RECIPES:
        app = export(method, tmp_path / method, INSTALLED, tracker="mlflow")
        needed |= {path for side in ("server", "client") for path, _ in components(config(app, side))}
    assert allowed == needed - set(DEFAULT_CLASS_ALLOW_LIST)
    assert len(allowed) == 3


STRANGE = {
    "data_path": "{cache}/a folder/{data}.csv",
    "eval_clients": 'a "quoted" one, #2',
    "model_name": "/models/{run}/it's $HOME \\ here = there",
    "state_dir": "/{workspace}",
}


@pytest.mark.parametrize("code", [CARRIED, INSTALLED])
def test_texts_with_braces_quotes_and_blanks_reach_the_clients_as_they_are(code, tmp_path, monkeypatch):
    """NVFlare takes what stands in braces in a component's arguments for names of variables."""
    app = export("fedbpt", tmp_path, code, **STRANGE)
    monkeypatch.chdir(app)
    monkeypatch.setenv("FLARETUNE_CACHE", "/cache")
    told, _ = read_client_config(FedBPTConfig, ["--config", OPTIONS])
    expected = {**STRANGE, "data_path": "/cache/a folder/{data}.csv"}
    assert {name: as_dict(told)[name] for name in STRANGE} == expected
    assert not [text for text in STRANGE.values() if text in json.dumps(config(app, "client"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["/kept/{run} of #1", 'a "b" = $c', "{workspace}", "{$HOME}", "{{a}", "{@a:b=c}", "a}"]
)
def test_texts_with_braces_and_quotes_reach_the_server_as_they_are(text, tmp_path):
    """Through what NVFlare makes of the variables in a job's file."""
    recipe = LPFLRecipe(unlabelled=9, checkpoint=text)
    recipe.track("mlflow", text)
    recipe.export(str(tmp_path))
    file = tmp_path / "lpfl" / "app" / "config" / "config_fed_server.json"
    configurator = Configurator(str(tmp_path), {}, {}, str(file), [], [])
    configurator.configure()
    read = dict(components(configurator.wf_config_data))
    assert read["flaretune.flare.controller.FlaretuneController"]["options"]["checkpoint"] == text
    assert read["flaretune.flare.tracking.RunTracking"]["uri"] == text
