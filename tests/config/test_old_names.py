import pytest

from flaretune.config.client_flags import read_client_config
from flaretune.config.job import JobConfig
from flaretune.config.model_server import ServiceConfig
from flaretune.config.old_names import GONE, JOINED, RENAMED, RENAMED_VALUES, renew
from flaretune.config.options import defaults
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig
from flaretune.methods.registry import METHODS as REGISTERED

# (what is given, what the sentence must say besides the option's name); the job goes on
HARMLESS = [
    (["--parallel"], "all candidates of a generation are always evaluated together"),
    (["--parallel", "1"], "all candidates of a generation are always evaluated together"),
    (["--alg", "CMA"], "CMA-ES is the only search algorithm"),
    (["--random_proj", "normal"], "--alpha"),
    (["--note", "second try"], "name the job folder or the output folder"),
    (["--save_prompt", "1"], "best_prompt.safetensors"),
    (["--save_prompt", "0"], "best_prompt.safetensors"),
    (["--print_every", "50"], "one line is printed a round"),
    (["--eval_every", "100"], "evaluated after every round"),
    (["--inference_framework", "pt"], "--dtype"),
]
# The job ends with the sentence.
REFUSED = [
    (["--alg", "DE"], "--alg DE: CMA-ES is the only search algorithm"),
    (["--random_proj", "he"], "--random_proj he: the projection is always normal"),
    (["--init_score_path", "scores.npy"], "--init_score_path scores.npy: scores from other runs are not read"),
    (["--inference_framework", "ort"], "--inference_framework ort: ONNX runtime is not supported"),
    (["--onnx_model_path", "model.onnx"], "--onnx_model_path model.onnx: ONNX models are not supported"),
    (["--onnx_model_path"], "--onnx_model_path: ONNX models are not supported"),
]


@pytest.mark.parametrize(("argv", "says"), HARMLESS)
def test_a_harmless_value_is_answered_with_one_sentence(argv, says):
    config, sentences = read_client_config(FedBPTConfig, argv)
    assert config == FedBPTConfig()
    [sentence] = sentences
    assert sentence.startswith(f"{argv[0]} has no effect: ")
    assert says in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(("argv", "message"), REFUSED)
def test_what_is_not_there_any_more_is_refused(argv, message):
    with pytest.raises(UserError) as refused:
        read_client_config(FedBPTConfig, argv)
    assert str(refused.value).startswith(message)
    assert any(way in str(refused.value) for way in ("use --", "give ", "start from", "leave it out"))


PAIRS = [(method.client_config, method.server_config) for method in REGISTERED.values()]
OFF = ["--soft_labels", "off"]
# (whose, what is given, whether the job goes on)
OURS = [
    (FedBPTConfig, ["--num_users", "10"], True),
    (FedBPTConfig, ["--llama_causal", "1"], True),
    (FedBPTConfig, ["--llama_causal", "0"], False),
    (FedBPTConfig, ["--local_seeds", "round"], True),
    (FedBPTConfig, ["--local_seeds", "site"], False),
    (FedBPTConfig, ["--zero_lm_bias", "1"], True),
    (FedBPTConfig, ["--dp_delta", "1e-05"], True),
    (FedBPTConfig, ["--dp_delta", "0.1"], False),
    (LPFLConfig, [*OFF, "--soft_refresh", "0"], True),
    (LPFLConfig, [*OFF, "--soft_refresh", "1"], False),
    (LPFLConfig, [*OFF, "--soft_temperature", "1.0"], True),
    (LPFLConfig, [*OFF, "--soft_prior", "uniform"], False),
    (LPFLConfig, [*OFF, "--soft_noise", "0.3"], False),
    (LPFLConfig, [*OFF, "--soft_weight", "1"], True),
    (LPFLConfig, [*OFF, "--weight_decay", "0"], True),
    (LPFLConfig, [*OFF, "--lora_dropout", "x"], False),
    (LPFLConfig, [*OFF, "--freeze_a", "0"], True),
    (LPFLConfig, [*OFF, "--freeze_a", "1"], False),
    (LPFLConfig, [*OFF, "--gradient_accumulation", "2"], False),
    (LPFLConfig, [*OFF, "--dp_delta", "1e-5"], True),
]


