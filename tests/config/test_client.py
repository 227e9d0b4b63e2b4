"""What both methods' options have in common: fields, and how a client's script reads them."""

from __future__ import annotations

import json
import math
import re

import pytest
from pyhocon import ConfigFactory

from flaretune.config.client import ClientConfig
from flaretune.config.client_flags import read_client_config
from flaretune.config.options import as_dict, options_of
from flaretune.config.server import ServerConfig
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig

LM = "http://127.0.0.1:8765"
ALL = [FedBPTConfig, LPFLConfig]
# What each client needs besides its defaults.
CLIENTS = [(FedBPTConfig, {}), (LPFLConfig, {"soft_labels": "off"})]
SERVERS = [FedBPTServerConfig, LPFLServerConfig]


@pytest.mark.parametrize(("kind", "needed"), CLIENTS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha_dir": 0.0}, "--alpha_dir 0.0: must be above 0"),
        ({"k_shot": 0}, "--k_shot 0: must be at least 1"),
        ({"batch_size": -8}, "--batch_size -8: must be at least 0"),
        ({"iid": 2}, "--iid 2: must be one of 0, 1"),
        ({"dtype": "float16"}, "--dtype float16: must be one of auto, bfloat16, float32"),
        ({"dataset": "a", "data_path": "b"}, "--dataset and --data_path exclude each other"),
        ({"k_shot": "8"}, "--k_shot '8': must be a whole number"),
    ],
)
def test_both_methods_clients_refuse_the_same_values(kind, needed, given, message):
    assert issubclass(kind, ClientConfig)
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
        ({"round_timeout": math.nan}, "--round_timeout nan: must be a whole number"),
    ],
)
def test_both_methods_servers_refuse_the_same_values(kind, given, message):
    assert issubclass(kind, ServerConfig)
    with pytest.raises(UserError) as refused:
        kind(**given)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(("kind", "needed"), CLIENTS)
def test_a_task_file_goes_before_a_name(kind, needed):
    assert kind(**needed, task_name="sst2").task == "sst2"
    assert kind(**needed, task_name="sst2", task_file="mine.toml").task == "mine.toml"


@pytest.mark.parametrize(("kind", "script"), [(FedBPTConfig, "fedbpt_train.py"), (LPFLConfig, "lpfl_train.py")])
def test_the_script_is_named_after_the_method(kind, script):
    assert kind.script() == script


@pytest.mark.parametrize("kind", [FedBPTConfig, LPFLConfig])
@pytest.mark.parametrize("argv", [["--misspelt", "1"], ["--model", "5"], ["text"]])
def test_a_flag_that_is_not_known_ends_the_script(kind, argv, capsys):
    with pytest.raises(SystemExit) as stop:
        read_client_config(kind, argv)
    assert stop.value.code == 2
    assert argv[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "flag"), [(FedBPTConfig, "sigma"), (LPFLConfig, "lora_alpha"), (LPFLConfig, "alpha_dir")]
)
@pytest.mark.parametrize("text", ["nan", "-5", "0"])
def test_a_bad_number_on_the_command_line_reaches_the_check(kind, flag, text):
    with pytest.raises(UserError, match=f"--{flag} {float(text)}"):
        read_client_config(kind, [f"--{flag}", text])


def test_all_that_is_wrong_with_a_command_line_is_told(capsys):
    argv = ["--k_shot", "many", "--sigma", "0", "--iid=2"]
    with pytest.raises(UserError) as refused:
        read_client_config(FedBPTConfig, argv)
    wrong = str(refused.value)
    assert wrong.startswith("3 options are wrong: ")
    for sentence in (
        "--k_shot 'many': must be a whole number",
        "--sigma 0.0: must be above 0",
        "--iid 2: must be one of 0, 1",
    ):
        assert sentence in wrong
    with pytest.raises(SystemExit):
        read_client_config(FedBPTConfig, [*argv, "--k_shoot", "8"])
    told = capsys.readouterr().err
    assert "unrecognized arguments: --k_shoot 8; --k_shoot: did you mean '--k_shot'?; --k_shot 'many': must be" in told


# ---- options in a JSON file ----


