"""Setup answers of sites whose numbers do not follow from their own settings."""

from __future__ import annotations

import numpy as np
import pytest
from flaretune.flare.fedbpt_client import set_up

from flaretune.flare import messages
from flaretune.methods.fedbpt.config import FedBPTConfig


@pytest.fixture(scope="module")
def answer(tiny, tmp_path_factory):
    """A real site's, as a function that makes it anew."""
    from tests.learnable import write_reviews

    data = str(write_reviews(tmp_path_factory.mktemp("data"), n_train=60, n_test=20))
    config = FedBPTConfig(model_name=str(tiny("roberta")), dataset=data, k_shot=4, intrinsic_dim=6, n_prompt_tokens=3)
    found = set_up(config, "a", ["a", "b"])[1]
    return lambda: messages.setup_answer(found)


def test_a_real_answer_is_read(answer):
    assert messages.read_setup_answer(answer(), FedBPTConfig).n_train > 0


@pytest.mark.parametrize("popsize", [4, 10**12, None, "5"])
def test_a_population_that_the_options_do_not_give_is_refused(answer, popsize):
    model = answer()
    model.meta["flaretune"]["settings"] = {**model.meta["flaretune"]["settings"], "popsize": popsize}
    with pytest.raises(ValueError, match="and 5 follows from the options"):
        messages.read_setup_answer(model, FedBPTConfig)


def test_counts_that_are_not_those_of_the_metric_are_refused(answer):
    model = answer()
    model.params["dev"] = np.array([1, 2, 3])
    with pytest.raises(ValueError, match="'dev' is not a vector of 2 counts"):
        messages.read_setup_answer(model, FedBPTConfig)


@pytest.mark.parametrize(("field", "most"), [("n_train", 8), ("dev_loss", 8)])
def test_more_texts_than_k_for_each_class_are_refused(answer, field, most):
    model = answer()
    if field == "n_train":
        model.meta["flaretune"]["n_train"] = most + 1
    else:
        model.params |= {"dev": np.array([0, most + 1]), "dev_loss": np.array([1.0, most + 1])}
    with pytest.raises(ValueError, match=f"'{field}' tells of 9 texts, and --k_shot gives a site 8 at the most"):
        messages.read_setup_answer(model, FedBPTConfig)
