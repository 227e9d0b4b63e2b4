"""`import flaretune`: the names it offers, what it loads for them, and that they do what the page on Python says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import flaretune
from flaretune import UserError
from flaretune.flare.executor import OPTIONS
from flaretune.methods.registry import METHODS
from tests.commands_for_tests import python
from tests.jobs_for_tests import REPOSITORY

SAVED = Path(__file__).parent / "saved" / "v0.1.0"


def test_it_offers_exactly_what_all_names():
    offered: dict = {}
    exec("from flaretune import *", offered)
    del offered["__builtins__"]
    assert sorted(offered) == dir(flaretune) == sorted(flaretune.__all__)
    with pytest.raises(AttributeError, match=r"module 'flaretune' has no attribute 'Tasks'; it has .*\bTask\b"):
        _ = flaretune.Tasks


def test_every_method_s_configs_and_recipe_are_among_them():
    for method in METHODS.values():
        names = [method.client_config.__name__, method.server_config.__name__]
        assert [getattr(flaretune, name) for name in names] == [method.client_config, method.server_config]
        recipe = names[0].removesuffix("Config") + "Recipe"
        assert getattr(flaretune, recipe).method_name == method.name


def test_the_version_is_that_of_the_package():
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.*)"$', project, re.MULTILINE)[1] == flaretune.__version__


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("import flaretune", []),
        ("from flaretune import FedBPTConfig, LPFLServerConfig, UserError", []),
        ("from flaretune import Task, load_task; load_task('sst2')", []),
        ("from flaretune import load_classifier", []),
        ("from flaretune import FedBPTRecipe, LPFLRecipe", ["nvflare"]),
    ],
)
def test_a_name_loads_what_it_needs_and_no_more(statement, loaded):
    done = python(
        "-c", f"{statement}\nimport sys\nprint(*[m for m in ('torch', 'transformers', 'nvflare') if m in sys.modules])"
    )
    assert (done.returncode, done.stdout.split()) == (0, loaded), done.stderr


# ---- recipes ----


def told(folder: Path, job: str) -> tuple[dict, dict]:
    """What an exported job tells the clients, and the server, of the options that are not at their default."""
    app = folder / job / "app"
    [workflow] = json.loads((app / "config" / "config_fed_server.json").read_text(encoding="utf-8"))["workflows"]
    default = METHODS[job].server_config.model_fields
    server = {name: value for name, value in workflow["args"]["options"].items() if value != default[name].default}
    return json.loads((app / OPTIONS).read_text(encoding="utf-8")), server


@pytest.mark.parametrize(
    ("recipe", "job", "more"),
    [("FedBPTRecipe", "fedbpt", {"intrinsic_dim": 40}), ("LPFLRecipe", "lpfl", {"unlabelled": 9})],
)
def test_options_by_name_go_to_those_whose_they_are(tmp_path, recipe, job, more):
    options = {"task_name": "agnews", "model_name": "gpt2", **more, "num_rounds": 3, "min_clients": 2}
    getattr(flaretune, recipe)(**options).export(str(tmp_path))
    clients, server = told(tmp_path, job)
    assert clients == {"task_name": "agnews", "model_name": "gpt2", **more}
    assert server == {"num_rounds": 3, "min_clients": 2}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_round": 3}, r"^'num_round' is no option; did you mean 'num_rounds'\?$"),
        ({"lerning_rate": 0.1, "num_rounds": 3}, r"^'lerning_rate' is no option; did you mean 'learning_rate'\?$"),
        (
            {"num_rounds": 0, "k_shot": "8"},
            r"^2 options are wrong: \(1\) --k_shot '8': must be a whole number "
            r"\(2\) --num_rounds 0: must be at least 1$",
        ),
        ({"per_client": {"a": {"devise": "cpu"}}}, r"^client a: there is no option 'devise'; did you mean 'device'\?$"),
    ],
)
def test_options_that_are_none_or_wrong_are_named(options, sentence):
    with pytest.raises(UserError, match=sentence):
        flaretune.LPFLRecipe(**{"unlabelled": 9, **options})


def test_configs_and_options_by_name_are_not_mixed():
    with pytest.raises(UserError, match="give options by name or configs, not both: num_rounds"):
        flaretune.FedBPTRecipe(flaretune.FedBPTConfig(), num_rounds=3)


# ---- tasks and results ----


def test_a_task_says_its_words():
    task = flaretune.load_task("sst2")
    assert isinstance(task, flaretune.Task)
    assert (task.name, task.n_classes) == ("sst2", 2)
    with pytest.raises(UserError, match=r"'ssst2'; did you mean 'sst2'\?"):
        flaretune.load_task("ssst2")


@pytest.mark.parametrize("as_given", [str, Path])
@pytest.mark.parametrize("name", ["prompt_masked", "adapter", "adapter_full"])
def test_any_result_becomes_a_classifier(name, as_given):
    expected = json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))["artifacts"][name]
    model = SAVED / "models" / ("llama" if name == "adapter" else "roberta")
    place = as_given(SAVED / expected["path"])
    classifier = flaretune.load_classifier(place, model_name=str(model), dtype="float32", device="cpu")
    assert isinstance(classifier.spec, flaretune.Task)
    found = classifier.probabilities(expected["texts"])
    assert found.shape == (len(expected["texts"]), classifier.spec.n_classes)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_what_is_no_result_is_a_user_s_error_and_a_value_error(tmp_path):
    with pytest.raises(UserError):
        flaretune.load_classifier(tmp_path)
    assert issubclass(UserError, ValueError)
