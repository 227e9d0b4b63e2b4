"""A client of LP-FL without messages: where it starts, what it labels, and that hidden labels change nothing."""

import math

import numpy as np
import pytest
import torch

from flaretune.config.options import as_dict, build
from flaretune.errors import UserError
from flaretune.methods.base import ClientContext
from flaretune.methods.client_data import Labelled
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.lpfl.client import ClientTexts, LPFLClient, open_client
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.lpfl.kept_states import KeptStates
from flaretune.methods.lpfl.local_train import default_learning_rate, local_train
from flaretune.models.lora import TuneSettings
from flaretune.models.tuned import open_tuned_model
from flaretune.tasks.spec import load_task
from tests.learnable import reviews

pytestmark = pytest.mark.usefixtures("models_read_once")

CLIENTS = ["site-1", "site-2"]
TRAIN, VALIDATION, TEST, POOL = (reviews(n, seed) for n, seed in ((6, 1), (6, 2), (10, 3), (12, 4)))


@pytest.fixture
def opened(folders, tmp_path):
    """Open a client with the texts above; returns it, its model and its texts."""

    def open_it(family="roberta", folder="site-1", flip=False, **options):
        config = {"soft_labels": "on", "unlabelled": 12, "dtype": "float32", "lora_rank": 2, **options}
        config = LPFLConfig(model_name=folders[family], **config)
        settings = build(TuneSettings, as_dict(config))
        tuned = open_tuned_model(
            load_task("sst2"), config.model_name, settings, dtype="float32", device="cpu", batch_size=config.batch_size
        )

        def labelled(sentences, labels):
            return Labelled(tuned.label_model.encode([{"sentence": text} for text in sentences]), labels)

        pool = labelled(*POOL)
        texts = ClientTexts(
            *(labelled(*part) for part in (TRAIN, VALIDATION, TEST)),
            pool.texts,
            1 - pool.labels if flip else pool.labels,
        )
        return LPFLClient(config, ClientContext("site-1", CLIENTS, tmp_path / folder), tuned, texts), tuned, texts

    return open_it


def fit(client, round_number: int, evaluate: bool = False):
    return client.fit(FitRequest(round_number, client.tuned.parameters.arrays(), {}, evaluate))


def softmax(logits) -> list[list[float]]:
    return [[math.exp(s) / sum(math.exp(t) for t in row) for s in row] for row in logits.astype(float)]


def training_loss(tuned, texts) -> float:
    """The mean loss over the client's labelled texts before a step is made, without dropout."""
    tuned.label_model.model.eval()
    rows = zip(softmax(tuned.label_model.predict_logits(texts.train.texts)), texts.train.labels, strict=True)
    return sum(-math.log(row[label]) for row, label in rows) / len(texts.train.labels)


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_lora_and_full_tuning_start_from_the_same_model(opened, family):
    _, lora, texts = opened(family)
    _, full, _ = opened(family, tuning="full")
    assert training_loss(lora, texts) == pytest.approx(training_loss(full, texts), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"subspace_dim": 7}])
def test_training_changes_the_adapter_and_nothing_else(opened, options):
    client, tuned, _ = opened(**options)
    model = tuned.label_model.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    start = {"theta": np.zeros(7, np.float16)} if options else tuned.parameters.arrays()
    result = client.fit(FitRequest(1, start, {}, evaluate=False))
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    wanted = (".lora_B.",) if options else (".lora_A.", ".lora_B.")
    assert changed == {name for name in before if any(part in name for part in wanted)}
    assert set(result.arrays) == set(start)
    assert options or {name.replace(".default", "") for name in changed} == set(start)


def test_soft_labels_are_the_received_model_s_softmax_and_each_text_moves_once(opened, tmp_path):
    client, tuned, texts = opened(soft_portion=0.5, soft_select="order")
    before, moved = fit(client, 1).arrays, []
    for round_number in (2, 3):
        received = fit(client, round_number).arrays
        state = KeptStates(tmp_path / "site-1").load(round_number)
        new = state["moved"].tolist()[len(moved) :]
        tuned.parameters.load(before)
        expected = softmax(tuned.label_model.predict_logits([texts.pool[i] for i in new]))
        np.testing.assert_allclose(state["labels"][len(moved) :], expected, rtol=1e-4)
        tuned.parameters.load(received)
        before, moved = received, state["moved"].tolist()
    assert sorted(moved) == list(range(12))
    assert fit(client, 4).numbers["soft_labelled"] == 12


