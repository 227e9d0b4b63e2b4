"""FedBPT's options: the published command line, and which values are taken."""

from __future__ import annotations

import math
import shlex

import pytest

from flaretune.config.client_flags import read_client_config
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig, norm_limits

# README of the published example, section 2, and what it says, option by option.
PUBLISHED = (
    "--task_name sst2 --n_prompt_tokens 50 --intrinsic_dim 500 --k_shot 200 --device cuda:0 --seed 1234 "
    "--loss_type ce --cat_or_add add --local_iter 8 --num_users 10 --iid 1 --local_popsize 5 --perturb 1 "
    "--model_name roberta-large --eval_clients site-1 --llama_causal 1"
)
PUBLISHED_VALUES = {
    "task_name": "sst2",
    "n_prompt_tokens": 50,
    "intrinsic_dim": 500,
    "k_shot": 200,
    "device": "cuda:0",
    "seed": 1234,
    "loss_type": "ce",
    "cat_or_add": "add",
    "local_iter": 8,
    "iid": 1,
    "local_popsize": 5,
    "perturb": 1,
    "model_name": "roberta-large",
    "eval_clients": "site-1",
}


def test_the_published_command_line_is_read_value_by_value():
    config, sentences = read_client_config(FedBPTConfig, shlex.split(PUBLISHED))
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "--num_users has no effect",
        "--llama_causal has no effect",
    ]
    assert {name: getattr(config, name) for name in PUBLISHED_VALUES} == PUBLISHED_VALUES
    assert config == FedBPTConfig(**PUBLISHED_VALUES)


# The published script's other options that have a meaning; each value differs from its default here.
@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("sigma", 0.5),
        ("alpha", 2.5),
        ("bound", 5.0),
        ("batch_size", 32),
        ("alpha_dir", 1.0),
        ("perturb_rate", 0.8),
        ("eval_clients", "site-1,site-3"),
        ("loss_type", "hinge"),
        ("loss_type", "perf"),
        ("cat_or_add", "cat"),
        ("iid", 0),
    ],
)
def test_the_other_published_options_arrive(flag, value):
    config, _ = read_client_config(
        FedBPTConfig, [f"--{flag}", f"{value:g}" if isinstance(value, float) else str(value)]
    )
    assert getattr(config, flag) == value
    assert type(getattr(config, flag)) is type(value)
    assert getattr(FedBPTConfig(), flag) != value