@pytest.mark.parametrize(
    "config",
    [
        FedBPTConfig(),
        FedBPTConfig(seed=7, init_prompt='it\'s "so" {cache} ä', alpha=0.1, perturb=1, model_server="http://a:1"),
        LPFLConfig(unlabelled=4, lora_alpha=8, soft_select="order"),
    ],
)
def test_a_whole_config_travels_as_json(config, tmp_path):
    file = tmp_path / "options.json"
    file.write_text(json.dumps(as_dict(config)), encoding="utf-8")
    assert read_client_config(type(config), ["--config", str(file)]) == (config, [])


def test_flags_and_a_client_s_own_file_go_before_the_json(tmp_path):
    file = tmp_path / "options.json"
    file.write_text('{"seed": 7, "k_shot": 8, "dataset": "common"}', encoding="utf-8")
    argv = ["--config", str(file), "--k_shot", "9"]
    config, _ = read_client_config(FedBPTConfig, argv)
    assert (config.seed, config.k_shot, config.dataset) == (7, 9, "common")
    (tmp_path / "flaretune.toml").write_text('data_path = "a.csv"\n', encoding="utf-8")
    config, _ = read_client_config(FedBPTConfig, argv, tmp_path / "flaretune.toml")
    assert (config.seed, config.data_path, config.dataset) == (7, "a.csv", "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "options.json is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1]", "options.json: must hold a JSON object of options, not [1]"),
        ('{"k_shoot": 1}', "--k_shoot is no option; did you mean 'k_shot'?"),
        ('{"k_shot": "8"}', "--k_shot '8': must be a whole number"),
        ('{"k_shot": 8.0, "alpha": NaN}', "(1) --k_shot 8.0: must be a whole number (2) --alpha nan: must be a finite"),
    ],
)
def test_json_that_is_no_config_is_refused(text, sentence, tmp_path):
    file = tmp_path / "options.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_client_config(FedBPTConfig, ["--config", str(file)])
    with pytest.raises(UserError, match=r"none\.json cannot be read \(No such file"):
        read_client_config(FedBPTConfig, ["--config", str(tmp_path / "none.json")])


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (FedBPTConfig, ["--intrinsic_dim N ", "(default: 500)"]),
        (LPFLConfig, ["--lora_rank N ", "(default: 8)", "{order,confident,balanced}"]),
    ],
)
def test_help_shows_every_option_with_its_default_and_a_short_usage(kind, shown, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as stop:
        read_client_config(kind, ["--help_all"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == f"usage: {kind.script()} [--option value ...]"
    assert f"The script of a {kind.method} client." in text
    for item in options_of(kind):
        assert f"--{item.name} " in text
        assert item.help in text
    for part in shown:
        assert part in text
    assert "--parallel" not in text


# ---- what a client says for itself ----


@pytest.mark.parametrize("kind", [FedBPTConfig, LPFLConfig])
def test_a_client_s_own_file_goes_before_the_job_s_flags(kind, tmp_path):
    (tmp_path / "reviews.csv").write_text("sentence,label\n", encoding="utf-8")
    file = tmp_path / "flaretune.toml"
    file.write_text('data_path = "reviews.csv"\ndevice = "cpu"\nmodel_name = "a-hub-id"\n', encoding="utf-8")
    flags = ["--dataset", "common", "--device", "cuda:3", "--seed", "5"]
    flags += ["--soft_labels", "off"] if kind is LPFLConfig else []
    config, sentences = read_client_config(kind, flags, file)
    assert (config.data_path, config.dataset) == (str(tmp_path / "reviews.csv"), "")
    assert (config.device, config.model_name, config.seed) == ("cpu", "a-hub-id", 5)
    assert sentences == [f"of this client's own {file}: data_path, device, model_name"]
    assert read_client_config(kind, flags, tmp_path / "none.toml")[0].dataset == "common"
    file.write_text('dataset = "its-own"\n', encoding="utf-8")
    config, _ = read_client_config(kind, ["--data_path", "the-author-s.csv", *flags[6:]], file)
    assert (config.data_path, config.dataset) == ("", "its-own")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "seed = 1",
            "seed must be the same at all clients, so that the job says it; a client may say dataset, data_path",
        ),
        ('devise = "cpu"', "there is no option 'devise'; did you mean 'device'"),
        ("device = 1", "device = 1: must be a text"),
        ("device =", "is not valid TOML"),
        ("k_shot = 5", "k_shot must be the same at all clients"),
        ("batch_size = -1", "batch_size = -1: must be at least 0"),
    ],
)
def test_mistakes_in_a_client_s_own_file_are_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "flaretune.toml"
    file.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_client_config(FedBPTConfig, [], file)


