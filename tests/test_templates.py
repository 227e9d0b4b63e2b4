"""Every class path in job_templates exists, and takes the arguments that stand there."""

import importlib
import inspect
from pathlib import Path

import pytest
from pyhocon import ConfigFactory

from flaretune.config.options import defaults
from flaretune.errors import UserError
from flaretune.flare.fedbpt_client import FedBPTTasks
from flaretune.flare.fedbpt_controller import FedBPTController
from flaretune.flare.lpfl_client import LPFLTasks
from flaretune.flare.lpfl_controller import LPFLController
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig

TEMPLATES = Path(__file__).parents[1] / "job_templates"


def components(tree):
    """(path, args) of everything in a configuration that NVFlare will build."""
    if isinstance(tree, dict):
        if "path" in tree:
            yield tree["path"], dict(tree.get("args", {}))
        for value in tree.values():
            yield from components(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from components(value)


def template_components():
    for file in sorted(TEMPLATES.rglob("config_fed_*.conf")):
        for path, args in components(ConfigFactory.parse_file(str(file)).as_plain_ordered_dict()):
            yield pytest.param(path, args, id=f"{file.parent.name}-{path.rsplit('.', 1)[1]}")


@pytest.mark.parametrize(("path", "args"), list(template_components()))
def test_class_exists_and_takes_its_arguments(path, args):
    module, name = path.rsplit(".", 1)
    cls = getattr(importlib.import_module(module), name)
    inspect.signature(cls.__init__).bind(None, **args)
    assert cls(**args) is not None


def test_all_of_the_templates_is_found():
    """Of each method the sites' executor, the controller, and what receives the analytics."""
    names = sorted(case.id for case in template_components())
    assert names == [
        "fedbpt-ClientAPIExecutor",
        "fedbpt-FedBPTController",
        "fedbpt-TBAnalyticsReceiver",
        "lpfl-ClientAPIExecutor",
        "lpfl-LPFLController",
        "lpfl-TBAnalyticsReceiver",
    ]


def read(method: str, side: str) -> dict:
    return ConfigFactory.parse_file(str(TEMPLATES / method / f"config_fed_{side}.conf")).as_plain_ordered_dict()


@pytest.mark.parametrize(
    ("method", "controller", "options"),
    [
        ("fedbpt", FedBPTController, {**defaults(FedBPTServerConfig), "num_rounds": 200, "seed": 1234}),  # published
        ("lpfl", LPFLController, defaults(LPFLServerConfig)),
    ],
)
def test_every_option_of_the_server_stands_in_the_template_with_its_default_or_the_published_value(
    method, controller, options
):
    """`nvflare job create -f … key=value` changes keys that are there, and passes over others in silence."""
    [workflow] = read(method, "server")["workflows"]
    assert workflow["path"].rsplit(".", 1)[1] == controller.__name__
    assert dict(workflow["args"]) == options


def test_old_names_of_the_server_s_options_are_taken_too():
    assert FedBPTController(aggregation="plain", sigma_floor=0.0).aggregation == "mean"
    with pytest.raises(UserError, match=r"sigma_floor 0\.5: the step size has no floor"):
        FedBPTController(sigma_floor=0.5)
    with pytest.raises(UserError, match="num_round is no option; did you mean 'num_rounds'"):
        LPFLController(num_round=5)


@pytest.mark.parametrize(
    ("method", "config", "tasks"),
    [("fedbpt", FedBPTConfig(), FedBPTTasks), ("lpfl", LPFLConfig(unlabelled=1), LPFLTasks)],
)
def test_the_sites_get_their_script_and_all_its_tasks(method, config, tasks):
    client = read(method, "client")
    assert (client["app_script"], client["app_config"]) == (config.script(), "")
    assert (TEMPLATES.parent / "src" / client["app_script"]).is_file()
    [executor] = client["executors"]
    assert "custom/" in executor["executor"]["args"]["command"]
    assert set(executor["tasks"]) == set(tasks(config).handlers())


@pytest.mark.parametrize("method", ["fedbpt", "lpfl"])
def test_the_template_says_what_it_is(method):
    folder = TEMPLATES / method
    assert {file.name for file in folder.iterdir()} == {
        "config_fed_client.conf",
        "config_fed_server.conf",
        "info.conf",
        "info.md",
        "meta.conf",
    }
    assert ConfigFactory.parse_file(str(folder / "meta.conf"))["name"] == method
    assert f"{method}_train.py" in (folder / "info.md").read_text(encoding="utf-8")
