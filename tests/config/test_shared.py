"""What both methods' options have in common: fields, and how a site's script reads them."""

from __future__ import annotations

import math
import re
from dataclasses import fields

import pytest

from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig
from flaretune.config.shared import ServerConfig, SiteConfig
from flaretune.config.client_flags import parse_site_flags
from flaretune.errors import UserError

# What each site needs besides its defaults.
SITES = [(FedBPTConfig, {}), (LPFLConfig, {"soft_labels": "off"})]
SERVERS = [FedBPTServerConfig, LPFLServerConfig]


@pytest.mark.parametrize(("kind", "needed"), SITES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha_dir": 0.0}, "--alpha_dir 0.0: must be above 0"),
        ({"k_shot": 0}, "--k_shot 0: must be at least 1"),
        ({"batch_size": -8}, "--batch_size -8: must be at least 0"),
        ({"iid": 2}, "--iid 2: must be one of 0, 1"),
        ({"dtype": "float16"}, "--dtype float16: must be one of auto, bfloat16, float32"),
        ({"dataset": "a", "data_path": "b"}, "--dataset and --data_path exclude each other"),
        ({"k_shot": "8"}, "--k_shot '8': must be of type int"),
    ],
)
def test_both_methods_sites_refuse_the_same_values(kind, needed, given, message):
    assert issubclass(kind, SiteConfig)
    with pytest.raises(UserError) as refused:
        kind(**needed, **given)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_rounds": 0}, "--num_rounds 0: must be at least 1"),
        ({"min_clients": 0}, "--min_clients 0: must be at least 1"),
        ({"round_timeout": 0}, "--round_timeout 0: must be at least 1"),
        ({"setup_timeout": 0}, "--setup_timeout 0: must be at least 1"),
        ({"round_timeout": math.nan}, "--round_timeout nan: must be of type int"),
    ],
)
def test_both_methods_servers_refuse_the_same_values(kind, given, message):
    assert issubclass(kind, ServerConfig)
    with pytest.raises(UserError) as refused:
        kind(**given)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(("kind", "needed"), SITES)
def test_a_task_file_goes_before_a_name(kind, needed):
    assert kind(**needed, task_name="sst2").task == "sst2"
    assert kind(**needed, task_name="sst2", task_file="mine.toml").task == "mine.toml"


@pytest.mark.parametrize(("kind", "script"), [(FedBPTConfig, "fedbpt_train.py"), (LPFLConfig, "lpfl_train.py")])
def test_the_script_is_named_after_the_method(kind, script):
    assert kind.script() == script


