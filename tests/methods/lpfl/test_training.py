"""A client of LP-FL without messages: where it starts, what it labels, and that hidden labels change nothing."""

import copy
import math

import numpy as np
import pytest
import torch

from flaretune.errors import UserError
from flaretune.methods.base import ClientContext, FitRequest
from flaretune.methods.lpfl.client import open_client
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.lpfl.local_train import TrainingSet, TrainSettings, local_train
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model

CLIENTS = ["site-1", "site-2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpfl_client")
    models = {family: str(save_tiny_model(family, folder / family)) for family in ("roberta", "llama")}
    return {**models, "data": str(write_reviews(folder / "data", n_train=120, n_test=20))}


@pytest.fixture
def opened(folders, tmp_path):
    def open_it(family="roberta", name="site-1", **options):
        config = {"k_shot": 6, "unlabelled": 24, "dtype": "float32", "lora_rank": 2, **options}
        config = LPFLConfig(model_name=folders[family], dataset=folders["data"], **config)
        client = open_client(config, ClientContext(name, CLIENTS, tmp_path / name))
        return client, client.tuned

    return open_it


def fit(client, round_number: int, evaluate: bool = False):
    return client.fit(FitRequest(round_number, {}, {}, evaluate))


def training_loss(tuned, client) -> float:
    """The mean loss over the client's labelled texts before a step is made, without dropout."""
    tuned.label_model.model.eval()
    answers = tuned.label_model.answers(client._texts.train.texts)
    rows = zip(answers.astype(float), client._texts.train.labels, strict=True)
    return sum(math.log(sum(math.exp(s) for s in row)) - row[label] for row, label in rows) / len(answers)


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_lora_and_full_tuning_start_from_the_same_model(opened, family):
    client, lora = opened(family)
    assert training_loss(lora, client) == pytest.approx(
        training_loss(opened(family, tuning="full")[1], client), rel=1e-5
    )


@pytest.mark.parametrize("options", [{}, {"freeze_a": 1}])
def test_training_changes_the_adapter_and_nothing_else(opened, options):
    client, tuned = opened(**options)
    model = tuned.label_model.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    answer = fit(client, 1)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    wanted = (".lora_B.",) if options else (".lora_A.", ".lora_B.")
    assert changed == {name for name in before if any(part in name for part in wanted)}
    assert {name.replace(".default", "") for name in changed} == set(answer.arrays)


def test_soft_labels_are_the_received_model_s_softmax_and_each_text_moves_once(opened):
    client, tuned = opened(soft_portion=0.5, soft_select="order")
    before, seen = {}, []
    for round_number in (1, 2, 3, 4):
        received = fit(client, round_number).arrays
        moved = client._pool.indices.tolist()
        new = moved[len(seen) :]
        if round_number > 1 and new:
            tuned.parameters.load(before)
            logits = tuned.label_model.answers([client._texts.pool[i] for i in new]).astype(float)
            expected = [[math.exp(s) / sum(math.exp(t) for t in row) for s in row] for row in logits]
            np.testing.assert_allclose(client._pool.labels[len(seen) :], expected, rtol=1e-4)
            tuned.parameters.load(received)
        before, seen = received, moved
    assert sorted(seen) == list(range(12))


@pytest.mark.parametrize("kept", ["the same", "other texts", "nothing"])
def test_kept_soft_labels_are_taken_up_only_for_the_texts_that_they_are_of(opened, folders, tmp_path, caplog, kept):
    """With another number of clients, a client's share of a common data set is of other texts."""
    client, _ = opened(soft_portion=0.5)
    for round_number in (1, 2):
        fit(client, round_number)
    states = tmp_path / ("site-1" if kept != "nothing" else "elsewhere")
    clients = CLIENTS if kept == "the same" else [*CLIENTS, "site-3"]
    config = LPFLConfig(
        model_name=folders["roberta"], dataset=folders["data"], k_shot=6, unlabelled=36 if len(clients) == 3 else 24,
        dtype="float32", lora_rank=2, soft_portion=0.5,
    )  # fmt: skip
    again = open_client(config, ClientContext("site-1", clients, states, after_round=2))
    again.initialize()
    if kept == "the same":
        assert np.array_equal(again._pool.indices, client._pool.indices)
        np.testing.assert_array_equal(again._pool.labels, client._pool.labels)
    else:
        assert len(again._pool.indices) == 0
        assert "it labels texts anew" in caplog.text
    fit(again, 3)
    assert len(again._pool.indices) == (12 if kept == "the same" else 6)


def test_training_never_sees_the_hidden_labels(opened):
    """Equal runs with true and with wrong hidden labels differ in the report alone."""
    found = []
    for flip in (False, True):
        client, _ = opened()
        if flip:
            texts = copy.copy(client._texts)
            object.__setattr__(texts, "truth", 1 - client._texts.truth)
            client._texts = texts
        found.append([fit(client, round_number, evaluate=True) for round_number in (1, 2, 3)])
    for true, wrong in zip(*found, strict=True):
        assert [true.numbers[n] for n in ("loss", "soft_labelled")] == [
            wrong.numbers[n] for n in ("loss", "soft_labelled")
        ]
        for name, values in true.arrays.items():
            np.testing.assert_array_equal(values, wrong.arrays[name])
    last = [answers[-1] for answers in found]
    assert sum(one.numbers["soft_labels_correct"] for one in last) == last[0].numbers["soft_labelled"] > 0


def test_equal_seeds_repeat_a_round_and_others_do_not(opened):
    first, again, other = (fit(opened(seed=seed)[0], 1).arrays for seed in (3, 3, 4))
    assert all(np.array_equal(values, again[name]) for name, values in first.items())
    assert any(not np.array_equal(values, other[name]) for name, values in first.items())


def test_accumulated_gradients_are_those_of_the_whole_step(opened):
    results = []
    for batch_size in (0, 3):
        client, tuned = opened("llama", batch_size=batch_size, local_epochs=1, local_steps=0)
        results.append((fit(client, 1), tuned))
    (one, _), (three, _) = results
    assert one.numbers["loss"] == pytest.approx(three.numbers["loss"], rel=1e-5)
    for name, values in one.arrays.items():
        np.testing.assert_allclose(values, three.arrays[name], atol=2e-5)


def test_a_loss_that_is_not_finite_is_one_sentence(opened):
    client, tuned = opened()
    texts = client._texts.train.texts[:2]
    data = TrainingSet(texts, np.array([[math.nan, 1.0], [0.5, 0.5]]), np.ones(2))
    with pytest.raises(FloatingPointError, match=r"the training loss became nan in epoch 1 .* --learning_rate"):
        local_train(
            tuned.label_model, tuned.parameters.trained(), data, TrainSettings("lora", 1, 1, 1e-3, 8, 0), seed=1
        )


def test_a_message_without_arrays_is_not_answered_by_what_the_client_has_trained(opened):
    client, _ = opened()
    arrays = fit(client, 1).arrays
    for told in ({}, dict(list(arrays.items())[:-1])):
        with pytest.raises(UserError, match="does not have the arrays that are trained here"):
            client.evaluate(told)
    assert client.evaluate(arrays).evaluation.n_validation > 0
