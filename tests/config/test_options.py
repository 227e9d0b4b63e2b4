"""The machinery: options to flags and back, for every config there is."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flaretune.config.client_flags import read_client_config
from flaretune.config.flags import add_flags, to_argv
from flaretune.config.groups import GROUPS
from flaretune.config.job import JobConfig
from flaretune.config.model_server import ServiceConfig
from flaretune.config.options import as_dict, build, build_all, changed, check_values, defaults, options_of
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig
from flaretune.methods.registry import METHODS as REGISTERED

METHODS = [(method.client_config, method.server_config) for method in REGISTERED.values()]
CONFIGS = [kind for method in METHODS for kind in method]


FORMS = {
    "max_norm": ["", "15:20"],
    "model_server": ["local", "http://a:1"],
    "model_server_token": ["", "${secret:A}"],
    "state_dir": ["", "/a b", "~/#1"],
}


def values_of(item) -> st.SearchStrategy:
    """Values that an option takes, by its type, limits and form."""
    if item.choices or item.name in FORMS:
        return st.sampled_from(item.choices or FORMS[item.name])
    if item.kind is int:
        return st.integers(min_value=item.at_least, max_value=10**9)
    if item.kind is float:
        low = item.above if item.above is not None else item.at_least
        return st.floats(low, item.at_most or 1e300, exclude_min=item.above is not None)
    odd = st.sampled_from(["--sigma", "-5", "-", "a b", "it's", '"', "#1", "=x", "--a=b"])
    # argparse loses the text "--" before Python 3.13; it names no file and no model
    return st.text(max_size=12).filter(lambda text: text != "--") | odd


def configs(kind) -> st.SearchStrategy:
    return st.fixed_dictionaries({}, optional={item.name: values_of(item) for item in options_of(kind)})


def made(kind, options: dict[str, Any]):
    """The config, if the options go together."""
    try:
        return kind(**options)
    except UserError:
        assume(False)


@settings(max_examples=30, deadline=None)
@given(configs(FedBPTConfig))
def test_a_client_s_flags_give_back_its_config(options):
    config = made(FedBPTConfig, options)
    assert read_client_config(FedBPTConfig, to_argv(config)) == (config, [])


@settings(max_examples=30, deadline=None)
@given(configs(LPFLConfig), st.integers(1, 10**9))
def test_an_lp_fl_client_s_flags_give_back_its_config(options, unlabelled):
    options["unlabelled"] = unlabelled  # most options that are drawn would be refused without
    config = made(LPFLConfig, options)
    assert read_client_config(LPFLConfig, to_argv(config)) == (config, [])


@pytest.mark.parametrize("kind", [FedBPTServerConfig, LPFLServerConfig])
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_server_s_flags_give_back_its_config(kind, data):
    config = kind(**data.draw(configs(kind)))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser, kind)
    assert build(kind, vars(parser.parse_args(to_argv(config)))) == config


def test_flags_of_defaults_are_not_written():
    assert to_argv(FedBPTConfig()) == []
    assert to_argv(FedBPTConfig(seed=7)) == ["--seed", "7"]
    assert to_argv(LPFLConfig(unlabelled=64, unlabelled_path="-x")) == ["--unlabelled", "64", "--unlabelled_path=-x"]
    assert [to_argv(kind()) for kind in (FedBPTServerConfig, LPFLServerConfig)] == [[], []]


def test_build_passes_over_other_names_and_keeps_defaults():
    assert build(FedBPTServerConfig, {"num_rounds": 3, "sigma": -1.0}) == FedBPTServerConfig(num_rounds=3)
    assert as_dict(FedBPTServerConfig(num_rounds=3))["num_rounds"] == 3
    assert build(LPFLServerConfig, {"num_rounds": 3, "covariance": "none"}) == LPFLServerConfig(num_rounds=3)
    assert as_dict(FedBPTConfig()) == defaults(FedBPTConfig)


def test_a_config_cannot_be_changed_and_another_is_checked():
    config = FedBPTConfig(seed=7)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 8
    assert changed(config, k_shot=3) == FedBPTConfig(seed=7, k_shot=3)
    with pytest.raises(UserError, match="--k_shot 0: must be at least 1"):
        changed(config, k_shot=0)
    with pytest.raises(UserError, match="--k_shoot is no option; did you mean 'k_shot'"):
        changed(config, k_shoot=1)


def test_all_that_is_wrong_with_options_is_told():
    with pytest.raises(UserError) as refused:
        FedBPTConfig(k_shot="8", sigma=0, sead=1)
    assert str(refused.value) == (
        "3 options are wrong: (1) --k_shot '8': must be a whole number (2) --sigma 0: must be above 0 "
        "(3) --sead is no option; did you mean 'seed'?"
    )
    with pytest.raises(UserError) as refused:  # what does not go together, once each option is right by itself
        FedBPTConfig(dataset="a", data_path="b", local_popsize=1)
    assert str(refused.value).startswith("2 options are wrong: (1) --dataset and --data_path exclude each other")
    with pytest.raises(UserError) as refused:
        build_all({"env": "local", "k_shot": 0, "num_rounds": 0}, JobConfig, FedBPTConfig, FedBPTServerConfig)
    assert str(refused.value) == (
        "3 options are wrong: (1) --env local: must be one of sim, poc, prod (2) --k_shot 0: must be at least 1 "
        "(3) --num_rounds 0: must be at least 1"
    )


def test_some_options_can_be_checked_by_themselves():
    check_values(LPFLConfig, {"soft_labels": "on", "lora_rank": 1})  # unlabelled texts are not asked for
    with pytest.raises(UserError, match="--lora_rank 0: must be at least 1"):
        check_values(LPFLConfig, {"lora_rank": 0})


@pytest.mark.parametrize("kind", [*CONFIGS, JobConfig, ServiceConfig])
def test_every_option_has_a_help_text_and_a_group_with_a_sentence(kind):
    for item in options_of(kind):
        assert len(item.help) > 10, item.name
        assert not item.help.endswith("."), item.name
        assert item.group in GROUPS, item.name


def test_every_group_has_options():
    assert {item.group for kind in (*CONFIGS, JobConfig, ServiceConfig) for item in options_of(kind)} == set(GROUPS)


def test_no_two_configs_of_a_job_have_an_option_of_one_name():
    for method in METHODS:
        names = [name for kind in (JobConfig, *method) for name in defaults(kind)]
        assert len(set(names)) == len(names)


def test_an_option_that_both_methods_have_is_the_shared_one():
    """Otherwise it would mean two things."""
    for one, other in ((FedBPTConfig, LPFLConfig), (FedBPTServerConfig, LPFLServerConfig)):
        of_one, of_other = ({item.name: item for item in options_of(config)} for config in (one, other))
        shared = of_one.keys() & of_other.keys()
        assert len(shared) > 5
        assert {name: of_one[name] for name in shared} == {name: of_other[name] for name in shared}


def test_what_may_differ_between_clients_are_options():
    for kind in (FedBPTConfig, LPFLConfig):
        assert set(kind.client_options) <= defaults(kind).keys()


def test_only_the_options_asked_for_become_flags():
    parser = argparse.ArgumentParser()
    add_flags(parser, FedBPTConfig, only=("dtype", "device"))
    assert vars(parser.parse_args(["--dtype", "float32"])) == {"dtype": "float32"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--sigma", "1"])


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (FedBPTConfig, "k_shot", "8"),
        (FedBPTConfig, "k_shot", True),
        (FedBPTConfig, "sigma", "1"),
        (FedBPTConfig, "sigma", True),
        (FedBPTConfig, "model_name", 5),
        (FedBPTConfig, "seed", 1.5),
        (LPFLConfig, "unlabelled", "64"),
        (LPFLConfig, "lora_alpha", "16"),
        (LPFLConfig, "lora_alpha", None),
        (LPFLConfig, "target_modules", ["q_proj"]),
    ],
)
def test_options_of_another_type_are_refused(kind, option, value):
    with pytest.raises(UserError) as refused:
        kind(**{option: value})
    wanted = {int: "a whole number", float: "a number", str: "a text"}[type(defaults(kind)[option])]
    assert str(refused.value).startswith(f"--{option} {value!r}: must be {wanted}")
