"""Every class path in job_templates exists, and takes the arguments that stand there."""

import importlib
import inspect
from pathlib import Path

import pytest
from pyhocon import ConfigFactory

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


def test_all_of_the_template_is_found():
    assert len(list(template_components())) == 3


def test_server_arguments_of_the_published_command_stand_in_the_template():
    """`nvflare job create -f … key=value` changes keys that are there, and passes over others in silence."""
    config = ConfigFactory.parse_file(str(TEMPLATES / "fedbpt" / "config_fed_server.conf"))
    assert {"min_clients", "num_rounds", "seed"} <= set(config["workflows"][0]["args"])
    client = ConfigFactory.parse_file(str(TEMPLATES / "fedbpt" / "config_fed_client.conf"))
    assert {"app_script", "app_config"} <= set(client)