def test_retired_options_come_back_as_sentences():
    config, sentences = read_client_config(FedBPTConfig, ["--parallel", "--alg", "CMA", "--sigma", "2"])
    assert config == FedBPTConfig(sigma=2.0)
    assert [sentence.split()[0] for sentence in sentences] == ["--parallel", "--alg"]


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (FedBPTConfig, {"intrinsic_dim": 0}, "--intrinsic_dim 0: must be at least 1"),
        (FedBPTConfig, {"intrinsic_dim": -5}, "--intrinsic_dim -5: must be at least 1"),
        (FedBPTConfig, {"local_popsize": 1}, "--local_popsize 1: CMA-ES needs at least 2 candidates"),
        (FedBPTConfig, {"local_popsize": -1}, "--local_popsize -1: must be at least 0"),
        (FedBPTConfig, {"sigma": math.nan}, "--sigma nan: must be a finite number"),
        (FedBPTConfig, {"sigma": math.inf}, "--sigma inf: must be a finite number"),
        (FedBPTConfig, {"sigma": 0.0}, "--sigma 0.0: must be above 0"),
        (FedBPTConfig, {"alpha": -1.0}, "--alpha -1.0: must be above 0"),
        (FedBPTConfig, {"alpha_dir": 0.0}, "--alpha_dir 0.0: must be above 0"),
        (FedBPTConfig, {"bound": -0.1}, "--bound -0.1: must be at least 0"),
        (FedBPTConfig, {"perturb_rate": 0.0}, "--perturb_rate 0.0: must be above 0"),
        (FedBPTConfig, {"perturb_rate": 1.01}, "--perturb_rate 1.01: must be at most 1"),
        (FedBPTConfig, {"n_prompt_tokens": 0}, "--n_prompt_tokens 0: must be at least 1"),
        (FedBPTConfig, {"k_shot": 0}, "--k_shot 0: must be at least 1"),
        (FedBPTConfig, {"local_iter": 0}, "--local_iter 0: must be at least 1"),
        (FedBPTConfig, {"batch_size": -8}, "--batch_size -8: must be at least 0"),
        (FedBPTConfig, {"cache_mb": -1}, "--cache_mb -1: must be at least 0"),
        (FedBPTConfig, {"cache_mb": 9, "model_server": "http://h:8765"}, "--cache_mb 9 is the model server's"),
        (FedBPTConfig, {"state_dir": "states"}, "--state_dir states: a client works in a folder of its own in every"),
        (FedBPTConfig, {"max_norm": "15"}, "--max_norm 15: must be two numbers above 0, FIRST:LAST such as 15:20"),
        (FedBPTConfig, {"max_norm": "0:20"}, "--max_norm 0:20: must be two numbers above 0"),
        (FedBPTConfig, {"max_norm": "15:nan"}, "--max_norm 15:nan: must be two numbers above 0"),
        (FedBPTConfig, {"max_norm": "15:inf"}, "--max_norm 15:inf: must be two numbers above 0"),
        (FedBPTConfig, {"max_norm": "a:b"}, "--max_norm a:b: must be two numbers above 0"),
        (FedBPTConfig, {"iid": 2}, "--iid 2: must be one of 0, 1"),
        (FedBPTConfig, {"perturb": 3}, "--perturb 3: must be one of 0, 1"),
        (FedBPTConfig, {"dtype": "float16"}, "--dtype float16: must be one of auto, bfloat16, float32"),
        (FedBPTConfig, {"cat_or_add": "both"}, "--cat_or_add both: must be one of add, cat"),
        (FedBPTConfig, {"prompt_position": "middle"}, "--prompt_position middle: must be one of prefix, suffix"),
        (FedBPTConfig, {"loss_type": "mse"}, "--loss_type mse: must be one of ce, hinge, perf"),
        (FedBPTConfig, {"loss_type": "perf", "perturb": 1}, "--loss_type perf --perturb 1: the ratio"),
        (FedBPTConfig, {"dataset": "a", "data_path": "b"}, "--dataset and --data_path exclude each other"),
        (FedBPTServerConfig, {"num_rounds": 0}, "--num_rounds 0: must be at least 1"),
        (FedBPTServerConfig, {"min_clients": 0}, "--min_clients 0: must be at least 1"),
        (
            FedBPTServerConfig,
            {"covariance": "triangle"},
            "--covariance triangle: must be one of full, diagonal, identity",
        ),
        (FedBPTServerConfig, {"round_timeout": 0}, "--round_timeout 0: must be at least 1"),
        (FedBPTServerConfig, {"setup_timeout": 0}, "--setup_timeout 0: must be at least 1"),
    ],
)
def test_values_out_of_range_are_named_with_what_would_be_right(kind, given, message):
    with pytest.raises(UserError) as refused:
        kind(**given)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (FedBPTConfig, {"intrinsic_dim": 1}),
        (FedBPTConfig, {"local_popsize": 0}),
        (FedBPTConfig, {"local_popsize": 2}),
        (FedBPTConfig, {"perturb_rate": 1.0, "perturb": 1}),
        (FedBPTConfig, {"loss_type": "perf", "perturb": 0}),
        (FedBPTConfig, {"bound": 0.0, "sigma": 1e-9}),
        (FedBPTServerConfig, {"num_rounds": 1, "min_clients": 1}),
    ],
)
def test_values_at_the_edge_are_taken(kind, given):
    assert {name: getattr(kind(**given), name) for name in given} == given


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--norm_prompt 1", "15:20"),
        ("--norm_prompt 1 --prompt_norm_threshold 12 --prompt_norm_threshold_upper 22.5", "12:22.5"),
        ("--norm_prompt 0 --prompt_norm_threshold 12", ""),
        ("--prompt_norm_threshold 12", ""),
    ],
)
def test_the_published_limit_of_the_length_is_one_option_now(argv, expected):
    config, [sentence] = read_client_config(FedBPTConfig, argv.split())
    assert config == FedBPTConfig(max_norm=expected)
    assert (f"now max_norm = {expected}" if expected else "without effect") in sentence


@pytest.mark.parametrize(("max_norm", "limits"), [("", None), ("15:20", (15.0, 20.0)), ("0.5:1e3", (0.5, 1000.0))])
def test_limits_of_the_length(max_norm, limits):
    assert norm_limits(max_norm) == limits


@pytest.mark.parametrize(
    ("popsize", "dim", "expected"), [(5, 500, 5), (0, 500, 22), (0, 100, 17), (0, 1, 4), (2, 1, 2)]
)
def test_popsize_fills_in_the_default_of_cma_es(popsize, dim, expected):
    # 4 + ⌊3 ln d⌋: ln 500 = 6.21, ln 100 = 4.61
    assert FedBPTConfig(local_popsize=popsize, intrinsic_dim=dim).popsize == expected