@pytest.mark.parametrize("name", ["a#b.csv", "set#2"])
def test_flags_that_nvflare_has_cut_at_a_path_s_number_sign_are_noticed(tmp_path, name):
    """`nvflare job create` drops what follows a # and says nothing, so that further flags are lost."""
    (tmp_path / name).write_text("sentence,label\n", encoding="utf-8")
    whole = f"--data_path {tmp_path / name} --k_shot 5"
    cut = ConfigFactory.parse_string(f"app_config={whole}")["app_config"]
    assert cut == whole.partition("#")[0]
    with pytest.raises(UserError, match=f"cut off, it seems, as there is .*{name}: NVFlare drops what follows a #"):
        read_client_config(FedBPTConfig, cut.split())
    kept = ConfigFactory.parse_string(f'app_config="{whole}"')["app_config"]  # as docs/how-to/gpu-box.md says
    assert read_client_config(FedBPTConfig, kept.split())[0].k_shot == 5


def test_one_file_of_a_client_serves_both_methods(tmp_path):
    (tmp_path / "texts.csv").write_text("sentence\n", encoding="utf-8")
    file = tmp_path / "flaretune.toml"
    file.write_text(
        'model_server = "http://127.0.0.1:8765"\nunlabelled_path = "texts.csv"\nstate_dir = "states"\n',
        encoding="utf-8",
    )
    config, sentences = read_client_config(FedBPTConfig, [], file, ALL)
    assert (config.model_server, config.state_dir) == ("http://127.0.0.1:8765", str(tmp_path / "states"))
    assert sentences == [f"of this client's own {file}: model_server, state_dir"]
    config, _ = read_client_config(LPFLConfig, [], file, ALL)
    assert (config.unlabelled_path, config.state_dir) == (str(tmp_path / "texts.csv"), str(tmp_path / "states"))


@pytest.mark.parametrize(
    ("own", "flags"),
    [
        (f'model_server = "{LM}"\nbatch_size = 4\n', []),
        (f'model_server = "{LM}"\n', ["--device", "cpu", "--batch_size", "8"]),
        ("batch_size = 4\n", ["--model_server", LM]),
    ],
)
def test_where_a_client_has_a_service_device_and_batches_are_the_service_s(tmp_path, own, flags):
    """LP-FL, for which the file says the same, has no service."""
    file = tmp_path / "flaretune.toml"
    file.write_text(f'device = "cuda:0"\n{own}', encoding="utf-8")
    config, sentences = read_client_config(FedBPTConfig, flags, file)
    assert (config.model_server, config.device, config.batch_size) == (LM, "auto", 0)
    assert f"--device is left to the model server at {LM}" in sentences
    assert read_client_config(LPFLConfig, ["--unlabelled", "4"], file, ALL)[0].device == "cuda:0"


def test_flags_stand_for_what_a_file_of_options_has_in_their_place(tmp_path):
    file = tmp_path / "options.json"
    file.write_text('{"task_file": "mine.toml", "dataset": "b"}', encoding="utf-8")
    config, _ = read_client_config(
        FedBPTConfig, ["--config", str(file), "--task_name", "rte", "--data_path", "a.csv"], None
    )
    assert (config.task, config.dataset, config.data_path) == ("rte", "", "a.csv")


def test_a_client_s_own_task_stands_for_the_job_s_task_file(tmp_path):
    file = tmp_path / "flaretune.toml"
    file.write_text('task_name = "rte"\n', encoding="utf-8")
    config, _ = read_client_config(FedBPTConfig, ["--task_file", "config/other.toml"], file)
    assert (config.task_name, config.task_file, config.task) == ("rte", "", "rte")
    (tmp_path / "mine.toml").write_text("", encoding="utf-8")
    file.write_text('task_file = "mine.toml"\n', encoding="utf-8")
    assert read_client_config(FedBPTConfig, [], file)[0].task_file == str(tmp_path / "mine.toml")
