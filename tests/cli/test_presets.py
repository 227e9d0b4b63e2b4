"""Presets of all methods' jobs, and the flags that go before them."""

import json

import pytest

from flaretune.cli import jobs as job_cli
from flaretune.cli.jobs import parse, presets, read_preset
from flaretune.config.client_flags import read_client_config
from flaretune.config.options import as_dict, build
from flaretune.errors import UserError
from flaretune.methods.registry import METHODS

FEDBPT, LPFL = METHODS["fedbpt"], METHODS["lpfl"]
pytestmark = pytest.mark.usefixtures("no_job")


def test_each_method_has_its_own_presets_and_script():
    assert presets(FEDBPT) == ["demo", "paper", "words"]
    assert presets(LPFL) == ["demo"]
    assert (FEDBPT.job_script, LPFL.job_script) == ("fedbpt_job.py", "lpfl_job.py")


@pytest.mark.parametrize(
    ("method", "name"), [(method, name) for method in METHODS.values() for name in presets(method)]
)
def test_a_preset_s_options_are_taken_and_its_places_filled_in(method, name):
    options = read_preset(method, name)
    assert not [value for value in options.values() if isinstance(value, str) and "{" in value]
    site, server = build(method.client_config, options), build(method.server_config, options)
    assert "num_rounds" not in options or server.num_rounds == options["num_rounds"]
    assert site.k_shot == options["k_shot"]
    assert parse(method, ["--preset", name]) == options


def test_a_preset_says_where_its_job_runs_unless_a_flag_does(monkeypatch, tmp_path):
    monkeypatch.setenv("FLARETUNE_CACHE", "/cache")
    file = tmp_path / "mine.toml"
    file.write_text('env = "prod"\nmodel_name = "{cache}/model"\n', encoding="utf-8")
    assert parse(FEDBPT, ["--preset", str(file)])["model_name"] == "{cache}/model"
    assert parse(FEDBPT, ["--preset", str(file), "--env", "sim"])["model_name"] == "/cache/model"


def test_a_home_folder_is_one_in_files_and_behind_an_equals_sign_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_text('per_client = "~/clients.toml"\n', encoding="utf-8")
    options = parse(FEDBPT, ["--preset=~/mine.toml", "--output=~/runs/a", "--startup_kit=~/kit"])
    assert options == {
        "per_client": str(tmp_path / "clients.toml"),
        "output": str(tmp_path / "runs" / "a"),
        "startup_kit": str(tmp_path / "kit"),
    }


@pytest.mark.parametrize(
    ("preset", "flag", "left"),
    [
        ('task_file = "mine.toml"', ["--task_name", "rte"], {"task_name": "rte"}),
        ('data_path = "a.csv"', ["--dataset", "b"], {"dataset": "b"}),
        ("n_clients = 4", ["--clients", "a,b"], {"clients": "a,b"}),
        ('dataset = "b"', ["--data_path", "a.csv"], {"data_path": "a.csv"}),
        ('task_name = "rte"', ["--dataset", "b"], {"task_name": "rte", "dataset": "b"}),
    ],
)
def test_a_flag_goes_before_what_a_preset_has_in_its_place(preset, flag, left, tmp_path):
    file = tmp_path / "preset.toml"
    file.write_text(preset, encoding="utf-8")
    assert parse(FEDBPT, ["--preset", str(file), *flag]) == left


@pytest.mark.parametrize(("exporting", "flags"), [(True, []), (False, ["--env", "prod"])])
def test_a_job_for_other_machines_leaves_the_cache_folder_to_them(exporting, flags, monkeypatch, tmp_path):
    monkeypatch.setattr(job_cli, "EXPORTING", exporting)
    options = parse(FEDBPT, ["--preset", "demo", *flags])
    assert options["model_name"] == "{cache}/models/gemma-3-270m"
    (tmp_path / "options.json").write_text(json.dumps(as_dict(build(FEDBPT.client_config, options))), encoding="utf-8")
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "site"))
    (tmp_path / "flaretune.toml").write_text('dataset = "{cache}/data/reviews"\n', encoding="utf-8")
    site, _ = read_client_config(
        FEDBPT.client_config, ["--config", str(tmp_path / "options.json")], tmp_path / "flaretune.toml"
    )
    assert site.model_name == str(tmp_path / "site" / "models" / "gemma-3-270m")
    assert site.dataset == str(tmp_path / "site" / "data" / "reviews")


def test_flags_override_a_preset():
    options = parse(LPFL, ["--preset", "demo", "--num_rounds", "2", "--soft_select", "order"])
    assert (options["num_rounds"], options["soft_select"]) == (2, "order")
    assert options["k_shot"] == read_preset(LPFL, "demo")["k_shot"]


@pytest.mark.parametrize(
    ("method", "name", "message"),
    [
        (FEDBPT, "domo", "--preset domo: there is no such preset; there are demo, paper, words, or give a .toml file"),
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
