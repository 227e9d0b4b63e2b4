"""The machinery: fields to flags and back, for every config there is."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import flaretune.config
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.config.job import JobConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig
from flaretune.config.options import add_flags, as_dict, build, to_argv
from flaretune.config.model_server import ServiceConfig
from flaretune.config.shared import GROUPS, ServerConfig, SiteConfig
from flaretune.config.client_flags import parse_site_flags
from flaretune.errors import UserError

METHODS = [(FedBPTConfig, FedBPTServerConfig), (LPFLConfig, LPFLServerConfig)]
CONFIGS = [kind for method in METHODS for kind in method]


def values_of(item, kind) -> st.SearchStrategy:
    """Values that an option takes, by its type and limits."""
    limits = item.metadata
    if limits["choices"] is not None:
        return st.sampled_from(limits["choices"])
    if kind is int:
        return st.integers(min_value=limits["at_least"], max_value=10**9)
    if kind is float:
        low = limits["above"] if limits["above"] is not None else limits["at_least"]
        return st.floats(low, limits["at_most"] or 1e300, exclude_min=limits["above"] is not None)
    odd = st.sampled_from(["--sigma", "-5", "-", "a b", "it's", '"', "#1", "=x", "--a=b"])
    # argparse loses the text "--" before Python 3.13; it names no file and no model
    return st.text(max_size=12).filter(lambda text: text != "--") | odd


def configs(kind) -> st.SearchStrategy:
    hints = get_type_hints(kind)
    return st.fixed_dictionaries({}, optional={i.name: values_of(i, hints[i.name]) for i in fields(kind)})


def made(kind, options: dict[str, Any]):
    """The config, if the options go together."""
    try:
        return kind(**options)
    except UserError:
        assume(False)


@settings(max_examples=30, deadline=None)
@given(configs(FedBPTConfig))
def test_a_site_s_flags_give_back_its_config(options):
    config = made(FedBPTConfig, options)
    assert parse_site_flags(FedBPTConfig, to_argv(config)) == (config, [])


@settings(max_examples=30, deadline=None)
@given(configs(LPFLConfig), st.integers(1, 10**9))
def test_an_lp_fl_site_s_flags_give_back_its_config(options, unlabelled):
    # most options that are drawn would be refused without these two
    options["unlabelled"] = unlabelled
    options["train_batch_size"] = max(options.get("train_batch_size", 8), options.get("gradient_accumulation", 1))
    config = made(LPFLConfig, options)
    assert parse_site_flags(LPFLConfig, to_argv(config)) == (config, [])


@pytest.mark.parametrize("kind", [FedBPTServerConfig, LPFLServerConfig])
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_server_s_flags_give_back_its_config(kind, data):
    config = kind(**data.draw(configs(kind)))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser, kind)
    assert build(kind, vars(parser.parse_args(to_argv(config)))) == config


def test_flags_of_defaults_and_of_what_is_left_out_are_not_written():
    assert to_argv(FedBPTConfig()) == []
    assert to_argv(FedBPTConfig(seed=7, data_path="x.csv"), leave_out=["data_path"]) == ["--seed", "7"]
    assert to_argv(LPFLConfig(unlabelled=64, unlabelled_path="-x")) == ["--unlabelled", "64", "--unlabelled_path=-x"]
    assert [to_argv(kind()) for kind in (FedBPTServerConfig, LPFLServerConfig)] == [[], []]


def test_build_passes_over_other_names_and_keeps_defaults():
    assert build(FedBPTServerConfig, {"num_rounds": 3, "sigma": -1.0}) == FedBPTServerConfig(num_rounds=3)
    assert as_dict(FedBPTServerConfig(num_rounds=3))["num_rounds"] == 3
    assert build(LPFLServerConfig, {"num_rounds": 3, "covariance": "none"}) == LPFLServerConfig(num_rounds=3)
    assert list(as_dict(FedBPTConfig())) == [item.name for item in fields(FedBPTConfig)]


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_option_has_a_help_text_and_a_group_with_a_sentence(kind):
    for item in fields(kind):
        assert len(item.metadata["help"]) > 10, item.name
        assert not item.metadata["help"].endswith("."), item.name
        assert item.metadata["group"] in GROUPS, item.name


def test_every_group_has_options():
    assert {item.metadata["group"] for kind in CONFIGS for item in fields(kind)} == set(GROUPS)


def test_no_two_configs_of_a_method_have_an_option_of_one_name():
    modules = [
        importlib.import_module(f"flaretune.config.{m.name}") for m in pkgutil.iter_modules(flaretune.config.__path__)
    ]
    kinds = {k for module in modules for k in vars(module).values() if is_dataclass(k)}
    assert kinds == {SiteConfig, ServerConfig, ServiceConfig, JobConfig, *CONFIGS}
    for method in METHODS:
        names = [item.name for kind in (JobConfig, *method) for item in fields(kind)]
        assert len(set(names)) == len(names)


def test_an_option_that_both_methods_have_is_the_shared_one():
    """Otherwise it would mean two things; what both have belongs into `SiteConfig`."""
    shared = {item.name for item in fields(SiteConfig)}
    assert {i.name for i in fields(FedBPTConfig)} & {i.name for i in fields(LPFLConfig)} == shared
    shared = {item.name for item in fields(ServerConfig)}
    assert {i.name for i in fields(FedBPTServerConfig)} & {i.name for i in fields(LPFLServerConfig)} == shared


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
        (FedBPTConfig, "sigma", "1"),
        (FedBPTConfig, "model_name", 5),
        (FedBPTConfig, "seed", 1.5),
        (LPFLConfig, "unlabelled", "64"),
        (LPFLConfig, "lora_alpha", "16"),
        (LPFLConfig, "target_modules", ["q_proj"]),
        (LPFLConfig, "freeze_a", True),
    ],
)
def test_options_of_another_type_are_refused(kind, option, value):
    with pytest.raises(UserError) as refused:
        kind(**{option: value})
    assert str(refused.value).startswith(f"--{option} {value!r}: must be of type ")