@pytest.mark.parametrize(("kind", "argv", "goes_on"), OURS)
def test_a_deleted_option_is_answered_by_its_sentence(kind, argv, goes_on):
    flag, value = argv[-2:]
    if goes_on:
        config, [sentence] = read_client_config(kind, argv)
        assert sentence.startswith(f"{flag} has no effect: ")
        assert config == read_client_config(kind, argv[:-2])[0]
    else:
        with pytest.raises(UserError, match=f"^{flag} {value}: "):
            read_client_config(kind, argv)


@pytest.mark.parametrize(
    ("configs", "given", "expected"),
    [
        ((FedBPTConfig,), {"lm": "local", "lm_timeout": 5}, {"model_server": "local", "model_server_timeout": 5}),
        ((JobConfig,), {"share_lm": 1, "sites": "a.toml"}, {"share_model": 1, "per_client": "a.toml"}),
        ((JobConfig,), {"tracking": "mlflow", "tracking_uri": "http://a"}, {"tracking": "mlflow=http://a"}),
        ((LPFLServerConfig,), {"aggregation": "plain"}, {"aggregation": "mean"}),
        ((FedBPTConfig,), {"norm_prompt": 1, "prompt_norm_threshold": 1.0}, {"max_norm": "1.0:20"}),
        ((JobConfig,), {"verbose": 0, "timeout": 0.0}, {}),
        ((FedBPTServerConfig,), {"sigma_floor": 0.0}, {}),
        ((ServiceConfig,), {"merge": 1, "workers": 1, "timeout": 60}, {}),
        ((LPFLConfig,), {"lm": "local", "norm_prompt": 1}, {"lm": "local", "norm_prompt": 1}),  # never were its options
    ],
)
def test_old_names_and_values_become_those_of_today(configs, given, expected):
    renewed, sentences = renew(given, *configs)
    assert renewed == expected
    assert bool(sentences) == (renewed != given)
    assert renew(expected, *configs) == (expected, [])


def test_an_option_under_both_its_names_is_refused():
    with pytest.raises(UserError, match="--lm is the old name of model_server, which is given too"):
        renew({"lm": "local", "model_server": "local"}, FedBPTConfig)


def test_a_warning_says_the_new_name():
    config, [sentence] = read_client_config(FedBPTConfig, ["--lm", "http://a:1"])
    assert config.model_server == "http://a:1"
    assert sentence == "--lm is now model_server; the old name is taken for one release"


def test_no_old_name_is_an_option_of_the_same_config():
    kinds = {k.__name__: k for pair in PAIRS for kind in pair for k in kind.__mro__}
    kinds |= {"JobConfig": JobConfig, "ServiceConfig": ServiceConfig}
    for of, entries in GONE.items():
        assert not entries.keys() & defaults(kinds[of]).keys()
    every = {name for pair in PAIRS for kind in pair for name in defaults(kind)}
    every |= defaults(JobConfig).keys()
    assert not (RENAMED.keys() | {old for names, _ in JOINED.values() for old in names}) & every
    assert {*RENAMED.values(), *JOINED, *(name for name, _ in RENAMED_VALUES)} <= every


def test_every_published_option_without_a_meaning_is_tried_above():
    tried = {argv[0].removeprefix("--") for argv, _ in HARMLESS + REFUSED}
    tried |= {argv[-2].removeprefix("--") for _, argv, _ in OURS}
    assert GONE["FedBPTConfig"].keys() | GONE["LPFLConfig"].keys() | GONE["ClientConfig"].keys() == tried
