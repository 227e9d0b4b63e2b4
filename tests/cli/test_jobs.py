"""The command lines of all methods' jobs, as far as nothing is started."""

import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from flaretune.cli import jobs as job_cli
from flaretune.cli.jobs import configs_of, main, parse, presets
from flaretune.config.job import JobConfig
from flaretune.config.options import build, options_of
from flaretune.engine.errors import Failure, record_failure
from flaretune.errors import UserError
from flaretune.flare import run_job
from flaretune.flare.stopping import Stopped
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.registry import METHODS

FEDBPT, LPFL = METHODS["fedbpt"], METHODS["lpfl"]
pytestmark = pytest.mark.usefixtures("no_job")


def test_published_options_without_a_meaning_are_fedbpt_s_alone(capsys):
    assert parse(FEDBPT, ["--parallel"]) == {}
    assert capsys.readouterr().err.startswith("warning: --parallel has no effect: ")
    with pytest.raises(SystemExit) as stop:
        parse(LPFL, ["--parallel"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --parallel" in capsys.readouterr().err


def test_a_command_line_of_an_earlier_version_is_taken_with_a_line_for_each_old_name(capsys, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('aggregation = "plain"\nlocal_seeds = "round"\n', encoding="utf-8")
    options = parse(FEDBPT, ["--preset", str(file), "--lm", "http://a:1", "--sites", "a.toml", "--verbose", "0"])
    assert options == {"aggregation": "mean", "model_server": "http://a:1", "per_client": "a.toml"}
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 5
    assert all(line.startswith("warning: ") for line in told)
    assert "warning: --lm is now model_server; the old name is taken for one release" in told


def test_all_that_is_wrong_with_a_job_s_options_is_told_at_once(capsys):
    assert main("fedbpt", ["--k_shot", "many", "--num_rounds", "0", "--env", "here"]) == 1
    told = capsys.readouterr().err
    assert told == (
        "error: 3 options are wrong: (1) --env here: must be one of sim, poc, prod (2) --k_shot 'many': must be a "
        "whole number (3) --num_rounds 0: must be at least 1\n"
    )


@pytest.mark.parametrize(
    ("tracking", "tracker"), [("none", ("none", "")), ("wandb", ("wandb", "")), ("mlflow=a", ("mlflow", "a"))]
)
def test_a_tracker_may_have_an_address(tracking, tracker):
    assert JobConfig(tracking=tracking).tracker == tracker
    for wrong in ("mlfow", "none=a", "mlflow="):
        with pytest.raises(UserError, match=f"--tracking {wrong}: must be one of none, mlflow"):
            JobConfig(tracking=wrong)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_results_need_a_folder(method, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert main(method.name, ["--preset", "demo", "--output", str(file)]) == 1
    assert capsys.readouterr().err == f"error: --output {file} cannot be made (File exists); give another folder\n"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_short_help_fits_a_screen_and_shows_the_main_options_alone(method, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        parse(method, ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 60
    for config in configs_of(method):
        for item in options_of(config):
            assert (f"--{item.name} " in text) == item.main, item.name
    assert "--help_all" in text


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_full_help_names_every_option_and_the_presets(method, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        parse(method, ["--help_all"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: {method.job_script} [--preset NAME]" in text
    assert f"Run a job of {method.title}, or export it" in text
    for config in configs_of(method):
        for item in options_of(config):
            assert f"--{item.name} " in text
    assert f"options from a preset ({', '.join(presets(method))}) or a TOML file" in text


@pytest.mark.parametrize(("exporting", "here"), [(True, False), (False, True)])
def test_an_exported_job_leaves_folders_to_the_hosts_it_will_run_on(exporting, here, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_job, "EXPORTING", exporting)
    made = []

    def recipe(site, server, **_):
        made.append((site, server))
        raise UserError("far enough")

    monkeypatch.setattr(run_job, "FlaretuneRecipe", recipe)
    assert main("lpfl", ["--soft_labels", "off", "--checkpoint", "kept"]) == 1
    [(site, server)] = made
    assert server.checkpoint == (str(tmp_path / "kept") if here else "kept")
    assert site.state_dir == (f"{tmp_path}/kept/clients" if here else "")


@pytest.mark.parametrize(
    ("method", "argv", "message"),
    [
        (LPFL, [], "error: --soft_labels on needs unlabelled texts"),
        (
            LPFL,
            ["--soft_labels", "off", "--tuning", "full", "--client_rank", "5"],
            "error: --tuning full --client_rank 5",
        ),
        (LPFL, ["--soft_labels", "off", "--num_rounds", "0"], "error: --num_rounds 0: must be at least 1"),
        (FEDBPT, ["--local_popsize", "1"], "error: --local_popsize 1: CMA-ES needs"),
        (FEDBPT, ["--env", "prod"], "error: --env prod needs --startup_kit"),
        (FEDBPT, ["--code", "installed"], "error: --code installed is for a real federation"),
        (FEDBPT, ["--code", "installed", "--env", "poc"], "error: --code installed is for a real federation"),
    ],
)
def test_mistakes_end_with_a_sentence_and_a_failing_status(method, argv, message, capsys):
    assert main(method.name, argv) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_a_mistake_in_the_options_leaves_an_earlier_run_s_results(tmp_path):
    left = [tmp_path / name for name in ("summary.json", "best_prompt.safetensors")]
    for file in left:
        file.touch()
    assert main("fedbpt", ["--task_file", "absent.toml", "--output", str(tmp_path)]) == 1
    assert all(file.exists() for file in left)


@pytest.mark.parametrize(
    ("method", "flags", "site", "name"),
    [
        (FEDBPT, [], FedBPTConfig(), "fedbpt"),
        (LPFL, ["--unlabelled", "64"], LPFLConfig(unlabelled=64), "lpfl"),
        (LPFL, ["--unlabelled", "64", "--name", "mine"], LPFLConfig(unlabelled=64), "mine"),
    ],
)
def test_a_job_is_named_after_the_method_and_gets_the_options(method, flags, site, name, monkeypatch):
    asked = []
    monkeypatch.setattr(job_cli, "run_job", lambda *given: asked.append(given) or {})
    monkeypatch.setattr(job_cli, "tell_results", str)
    assert (
        main(method.name, [*flags, "--num_rounds", "3"])
        == main(method.name, [*flags, "--num_rounds", "3", "--quiet"])
        == 0
    )
    assert [quiet for *_, quiet in asked] == [False, True]
    got_method, job, got_site, server, _, _ = asked[0]
    assert (got_method, job.name, got_site) == (method, name, site)
    assert server == method.server_config(num_rounds=3)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "/tmp/x", "a b", "x\ny", "-x", "ä", "x" * 101])
@pytest.mark.parametrize("flag", ["--name", "--clients"])
def test_names_of_jobs_and_clients_are_no_paths(flag, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("fedbpt", [f"{flag}={name}", "--task_name", "sst2"]) == 1
    assert f"error: {flag} " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("hospital.a", "'hospital.a': must be a name of letters, digits, and - _ between them, without a dot"),
        ("a,Server", "Server: this is the server's name; give the client another"),
        ("a,b,a", "a, a: clients need names that differ in more than case"),
        ("ward,Ward", "ward, Ward: clients need names that differ in more than case"),
    ],
)
def test_names_that_nvflare_cannot_give_to_clients_are_refused_at_the_start(names, sentence, tmp_path, capsys):
    assert main("fedbpt", ["--clients", names, "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: --clients {sentence}\n"
    tables = tmp_path / "clients.toml"
    tables.write_text("".join(f'["{name}"]\nk_shot = 4\n' for name in dict.fromkeys(names.split(","))), "utf-8")
    if names != "a,b,a":  # which TOML refuses
        assert main("fedbpt", ["--per_client", str(tables), "--output", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err == f"error: client {sentence}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["clients.toml"]


def test_names_of_clients_in_a_file_are_no_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites.toml").write_text('["../outside"]\nk_shot = 4\n', encoding="utf-8")
    assert main("fedbpt", ["--per_client", "sites.toml", "--output", "out"]) == 1
    assert "error: client '../outside': must be a name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sites.toml"]


def test_as_many_clients_as_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites.toml").write_text("[a]\nk_shot = 4\n[b]\nk_shot = 4\n", encoding="utf-8")
    for names in (["--clients", "a,b"], ["--per_client", "sites.toml"]):
        assert main("fedbpt", ["--n_clients", "3", *names, "--output", "out"]) == 1
        assert "error: --n_clients 3, and " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sites.toml"]


# ---- jobs that do not end well, without NVFlare ----


@pytest.fixture
def ends_with(monkeypatch, tmp_path):
    """Run a job in which a client records a failure and which then raises; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    logs = {"poc": tmp_path / "poc" / "example" / "prod_00", "sim": tmp_path / "out" / "workspace" / "fedbpt"}
    monkeypatch.setattr(run_job, "PatientPocEnv", lambda **_: SimpleNamespace(poc_workspace=str(tmp_path / "poc")))
    monkeypatch.setattr(run_job, "SimEnv", lambda workspace_root, **_: SimpleNamespace(workspace_root=workspace_root))
    monkeypatch.setattr(run_job, "ProdEnv", lambda **_: SimpleNamespace())
    monkeypatch.setattr(run_job, "administrator_of", lambda kit: "anna")

    def run(error, *argv, env="sim", says="its disk is full", returns=None):
        def execute(_env):
            if says:
                record_failure(logs.get(env, logs["sim"]) / "site-1", Failure("site-1", says))
            if error:
                raise error
            return returns

        recipe = SimpleNamespace(check=lambda: None, execute=execute)
        monkeypatch.setattr(run_job, "FlaretuneRecipe", lambda *_, **__: recipe)
        return main("fedbpt", ["--env", env, "--output", "out", *argv])

    return run


@pytest.mark.parametrize("env", ["sim", "poc"])
def test_what_the_clients_of_a_failed_job_said_comes_first(ends_with, env, capsys):
    """A proof of concept's folder is there only once it has begun."""
    assert ends_with(RuntimeError("the simulation failed"), env=env) == 1
    assert capsys.readouterr().err == "error: site-1: its disk is full\nerror: the simulation failed\n"


@pytest.mark.parametrize("status", ["FINISHED:EXECUTION_EXCEPTION", "FINISHED:ABORTED", "FAILED_TO_RUN"])
def test_a_job_that_fails_after_some_rounds_is_no_success(ends_with, status, monkeypatch, capsys, tmp_path):
    """Its results up to then are there."""
    workspace = tmp_path / "downloaded" / "workspace" / "flaretune"
    record_failure(workspace, Failure("server", "round 2: too few clients"))
    (workspace / "summary.json").write_text("{}", encoding="utf-8")
    result = SimpleNamespace(get_status=lambda: status, get_result=lambda **_: str(tmp_path / "downloaded"))
    assert ends_with(None, env="poc", returns=result) == 1
    assert capsys.readouterr().err == (
        f"error: site-1: its disk is full\nerror: server: round 2: too few clients\nerror: the job ended as {status}\n"
    )


def test_a_proof_of_concept_s_folder_with_a_blank_is_refused(ends_with, monkeypatch, capsys):
    monkeypatch.setattr(run_job, "PatientPocEnv", lambda **_: SimpleNamespace(poc_workspace="/tmp/a b"))
    assert ends_with(RuntimeError("never"), env="poc") == 1
    assert "'/tmp/a b', must have a path without blanks and quotes; set NVFLARE_POC" in capsys.readouterr().err


def test_an_earlier_simulation_is_not_heard_of_in_a_real_federation(ends_with, capsys, tmp_path):
    assert ends_with(RuntimeError("no such server"), "--startup_kit", str(tmp_path), env="prod") == 1
    assert capsys.readouterr().err == "error: no such server\n"


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("sim", "stopped by SIGTERM before the first round had a result"),
        ("poc", "stopped by SIGTERM before the first round had a result"),
        ("prod", "stopped by SIGTERM; the job itself goes on at the server"),
    ],
)
def test_a_job_that_is_told_to_stop_says_so_by_the_shell_s_status_too(ends_with, env, sentence, capsys, tmp_path):
    left = tmp_path / "out" / "workspace" / "fedbpt" / "server" / "simulate_job" / "flaretune" / "summary.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}", encoding="utf-8")  # of an earlier job, which the simulator had no time to remove
    assert ends_with(Stopped(signal.SIGTERM), "--startup_kit", str(tmp_path), env=env) == 143
    assert capsys.readouterr().err == f"error: {sentence}\n"


@pytest.mark.parametrize(
    ("gpu", "device"), [("", "auto"), ("2,3", "cuda:2,cuda:3"), ("[0],[1,2]", "cuda:0,cuda:1,cuda:2")]
)
def test_a_shared_model_is_on_the_gpus_that_the_job_was_given(gpu, device, monkeypatch):
    class Started(Exception):
        pass

    def started(config, log):
        raise Started(config.device)

    monkeypatch.setattr(run_job, "running_model_server", started)
    given = {"model_name": "m", "gpu": gpu, "share_model": 1}
    job, site, server = (build(kind, given) for kind in configs_of(FEDBPT))
    with pytest.raises(Started, match=f"^{device}$"):
        run_job.run_job(FEDBPT, job, site, server, {})


def test_a_shared_model_in_a_relative_folder_is_the_one_that_clients_ask_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    told = []

    def recipe(site, *_, **__):
        told.append(site.model_name)
        raise UserError("far enough")

    monkeypatch.setattr(
        run_job, "running_model_server", lambda config, _: nullcontext(told.append(config.model_name) or "http://a:1")
    )
    monkeypatch.setattr(run_job, "FlaretuneRecipe", recipe)
    assert main("fedbpt", ["--model_name", "m", "--share_model", "1"]) == 1
    assert told == [str(tmp_path / "m")] * 2


def test_a_shared_model_beside_another_model_server_is_refused():
    given = {"model_name": "m", "share_model": 1, "model_server": "http://127.0.0.1:1"}
    job, site, server = (build(kind, given) for kind in configs_of(FEDBPT))
    with pytest.raises(UserError, match="leave one of them out"):
        run_job.run_job(FEDBPT, job, site, server, {})
