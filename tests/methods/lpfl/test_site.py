"""A site of LP-FL without messages: where it starts, what it labels, and that hidden labels change nothing."""

import copy
import math

import numpy as np
import pytest
import torch

from flaretune.errors import UserError
from flaretune.flare.lpfl_client import open_site
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.lpfl.kept_states import KeptStates
from flaretune.methods.lpfl.local_train import TrainingSet, local_train
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model

SITES = ["site-1", "site-2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpfl_site")
    models = {family: str(save_tiny_model(family, folder / family)) for family in ("roberta", "llama")}
    return {**models, "data": str(write_reviews(folder / "data", n_train=120, n_test=20))}


@pytest.fixture
def opened(folders, tmp_path):
    def open_it(family="roberta", name="site-1", **options):
        config = {"k_shot": 6, "unlabelled": 24, "dtype": "float32", "lora_rank": 2, **options}
        config = LPFLConfig(model_name=folders[family], dataset=folders["data"], **config)
        return open_site(config, name, SITES, KeptStates(tmp_path / name))

    return open_it


def training_loss(tuned, site) -> float:
    """The mean loss over the site's labelled texts before a step is made, without dropout."""
    tuned.label_model.model.eval()
    answers = tuned.label_model.answers(site._texts.train.texts)
    rows = zip(answers.astype(float), site._texts.train.labels, strict=True)
    return sum(math.log(sum(math.exp(s) for s in row)) - row[label] for row, label in rows) / len(answers)


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_lora_and_full_tuning_start_from_the_same_model(opened, family):
    site, lora = opened(family)
    assert training_loss(lora, site) == pytest.approx(training_loss(opened(family, tuning="full")[1], site), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"freeze_a": 1}])
def test_training_changes_the_adapter_and_nothing_else(opened, options):
    site, tuned = opened(**options)
    model = tuned.label_model.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    answer = site.train({}, 1, evaluate=False)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    wanted = (".lora_B.",) if options else (".lora_A.", ".lora_B.")
    assert changed == {name for name in before if any(part in name for part in wanted)}
    assert {name.replace(".default", "") for name in changed} == set(answer.arrays)


def test_soft_labels_are_the_received_model_s_softmax_and_each_text_moves_once(opened):
    site, tuned = opened(soft_portion=0.5, soft_select="order")
    before, seen = {}, []
    for round_number in (1, 2, 3, 4):
        received = site.train({}, round_number, evaluate=False).arrays
        moved = site._pool.indices.tolist()
        new = moved[len(seen) :]
        if round_number > 1 and new:
            tuned.parameters.load(before)
            logits = tuned.label_model.answers([site._texts.pool[i] for i in new]).astype(float)
            expected = [[math.exp(s) / sum(math.exp(t) for t in row) for s in row] for row in logits]
            np.testing.assert_allclose(site._pool.labels[len(seen) :], expected, rtol=1e-4)
            tuned.parameters.load(received)
        before, seen = received, moved
    assert sorted(seen) == list(range(12))


@pytest.mark.parametrize("kept", ["the same", "other texts", "nothing"])
def test_kept_soft_labels_are_taken_up_only_for_the_texts_that_they_are_of(opened, folders, tmp_path, caplog, kept):
    """With another number of sites, a site's share of a common data set is of other texts."""
    site, _ = opened(soft_portion=0.5)
    for round_number in (1, 2):
        site.train({}, round_number, evaluate=False)
    states = KeptStates(tmp_path / ("site-1" if kept != "nothing" else "elsewhere"))
    sites = SITES if kept == "the same" else [*SITES, "site-3"]
    config = LPFLConfig(
        model_name=folders["roberta"], dataset=folders["data"], k_shot=6, unlabelled=36 if len(sites) == 3 else 24,
        dtype="float32", lora_rank=2, soft_portion=0.5,
    )  # fmt: skip
    again, _ = open_site(config, "site-1", sites, states)
    again.setup({}, after_round=2)
    if kept == "the same":
        assert np.array_equal(again._pool.indices, site._pool.indices)
        np.testing.assert_array_equal(again._pool.labels, site._pool.labels)
    else:
        assert len(again._pool.indices) == 0
        assert "it labels texts anew" in caplog.text
    again.train({}, 3, evaluate=False)
    assert len(again._pool.indices) == (12 if kept == "the same" else 6)


def test_training_never_sees_the_hidden_labels(opened):
    """Equal runs with true and with wrong hidden labels differ in the report alone."""
    found = []
    for flip in (False, True):
        site, _ = opened()
        if flip:
            texts = copy.copy(site._texts)
            object.__setattr__(texts, "truth", 1 - site._texts.truth)
            site._texts = texts
        found.append([site.train({}, round_number, evaluate=True) for round_number in (1, 2, 3)])
    for true, wrong in zip(*found, strict=True):
        assert (true.loss, true.soft_labelled) == (wrong.loss, wrong.soft_labelled)
        for name, values in true.arrays.items():
            np.testing.assert_array_equal(values, wrong.arrays[name])
    last = [answers[-1] for answers in found]
    assert last[0].soft_labels_right + last[1].soft_labels_right == last[0].soft_labelled > 0


def test_equal_seeds_repeat_a_round_and_others_do_not(opened):
    first, again, other = (opened(seed=seed)[0].train({}, 1, evaluate=False).arrays for seed in (3, 3, 4))
    assert all(np.array_equal(values, again[name]) for name, values in first.items())
    assert any(not np.array_equal(values, other[name]) for name, values in first.items())


def test_accumulated_gradients_are_those_of_the_whole_step(opened):
    results = []
    for passes in (1, 3):
        site, tuned = opened("llama", gradient_accumulation=passes, local_epochs=1, local_steps=0)
        results.append((site.train({}, 1, evaluate=False), tuned))
    (one, _), (three, _) = results
    assert one.loss == pytest.approx(three.loss, rel=1e-5)
    for name, values in one.arrays.items():
        np.testing.assert_allclose(values, three.arrays[name], atol=2e-5)


def test_a_loss_that_is_not_finite_is_one_sentence(opened):
    site, tuned = opened()
    texts = site._texts.train.texts[:2]
    data = TrainingSet(texts, np.array([[math.nan, 1.0], [0.5, 0.5]]), np.ones(2))
    with pytest.raises(FloatingPointError, match=r"the training loss became nan in epoch 1 .* --learning_rate"):
        local_train(tuned.label_model, tuned.parameters.trained(), data, site._settings, seed=1)


def test_a_message_without_arrays_is_not_answered_by_what_the_site_has_trained(opened):
    site, _ = opened()
    arrays = site.train({}, 1, evaluate=False).arrays
    for told in ({}, dict(list(arrays.items())[:-1])):
        with pytest.raises(UserError, match="does not have the arrays that are trained here"):
            site.evaluate(told)
    assert site.evaluate(arrays).evaluation.n_validation > 0
