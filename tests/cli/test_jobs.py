"""The command lines of both methods' jobs, as far as nothing is started."""

import signal
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
from nvflare.fuel.utils.json_scanner import JsonScanner
from nvflare.fuel.utils.wfconf import resolve_var_refs

from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.config.job import JobConfig
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.config.options import build, to_argv
from flaretune.config.client_flags import parse_site_flags
from flaretune.errors import UserError
from flaretune.cli import jobs as job_cli
from flaretune.cli.jobs import FEDBPT, LPFL, main, parse, presets, read_preset
from flaretune.flare.stopping import Stopped

METHODS = [FEDBPT, LPFL]


@pytest.fixture(autouse=True)
def _no_job(monkeypatch, tmp_path):
    """And a cache folder that is not this machine's."""
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(job_cli, "SimEnv", lambda **_: pytest.fail("a job was about to start"))


def test_each_method_has_its_own_presets_and_script():
    assert presets(FEDBPT) == ["demo", "paper"]
    assert presets(LPFL) == ["demo"]
    assert (FEDBPT.script, LPFL.script) == ("fedbpt_job.py", "lpfl_job.py")


@pytest.mark.parametrize(("method", "name"), [(method, name) for method in METHODS for name in presets(method)])
def test_a_preset_s_options_are_taken_and_its_places_filled_in(method, name):
    options = read_preset(method, name)
    assert not [value for value in options.values() if isinstance(value, str) and "{" in value]
    site, server = build(method.site, options), build(method.server, options)
    assert server.num_rounds == options["num_rounds"]
    assert site.k_shot == options["k_shot"]
    assert parse(method, ["--preset", name]) == options


@pytest.mark.parametrize(("exporting", "flags"), [(True, []), (False, ["--env", "prod"])])
def test_a_job_for_other_machines_leaves_the_cache_folder_to_them(exporting, flags, monkeypatch, tmp_path):
    monkeypatch.setattr(job_cli, "EXPORTING", exporting)
    options = parse(FEDBPT, ["--preset", "demo", *flags])
    assert options["model_name"] == "{cache}/models/gemma-3-270m"
    command = {"command": to_argv(build(FEDBPT.site, options))}
    resolve_var_refs(JsonScanner(command), {"app_script": "fedbpt_train.py"})  # as NVFlare reads a job's configuration
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "site"))
    (tmp_path / "flaretune.toml").write_text('dataset = "{cache}/data/reviews"\n', encoding="utf-8")
    site, _ = parse_site_flags(FEDBPT.site, command["command"], tmp_path / "flaretune.toml")
    assert site.model_name == str(tmp_path / "site" / "models" / "gemma-3-270m")
    assert site.dataset == str(tmp_path / "site" / "data" / "reviews")


def test_flags_override_a_preset():
    options = parse(LPFL, ["--preset", "demo", "--num_rounds", "2", "--soft_select", "order"])
    assert (options["num_rounds"], options["soft_select"]) == (2, "order")
    assert options["k_shot"] == read_preset(LPFL, "demo")["k_shot"]


@pytest.mark.parametrize(
    ("method", "name", "message"),
    [
        (FEDBPT, "domo", "--preset domo: there is no such preset; there are demo, paper, or give a .toml file"),
        (LPFL, "paper", "--preset paper: there is no such preset; there are demo, or give a .toml file"),
        (LPFL, "./nowhere.toml", "--preset ./nowhere.toml: there is no such preset"),
    ],
)
def test_a_preset_that_is_not_there(method, name, message):
    with pytest.raises(UserError) as refused:
        read_preset(method, name)
    assert str(refused.value).startswith(message)


def test_a_preset_with_the_other_method_s_options_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('soft_labels = "off"\nn_clients = 3\n', encoding="utf-8")
    assert parse(LPFL, ["--preset", str(file)]) == {"soft_labels": "off", "n_clients": 3}
    with pytest.raises(UserError, match="there is no option 'soft_labels'"):
        parse(FEDBPT, ["--preset", str(file)])


