"""What an exported job holds, with flaretune's code and without; test_jobs.py runs those that carry it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from flaretune.flare.fedbpt_recipe import FedBPTRecipe
from flaretune.flare.lpfl_recipe import LPFLRecipe
from flaretune.flare.site_executor import SiteExecutor
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.recipe import SimEnv
from nvflare.recipe.spec import Recipe

import flaretune
from flaretune.config.job import CARRIED, INSTALLED
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig
from tests.test_templates import components

FEDBPT = (FedBPTRecipe, FedBPTConfig, FedBPTServerConfig, {})
LPFL = (LPFLRecipe, LPFLConfig, LPFLServerConfig, {"unlabelled": 9})
METHODS = pytest.mark.parametrize("method", [FEDBPT, LPFL], ids=["fedbpt", "lpfl"])


def export(method, folder: Path, code: str, tracker: str = "", **options) -> Path:
    """The app of a job for all sites."""
    make, site, server, needed = method
    recipe = make(site(**needed, **options), server(num_rounds=7), name="job", code=code)
    if tracker:
        recipe.track(tracker)
    recipe.export(str(folder))
    return folder / "job" / "app"


def config(app: Path, side: str) -> dict:
    return json.loads((app / "config" / f"config_fed_{side}.json").read_text(encoding="utf-8"))


@METHODS
def test_a_job_of_installed_code_is_configuration_alone(method, tmp_path):
    app = export(method, tmp_path, INSTALLED, seed=3)
    assert sorted(entry.name for entry in app.iterdir()) == ["config"]
    [executor] = config(app, "client")["executors"]
    method_name = method[1].script().removesuffix("_train.py")
    assert executor["executor"]["path"] == "flaretune.flare.site_executor.SiteExecutor"
    assert executor["executor"]["args"]["script"] == f"{method_name}_train.py"
    options = executor["executor"]["args"]["options"]
    assert options[options.index("--seed") + 1] == "3"
    [workflow] = config(app, "server")["workflows"]
    assert workflow["args"]["num_rounds"] == 7


@METHODS
def test_both_ways_tell_the_sites_the_same(method, tmp_path):
    installed, carried = (export(method, tmp_path / code, code, seed=3) for code in (INSTALLED, CARRIED))
    assert config(installed, "server") == config(carried, "server")
    theirs = config(carried, "client")["executors"][0]
    ours = config(installed, "client")["executors"][0]
    assert ours["tasks"] == theirs["tasks"]
    assert ours["executor"]["args"]["options"] == theirs["executor"]["args"]["command"][3:]
    script = theirs["executor"]["args"]["command"][2]
    assert (carried / script).is_file()
    assert (carried / "custom" / "flaretune" / "__init__.py").is_file()


@pytest.mark.parametrize("code", [CARRIED, INSTALLED])
def test_a_task_file_comes_with_the_configuration(code, tmp_path):
    task = tmp_path / "tickets.toml"
    task.write_bytes((Path(flaretune.__file__).parent / "tasks" / "sst2.toml").read_bytes())
    app = export(FEDBPT, tmp_path / "jobs", code, task_file=str(task))
    assert (app / "config" / "tickets.toml").read_bytes() == task.read_bytes()
    arguments = config(app, "client")["executors"][0]["executor"]["args"]
    told = arguments["options"] if code == INSTALLED else arguments["command"]
    assert told[told.index("--task_file") + 1] == "config/tickets.toml"


@pytest.mark.parametrize(
    ("threads", "said", "each"), [(None, None, "2"), (1, None, "8"), (16, None, "1"), (2, "3", "3")]
)
def test_simulated_sites_share_the_cores_unless_the_user_has_said_otherwise(monkeypatch, threads, said, each):
    found = []
    monkeypatch.setattr(Recipe, "run", lambda *_, **__: found.append(os.environ["OMP_NUM_THREADS"]))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("OMP_NUM_THREADS", said or "")
    if said is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    FedBPTRecipe(FedBPTConfig()).run(SimEnv(num_clients=4, num_threads=threads))
    assert found == [each]
    assert os.environ.get("OMP_NUM_THREADS") == said


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="code 'borrowed': must be one of carried, installed"):
        FedBPTRecipe(FedBPTConfig(), code="borrowed")


@pytest.mark.parametrize("own", [{"dataset": "wards"}, {"data_path": "a.csv"}, {"task_file": "mine.toml"}])
def test_public_test_data_is_not_a_site_s_own(own):
    public, sites = FedBPTConfig(dp_noise=1.0, dp_public_test=1, dataset="common"), {"a": {"device": "cpu"}, "b": own}
    with pytest.raises(UserError, match="site b: --dp_public_test 1 tells right answers on test data without noise"):
        FedBPTRecipe(public, per_site=sites)
    FedBPTRecipe(public, per_site={**sites, "b": {"dataset": "common"}})


def test_the_executor_starts_flaretune_s_scripts_and_nothing_else(tmp_path):
    """Whatever lies in the job's folder, where they start, or is on PYTHONPATH."""
    executor = SiteExecutor("lpfl_train.py", ["--help"])
    for name in ("flaretune", "argparse", "numpy", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the job')", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}", "COLUMNS": "100"}
    said = subprocess.run(executor._command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("usage: lpfl_train.py ")


@pytest.mark.parametrize("script", ["../evil.py", "/bin/sh", "evil.py", ""])
def test_the_executor_refuses_other_scripts(script):
    with pytest.raises(UserError, match=r"must be one of fedbpt_train\.py, lpfl_train\.py"):
        SiteExecutor(script)


def test_the_guide_allows_exactly_the_classes_that_jobs_need(tmp_path):
    """Besides those that NVFlare allows by itself."""
    guide = (Path(__file__).parents[2] / "docs" / "operations" / "federation.md").read_text(encoding="utf-8")
    allowed = {line.strip().split('"')[1] for line in guide.splitlines() if line.strip().startswith('"flaretune.')}
    needed = set()
    for i, method in enumerate((FEDBPT, LPFL)):
        app = export(method, tmp_path / str(i), INSTALLED, tracker="mlflow")
        needed |= {path for side in ("server", "client") for path, _ in components(config(app, side))}
    assert allowed == needed - set(DEFAULT_CLASS_ALLOW_LIST)
    assert len(allowed) == 4
