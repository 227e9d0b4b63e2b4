"""Every class path in job_templates exists, and takes the arguments that stand there."""

import importlib
import inspect
from pathlib import Path

import pytest
from pyhocon import ConfigFactory

from flaretune.config.options import defaults
from flaretune.engine.codec import TASKS
from flaretune.errors import UserError
from flaretune.flare.controller import FlaretuneController
from flaretune.methods.registry import METHODS

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
    """Of each method the clients' executor, the controller, and what receives the analytics."""
    names = sorted(case.id for case in template_components())
    assert names == [
        "fedbpt-ClientAPIExecutor",
        "fedbpt-FlaretuneController",
        "fedbpt-TBAnalyticsReceiver",
        "lpfl-ClientAPIExecutor",
        "lpfl-FlaretuneController",
        "lpfl-TBAnalyticsReceiver",
        "verbalizer-ClientAPIExecutor",
        "verbalizer-FlaretuneController",
        "verbalizer-TBAnalyticsReceiver",
    ]


def read(method: str, side: str) -> dict:
    return ConfigFactory.parse_file(str(TEMPLATES / method / f"config_fed_{side}.conf")).as_plain_ordered_dict()


PUBLISHED = {"fedbpt": {"num_rounds": 200, "seed": 1234}, "lpfl": {}, "verbalizer": {}}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_option_of_the_server_stands_in_the_template_with_its_default_or_the_published_value(method):
    """`nvflare job create -f … key=value` changes keys that are there, and passes over others in silence."""
    [workflow] = read(method.name, "server")["workflows"]
    assert workflow["path"] == f"{FlaretuneController.__module__}.{FlaretuneController.__name__}"
    options = {**defaults(method.server_config), **PUBLISHED[method.name]}
    assert dict(workflow["args"]) == {"method": method.name, **options}


def test_old_names_of_the_server_s_options_are_taken_too(caplog):
    FlaretuneController("fedbpt", aggregation="plain", sigma_floor=0.0)
    assert "aggregation plain is now aggregation mean" in caplog.text
    with pytest.raises(UserError, match=r"sigma_floor 0\.5: the step size has no floor"):
        FlaretuneController("fedbpt", sigma_floor=0.5)
    with pytest.raises(UserError, match="'num_round' is no option; did you mean 'num_rounds'"):
        FlaretuneController("lpfl", num_round=5)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_clients_get_their_script_and_all_its_tasks(method):
    client = read(method.name, "client")
    assert (client["app_script"], client["app_config"]) == (method.client_script, "")
    assert (TEMPLATES.parent / "src" / client["app_script"]).is_file()
    [executor] = client["executors"]
    assert "custom/" in executor["executor"]["args"]["command"]
    assert tuple(executor["tasks"]) == TASKS


@pytest.mark.parametrize("method", ["fedbpt", "lpfl", "verbalizer"])
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