@pytest.mark.parametrize("resumed_with", ["the same", "other texts", "nothing"])
def test_soft_labels_are_resumed_only_for_the_texts_that_they_are_of(folders, tmp_path, caplog, resumed_with):
    """With another number of clients, a client's share of a common data set is of other texts."""

    def open_it(clients, folder, after_round=0):
        config = LPFLConfig(
            model_name=folders["roberta"], dataset=folders["data"], k_shot=6, unlabelled=12 * len(clients),
            dtype="float32", lora_rank=2, soft_portion=0.5,
        )  # fmt: skip
        return open_client(config, ClientContext("site-1", clients, tmp_path / folder, after_round=after_round))

    client = open_it(CLIENTS, "site-1")
    fit(client, 1)
    fit(client, 2)
    first = KeptStates(tmp_path / "site-1").load(2)
    clients = [*CLIENTS, "site-3"] if resumed_with == "other texts" else CLIENTS
    folder = "elsewhere" if resumed_with == "nothing" else "site-1"
    again = open_it(clients, folder, after_round=2)
    again.initialize()
    soft_labelled = fit(again, 3).numbers["soft_labelled"]
    state = KeptStates(tmp_path / folder).load(3)
    if resumed_with == "the same":
        assert soft_labelled == 12
        np.testing.assert_array_equal(state["moved"][:6], first["moved"])
        np.testing.assert_array_equal(state["labels"][:6], first["labels"])
    else:
        assert soft_labelled == 6  # one round's portion
        assert "it labels texts anew" in caplog.text


def test_training_never_sees_the_hidden_labels(opened):
    """Equal runs with true and with wrong hidden labels differ in the report alone."""
    found = []
    for flip in (False, True):
        client, *_ = opened(folder=f"flip_{flip}", flip=flip)
        found.append([fit(client, round_number, evaluate=True) for round_number in (1, 2, 3)])
    for true, wrong in zip(*found, strict=True):
        assert [true.numbers[n] for n in ("loss", "soft_labelled")] == [
            wrong.numbers[n] for n in ("loss", "soft_labelled")
        ]
        for name, values in true.arrays.items():
            np.testing.assert_array_equal(values, wrong.arrays[name])
    last = [results[-1] for results in found]
    assert sum(one.numbers["soft_labels_correct"] for one in last) == last[0].numbers["soft_labelled"] > 0


def test_equal_seeds_repeat_a_round_and_others_do_not(opened):
    first, again, other = (fit(opened(seed=seed)[0], 1).arrays for seed in (3, 3, 4))
    assert all(np.array_equal(values, again[name]) for name, values in first.items())
    assert any(not np.array_equal(values, other[name]) for name, values in first.items())


def test_accumulated_gradients_are_those_of_the_whole_step(opened):
    results = []
    for batch_size in (0, 3):
        client, *_ = opened("llama", batch_size=batch_size, local_epochs=1, local_steps=0)
        results.append(fit(client, 1))
    one, three = results
    assert one.numbers["loss"] == pytest.approx(three.numbers["loss"], rel=1e-5)
    for name, values in one.arrays.items():
        np.testing.assert_allclose(values, three.arrays[name], atol=2e-5)


@pytest.mark.parametrize(
    ("options", "rate"),
    [({}, 1e-3), ({"tuning": "full"}, 2e-5), ({"subspace_dim": 200}, 1e-2), ({"subspace_dim": 3200}, 5e-3)],
)
def test_the_fewer_numbers_are_trained_the_larger_the_steps(options, rate):
    assert default_learning_rate(LPFLConfig(soft_labels="off", **options)) == pytest.approx(rate)


def test_a_loss_that_is_not_finite_is_one_sentence(opened):
    _, tuned, texts = opened()
    data = texts.train.texts[:2], np.array([[math.nan, 1.0], [0.5, 0.5]])
    with pytest.raises(FloatingPointError, match=r"the training loss became nan in epoch 1 .* --learning_rate"):
        local_train(tuned.label_model, tuned.parameters, *data, LPFLConfig(local_epochs=1, local_steps=1), seed=1)


def test_what_the_client_has_trained_does_not_stand_for_arrays_that_the_server_did_not_send(opened):
    client, *_ = opened()
    arrays = fit(client, 1).arrays
    *most, (name, values) = arrays.items()
    for sent in ({}, dict(most), {**dict(most), "other": values}, {**arrays, name: values[:1]}):
        for task in (client.evaluate, lambda sent: client.fit(FitRequest(2, sent, {}, evaluate=True))):
            with pytest.raises(UserError, match="the server's message cannot be read"):
                task(sent)
    assert client.evaluate(arrays).evaluation.n_validation > 0
