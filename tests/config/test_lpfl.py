"""LP-FL's options: which values are taken."""

from __future__ import annotations

import math

import pytest

from flaretune.config.client_flags import check_complete, read_client_config
from flaretune.errors import UserError
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig

OFF = {"soft_labels": "off"}  # by default a client needs unlabelled texts


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unlabelled": -1}, "--unlabelled -1: must be at least 0"),
        ({"tuning": "prefix"}, "--tuning prefix: must be one of lora, full"),
        ({"lora_rank": 0}, "--lora_rank 0: must be at least 1"),
        ({"client_rank": -1}, "--client_rank -1: must be at least 0"),
        ({"client_rank": 9}, "--client_rank 9: the server would cut it down to the job's --lora_rank 8"),
        (
            {"client_rank": 2, "subspace_dim": 5},
            "--subspace_dim 5 --client_rank 2: there is no rank of a client's own",
        ),
        ({"client_rank": 2, "tuning": "full"}, "--tuning full --client_rank 2: there is no rank of a client's own"),
        ({"lora_alpha": 0.0}, "--lora_alpha 0.0: must be above 0"),
        ({"lora_alpha": math.nan}, "--lora_alpha nan: must be a finite number"),
        ({"local_epochs": 0}, "--local_epochs 0: must be at least 1"),
        ({"learning_rate": -1e-3}, "--learning_rate -0.001: must be at least 0"),
        ({"learning_rate": math.inf}, "--learning_rate inf: must be a finite number"),
        ({"train_batch_size": 0}, "--train_batch_size 0: must be at least 1"),
        ({"gradient_checkpointing": 2}, "--gradient_checkpointing 2: must be one of 0, 1"),
        ({"soft_labels": "yes"}, "--soft_labels yes: must be one of on, off"),
        ({"soft_portion": 0.0}, "--soft_portion 0.0: must be above 0"),
        ({"soft_portion": 1.5}, "--soft_portion 1.5: must be at most 1"),
        ({"soft_select": "random"}, "--soft_select random: must be one of order, confident, balanced"),
        ({"tuning": "full", "subspace_dim": 5}, "--tuning full --subspace_dim 5: there are no A and B"),
        ({"subspace_dim": -1}, "--subspace_dim -1: must be at least 0"),
        ({"tuning": "full", "first_layer": "auto"}, "--tuning full --first_layer auto: every layer is trained"),
        ({"first_layer": "-1"}, "--first_layer -1: must be a whole number, at least 0, or auto"),
        ({"first_layer": "middle"}, "--first_layer middle: must be a whole number, at least 0, or auto"),
    ],
)
def test_values_out_of_range_are_named_with_what_would_be_right(given, message):
    with pytest.raises(UserError) as refused:
        LPFLConfig(**{**OFF, **given})
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("given", [{}, {"unlabelled": 0}, {"soft_labels": "on", "unlabelled_path": ""}])
def test_soft_labels_need_unlabelled_texts(given):
    with pytest.raises(UserError) as refused:
        check_complete(LPFLConfig(**given))
    assert str(refused.value).startswith("--soft_labels on needs unlabelled texts: give --unlabelled N, or")
    assert "--unlabelled_path FILE" in str(refused.value)
    assert "--soft_labels off" in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {"unlabelled": 1},
        {"unlabelled_path": "pool.csv"},
        {**OFF, "unlabelled": 100},  # for a comparison with the same data
        {**OFF, "lora_rank": 1},
        {**OFF, "learning_rate": 0.0},
        {**OFF, "soft_portion": 1.0},
        {**OFF, "tuning": "full", "subspace_dim": 0},
        {**OFF, "subspace_dim": 1},
    ],
)
def test_values_at_the_edge_are_taken(given):
    assert {name: getattr(LPFLConfig(**given), name) for name in given} == given


def test_an_adapter_to_go_on_from_is_a_text_of_the_server_s():
    assert LPFLServerConfig().init_adapter == ""
    assert LPFLServerConfig(init_adapter="runs/a/best_adapter").init_adapter == "runs/a/best_adapter"
    with pytest.raises(UserError, match="--init_adapter 5: must be a text"):
        LPFLServerConfig(init_adapter=5)


@pytest.mark.parametrize("name", ["parallel", "alg", "local_iter", "sigma"])
def test_options_of_the_other_method_are_not_known(name, capsys):
    with pytest.raises(SystemExit) as stop:
        read_client_config(LPFLConfig, ["--soft_labels", "off", f"--{name}", "1"])
    assert stop.value.code == 2
    assert f"unrecognized arguments: --{name}" in capsys.readouterr().err
