"""What `import flaretune` offers."""

from __future__ import annotations

import pytest

import flaretune
from tests.commands_for_tests import python

NAMES = {
    *("Task", "load_task", "load_classifier", "UserError", "__version__"),
    *("FedBPTConfig", "FedBPTServerConfig", "FedBPTRecipe", "LPFLConfig", "LPFLServerConfig", "LPFLRecipe"),
    *("VerbalizerConfig", "VerbalizerServerConfig", "VerbalizerRecipe"),
}


def test_it_offers_these_names_and_each_loads():
    assert set(flaretune.__all__) == set(dir(flaretune)) == NAMES
    assert all(getattr(flaretune, name) for name in NAMES)


def test_another_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'FedAvgRecipe'; it has .*FedBPTRecipe"):
        flaretune.FedAvgRecipe  # noqa: B018


def test_importing_it_loads_neither_torch_nor_nvflare():
    code = "import sys, flaretune; print({n.split('.')[0] for n in sys.modules} & {'torch', 'nvflare', 'transformers'})"
    done = python("-c", code)
    assert done.stdout == "set()\n", done.stderr


def test_classifiers_are_loaded_without_nvflare():
    code = "import sys; from flaretune import load_classifier; print({'nvflare', 'torch'} & set(sys.modules))"
    done = python("-c", code)
    assert done.stdout == "set()\n", done.stderr


def test_a_recipe_splits_options_among_clients_and_server(tmp_path, roberta):
    recipe = flaretune.FedBPTRecipe(task_name="sst2", model_name=str(roberta), num_rounds=3)
    recipe.export(str(tmp_path))
    server = (tmp_path / "fedbpt" / "app" / "config" / "config_fed_server.json").read_text()
    assert '"num_rounds": 3' in server
    assert "model_name" not in server


@pytest.mark.parametrize("name", ["FedBPTRecipe", "LPFLRecipe"])
def test_a_recipe_refuses_an_option_that_there_is_not(name):
    with pytest.raises(flaretune.UserError, match="'num_round' is no option; did you mean 'num_rounds'"):
        getattr(flaretune, name)(task_name="sst2", model_name="roberta-large", num_round=3)


def test_a_file_that_is_not_there_is_no_result(tmp_path):
    with pytest.raises(flaretune.UserError, match="there is no such file or folder"):
        flaretune.load_classifier(tmp_path / "best_prompt.safetensors")