def test_published_options_without_a_meaning_are_fedbpt_s_alone(capsys):
    assert parse(FEDBPT, ["--parallel"]) == {"parallel": ""}
    with pytest.raises(SystemExit) as stop:
        parse(LPFL, ["--parallel"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --parallel" in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_results_need_a_folder(method, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert main(method, ["--preset", "demo", "--output", str(file)]) == 1
    assert capsys.readouterr().err == f"error: --output {file} cannot be made (File exists); give another folder\n"


@pytest.mark.parametrize("method", METHODS)
def test_short_help_fits_a_screen_and_shows_the_main_options_alone(method, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        parse(method, ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 60
    for config in (job_cli.JobConfig, method.site, method.server):
        for item in fields(config):
            assert (f"--{item.name} " in text) == item.metadata["main"], item.name
    assert "--help_all" in text


@pytest.mark.parametrize("method", METHODS)
def test_full_help_names_every_option_and_the_presets(method, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        parse(method, ["--help_all"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: {method.script} [--preset NAME]" in text
    assert f"Run a job of {method.site.method}, or export it" in text
    for config in (job_cli.JobConfig, method.site, method.server):
        for item in fields(config):
            assert f"--{item.name} " in text
    assert f"options from a preset ({', '.join(presets(method))}) or a TOML file" in text


@pytest.mark.parametrize(("exporting", "here"), [(True, False), (False, True)])
def test_an_exported_job_leaves_folders_to_the_hosts_it_will_run_on(exporting, here, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job_cli, "EXPORTING", exporting)
    made = []

    def recipe(site, server, **_):
        made.append((site, server))
        raise UserError("far enough")

    assert main(replace(LPFL, recipe=recipe), ["--soft_labels", "off", "--checkpoint", "kept"]) == 1
    [(site, server)] = made
    assert server.checkpoint == (str(tmp_path / "kept") if here else "kept")
    assert site.state_dir == (f"{tmp_path}/kept/sites" if here else "")


@pytest.mark.parametrize(
    ("method", "argv", "message"),
    [
        (LPFL, [], "error: --soft_labels on needs unlabelled texts"),
        (LPFL, ["--soft_labels", "off", "--tuning", "full", "--freeze_a", "1"], "error: --tuning full --freeze_a 1"),
        (LPFL, ["--soft_labels", "off", "--num_rounds", "0"], "error: --num_rounds 0: must be at least 1"),
        (FEDBPT, ["--local_popsize", "1"], "error: --local_popsize 1: CMA-ES needs"),
        (FEDBPT, ["--env", "prod"], "error: --env prod needs --startup_kit"),
        (FEDBPT, ["--code", "installed"], "error: --code installed is for a real federation"),
        (FEDBPT, ["--code", "installed", "--env", "poc"], "error: --code installed is for a real federation"),
    ],
)
def test_mistakes_end_with_a_sentence_and_a_failing_status(method, argv, message, capsys):
    assert main(method, argv) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


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
    monkeypatch.setattr(job_cli, "run", lambda *given: asked.append(given) or 0)
    assert main(method, [*flags, "--num_rounds", "3"]) == main(method, [*flags, "--num_rounds", "3", "--quiet"]) == 0
    assert [quiet for *_, quiet in asked] == [False, True]
    got_method, job, got_site, server, _ = asked[0]
    assert (got_method, job.name, got_site) == (method, name, site)
    assert server == method.server(num_rounds=3)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "/tmp/x", "a b", "x\ny", "-x", "ä", "x" * 101])
@pytest.mark.parametrize("flag", ["--name", "--clients"])
def test_names_of_jobs_and_sites_are_no_paths(flag, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(FEDBPT, [f"{flag}={name}", "--task_name", "sst2"]) == 1
    assert f"error: {flag} " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_of_sites_in_a_file_are_no_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites.toml").write_text('["../outside"]\nk_shot = 4\n', encoding="utf-8")
    assert main(FEDBPT, ["--sites", "sites.toml", "--output", "out"]) == 1
    assert "error: site '../outside': must be a name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sites.toml"]


# ---- jobs that do not end well, without NVFlare ----


@pytest.fixture
def ends_with(monkeypatch, tmp_path):
    """Run a job that leaves a log of its first site and then raises; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    logs = {"poc": tmp_path / "poc" / "example" / "prod_00", "sim": tmp_path / "out" / "workspace" / "fedbpt"}
    monkeypatch.setattr(job_cli, "PatientPocEnv", lambda **_: SimpleNamespace(poc_workspace=str(tmp_path / "poc")))
    monkeypatch.setattr(job_cli, "SimEnv", lambda workspace_root, **_: SimpleNamespace(workspace_root=workspace_root))
    monkeypatch.setattr(job_cli, "ProdEnv", lambda **_: SimpleNamespace())
    monkeypatch.setattr(job_cli, "administrator_of", lambda kit: "anna")

    def run(error, *argv, env="sim"):
        def execute(_env):
            log = logs.get(env, logs["sim"]) / "site-1" / "log.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("ERROR flaretune.site: its disk is full\n", encoding="utf-8")
            raise error

        recipe = lambda *_, **__: SimpleNamespace(execute=execute)  # noqa: E731
        return main(replace(FEDBPT, recipe=recipe), ["--env", env, "--output", "out", *argv])

    return run


@pytest.mark.parametrize("env", ["sim", "poc"])
def test_what_the_sites_of_a_failed_job_said_comes_first(ends_with, env, capsys):
    """A proof of concept's folder is there only once it has begun."""
    assert ends_with(RuntimeError("the simulation failed"), env=env) == 1
    assert capsys.readouterr().err == "error: site-1: its disk is full\nerror: the simulation failed\n"


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

    monkeypatch.setattr(job_cli, "running_model_server", started)
    job, site, server = (
        build(cls, {"model_name": "m", "gpu": gpu, "share_lm": 1}) for cls in (JobConfig, FEDBPT.site, FEDBPT.server)
    )
    with pytest.raises(Started, match=f"^{device}$"):
        job_cli.run(FEDBPT, job, site, server)
