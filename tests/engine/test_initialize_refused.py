"""Replies to initialize of clients whose numbers do not follow from their own settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.methods.base import ClientContext
from flaretune.methods.registry import find_method
from tests.engine.small_jobs import small_config
from tests.learnable import write_reviews

FEDBPT = find_method("fedbpt")


@pytest.fixture(scope="module")
def reply(roberta, tmp_path_factory):
    """A real client's, as a function that makes it anew."""
    folder = tmp_path_factory.mktemp("data")
    config = small_config("fedbpt", roberta, dataset=str(write_reviews(folder, n_train=60, n_test=20)), k_shot=4)
    result = FEDBPT.client(config, ClientContext("a", ["a", "b"], Path(folder))).initialize()
    return lambda: codec.initialize_reply(result)


def test_a_real_reply_is_read(reply):
    assert codec.read_initialize_reply(reply(), FEDBPT).n_train > 0


@pytest.mark.parametrize("options", [{"popsize": 5}, {"local_popsize": "5"}, {"sigma": None}])
def test_options_that_no_client_can_have_are_refused(reply, options):
    """The population follows from the options: it is none of them."""
    message = reply()
    settings = message.fields["settings"]
    message.fields["settings"] = {**settings, "options": {**settings["options"], **options}}
    with pytest.raises(ValueError, match=next(iter(options))):
        codec.read_initialize_reply(message, FEDBPT)


def test_a_population_beside_the_options_means_nothing(reply):
    message = reply()
    message.fields["settings"] = {**message.fields["settings"], "popsize": 10**12}
    settings = codec.read_initialize_reply(message, FEDBPT).settings
    assert FEDBPT.client_config(**settings["options"]).popsize == 5


def test_counts_that_are_not_those_of_the_metric_are_refused(reply):
    message = reply()
    message.arrays["validation"] = np.array([1, 2, 3])
    with pytest.raises(ValueError, match="'validation' is not a vector of 2 counts"):
        codec.read_initialize_reply(message, FEDBPT)


@pytest.mark.parametrize("field", ["n_train", "validation_loss"])
def test_more_texts_than_k_per_class_are_refused(reply, field):
    message, most = reply(), 8
    if field == "n_train":
        message.fields["n_train"] = most + 1
    else:
        message.arrays |= {"validation": np.array([0, most + 1]), "validation_loss": np.array([1.0, most + 1])}
    with pytest.raises(ValueError, match=f"'{field}' tells of 9 texts"):
        codec.read_initialize_reply(message, FEDBPT)