@pytest.mark.parametrize("kind", [FedBPTConfig, LPFLConfig])
@pytest.mark.parametrize("argv", [["--misspelt", "1"], ["--k_shot", "many"], ["--model", "5"], ["text"]])
def test_argparse_refuses_what_it_does_not_know(kind, argv, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_site_flags(kind, argv)
    assert stop.value.code == 2
    assert argv[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "flag"), [(FedBPTConfig, "sigma"), (LPFLConfig, "lora_alpha"), (LPFLConfig, "soft_weight")]
)
@pytest.mark.parametrize("text", ["nan", "-5", "0"])
def test_a_bad_number_on_the_command_line_reaches_the_check(kind, flag, text):
    with pytest.raises(UserError, match=f"--{flag} {float(text)}"):
        parse_site_flags(kind, [f"--{flag}", text])


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (FedBPTConfig, ["--intrinsic_dim N ", "(default: 500)"]),
        (LPFLConfig, ["--lora_rank N ", "(default: 8)", "{order,confident,balanced}"]),
    ],
)
def test_help_shows_every_option_with_its_default_and_a_short_usage(kind, shown, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        parse_site_flags(kind, ["--help_all"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == f"usage: {kind.script()} [--option value ...]"
    assert f"The script of a {kind.method} site." in text
    for item in fields(kind):
        assert f"--{item.name} " in text
        assert item.metadata["help"] in text
    for part in shown:
        assert part in text
    assert "--parallel" not in text


# ---- what a site says for itself ----


@pytest.mark.parametrize("kind", [FedBPTConfig, LPFLConfig])
def test_a_site_s_own_file_goes_before_the_job_s_flags(kind, tmp_path):
    (tmp_path / "reviews.csv").write_text("sentence,label\n", encoding="utf-8")
    file = tmp_path / "flaretune.toml"
    file.write_text('data_path = "reviews.csv"\ndevice = "cpu"\nmodel_name = "a-hub-id"\n', encoding="utf-8")
    flags = ["--dataset", "common", "--device", "cuda:3", "--seed", "5"]
    flags += ["--soft_labels", "off"] if kind is LPFLConfig else []
    config, sentences = parse_site_flags(kind, flags, file)
    assert (config.data_path, config.dataset) == (str(tmp_path / "reviews.csv"), "")
    assert (config.device, config.model_name, config.seed) == ("cpu", "a-hub-id", 5)
    assert sentences == [f"of this site's own {file}: data_path, device, model_name"]
    assert parse_site_flags(kind, flags, tmp_path / "none.toml")[0].dataset == "common"
    file.write_text('dataset = "its-own"\n', encoding="utf-8")
    config, _ = parse_site_flags(kind, ["--data_path", "the-author-s.csv", *flags[6:]], file)
    assert (config.data_path, config.dataset) == ("", "its-own")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed = 1", "seed must be the same at all sites, so that the job says it; a site may say dataset, data_path"),
        ('devise = "cpu"', "there is no option 'devise'; did you mean 'device'"),
        ("device = 1", "device = 1 must be of type str"),
        ("device =", "is not valid TOML"),
        ("k_shot = 0", "k_shot must be the same at all sites"),
        ("batch_size = -1", "--batch_size -1: must be at least 0"),
    ],
)
def test_mistakes_in_a_site_s_own_file_are_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "flaretune.toml"
    file.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(sentence)):
        parse_site_flags(FedBPTConfig, [], file)


def test_one_file_of_a_site_serves_both_methods(tmp_path):
    (tmp_path / "texts.csv").write_text("sentence\n", encoding="utf-8")
    file = tmp_path / "flaretune.toml"
    file.write_text(
        'lm = "http://127.0.0.1:8765"\nunlabelled_path = "texts.csv"\nstate_dir = "states"\n', encoding="utf-8"
    )
    config, sentences = parse_site_flags(FedBPTConfig, [], file)
    assert (config.lm, config.state_dir) == ("http://127.0.0.1:8765", str(tmp_path / "states"))
    assert sentences == [f"of this site's own {file}: lm, state_dir"]
    config, _ = parse_site_flags(LPFLConfig, [], file)
    assert (config.unlabelled_path, config.state_dir) == (str(tmp_path / "texts.csv"), str(tmp_path / "states"))


LM = "http://127.0.0.1:8765"


@pytest.mark.parametrize(
    ("own", "flags"),
    [
        (f'lm = "{LM}"\nbatch_size = 4\n', []),
        (f'lm = "{LM}"\n', ["--device", "cpu", "--batch_size", "8"]),
        ("batch_size = 4\n", ["--lm", LM]),
    ],
)
def test_where_a_site_has_a_service_device_and_batches_are_the_service_s(tmp_path, own, flags):
    """LP-FL, for which the file says the same, has no service."""
    file = tmp_path / "flaretune.toml"
    file.write_text(f'device = "cuda:0"\n{own}', encoding="utf-8")
    config, sentences = parse_site_flags(FedBPTConfig, flags, file)
    assert (config.lm, config.device, config.batch_size) == (LM, "auto", 0)
    assert f"--device is left to the service at {LM}" in sentences
    assert parse_site_flags(LPFLConfig, ["--unlabelled", "4"], file)[0].device == "cuda:0"


def test_a_site_s_own_task_stands_for_the_job_s_task_file(tmp_path):
    file = tmp_path / "flaretune.toml"
    file.write_text('task_name = "rte"\n', encoding="utf-8")
    config, _ = parse_site_flags(FedBPTConfig, ["--task_file", "config/other.toml"], file)
    assert (config.task_name, config.task_file, config.task) == ("rte", "", "rte")
    (tmp_path / "mine.toml").write_text("", encoding="utf-8")
    file.write_text('task_file = "mine.toml"\n', encoding="utf-8")
    assert parse_site_flags(FedBPTConfig, [], file)[0].task_file == str(tmp_path / "mine.toml")
