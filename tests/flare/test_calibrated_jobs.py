"""Jobs whose sites divide out the model's preference for a class: what travels, what is kept, what is answered."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
from flaretune.flare.fedbpt_client import FedBPTTasks, open_site
from flaretune.flare.fedbpt_controller import FedBPTController

from flaretune.data.load import load_file
from flaretune.flare import fedbpt_messages, messages
from flaretune.methods.classifier import load_classifier, score
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.artifact import load_adapter
from tests.flare.federation import federate

SITES = ["site-1", "site-2", "site-3"]


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture
def prompt_job(roberta, few_reviews, tmp_path, monkeypatch, as_in_a_job):
    """Run a calibrated job of FedBPT in this process: its options, what was said, the folder of its results."""

    def run(name="results", rounds=2, checkpoint="", **options):
        config = FedBPTConfig(
            model_name=str(roberta), dataset=few_reviews, n_prompt_tokens=3, intrinsic_dim=6, k_shot=9, local_iter=2,
            dtype="float32", **{"calibrate": "batch", "eval_clients": "all", **options},
        )  # fmt: skip
        controller = FedBPTController(num_rounds=rounds, seed=config.seed, checkpoint=str(checkpoint))
        told = federate(controller, {s: FedBPTTasks(config) for s in SITES}, tmp_path / name, monkeypatch)
        assert told.panics == []
        return config, told, tmp_path / name

    return run


def priors(told):
    return [messages.read_prior(message) for _, _, message in told.tasks]


def test_the_prior_is_that_of_all_sites_texts_with_the_initial_prompt(prompt_job):
    config, told, _ = prompt_job()
    first, *later = priors(told)
    assert first is None  # nobody knows it yet
    probabilities = []
    for site in SITES:
        _, prompted, data = open_site(config, site, SITES)
        for examples in (data.train, data.dev):
            logits = prompted.black_box.label_logits(np.zeros((1, 6)), prompted.register(examples))[0].astype(float)
            powers = np.exp(logits)
            probabilities.append(powers / powers.sum(axis=1, keepdims=True))
    expected = np.concatenate(probabilities).mean(axis=0)
    assert len(later) == 3
    for prior in later:
        np.testing.assert_allclose(prior, expected, rtol=1e-5)


def test_a_prompt_answers_at_home_as_it_did_at_the_sites(prompt_job, few_reviews):
    _, told, folder = prompt_job(rounds=3)
    file, summary = folder / "best_prompt.safetensors", summary_of(folder)
    classifier = load_classifier(file, dtype="float32", device="cpu")
    test = load_file(classifier.spec, f"{few_reviews}/validation.csv")
    found = classifier.probabilities(test.texts)
    assert score(classifier.spec, found, test.labels).value == pytest.approx(summary["test_accuracy"], abs=1e-9)
    np.testing.assert_allclose(load_prompt(file).result["prior"], priors(told)[-1])


def test_what_is_searched_for_is_the_calibrated_loss(prompt_job):
    """With a calibrated loss the sites' fitness differs from that of the same search without."""
    fitness = {}
    for calibrate in ("batch", "none"):
        _, told, folder = prompt_job(calibrate, calibrate=calibrate)
        fitness[calibrate] = summary_of(folder)["rounds"][1]["site_fitness"]
        assert all(("prior" in m.meta["flaretune"]) == (calibrate == "batch" and n > 0) for _, n, m in told.tasks)
    assert all(fitness["batch"][site] != fitness["none"][site] for site in SITES)


def test_a_run_that_goes_on_keeps_its_prior(prompt_job, tmp_path):
    _, whole, folder = prompt_job("whole", rounds=3)
    prompt_job("part", rounds=1, checkpoint=tmp_path / "kept")
    _, on, again = prompt_job("on", rounds=3, checkpoint=tmp_path / "kept")
    searched = [messages.read_prior(m) for task, _, m in on.tasks if task == fedbpt_messages.SEARCH]
    assert len(searched) == 2
    assert all(np.array_equal(prior, priors(whole)[-1]) for prior in searched)
    for key in ("accuracy", "dev_loss", "fitness"):
        assert [r[key] for r in summary_of(again)["rounds"]] == [r[key] for r in summary_of(folder)["rounds"]]


def test_an_adapter_answers_at_home_as_it_did_at_the_sites_and_goes_on_with_its_prior(lpfl_job, few_reviews):
    told, folder = lpfl_job(calibrate="batch")
    adapter = folder / "last_adapter"
    prior = load_adapter(adapter).result["prior"]
    np.testing.assert_array_equal(prior, priors(told)[-1])
    classifier = load_classifier(adapter, dtype="float32", device="cpu")
    test = load_file(classifier.spec, f"{few_reviews}/validation.csv")
    found = score(classifier.spec, classifier.probabilities(test.texts), test.labels).value
    assert found == pytest.approx(summary_of(folder)["rounds"][-1]["accuracy"], abs=1e-9)
    zero_shot = score(classifier.spec, classifier.zero_shot(test), test.labels).value
    assert zero_shot == pytest.approx(summary_of(folder)["zero_shot_accuracy"], abs=1e-9)
    np.testing.assert_array_equal(classifier.probabilities(test.texts), classifier.probabilities(test.texts))

    on, _ = lpfl_job("on", rounds=1, calibrate="batch", init_adapter=adapter)
    assert [p is None or p.tolist() == prior for p in priors(on)] == [True] * 3
    assert priors(on)[1] is not None


def test_round_0_is_the_start_divided_by_its_prior(prompt_job, few_reviews):
    config, told, folder = prompt_job(rounds=1, eval_clients="first")
    _, prompted, data = open_site(config, SITES[0], SITES)
    logits = prompted.black_box.label_logits(np.zeros((1, 6)), prompted.register(data.test))[0].astype(float)
    right = (np.exp(logits) / priors(told)[-1]).argmax(axis=1) == data.test.labels
    assert summary_of(folder)["rounds"][0]["accuracy"] == pytest.approx(right.mean(), abs=1e-9)


def test_an_adapter_without_a_prior_is_not_calibrated_later(lpfl_job):
    _, folder = lpfl_job(rounds=1)
    told, _ = lpfl_job("on", rounds=1, calibrate="batch", init_adapter=folder / "last_adapter")
    assert len(told.panics) == 1
    assert "was trained with --calibrate none; go on with that" in told.panics[0]


def test_a_prior_is_of_one_task_s_label_words(lpfl_job, tmp_path):
    _, folder = lpfl_job(rounds=1, calibrate="batch")
    text = (resources.files("flaretune.tasks") / "builtin" / "sst2.toml").read_text(encoding="utf-8")
    (tmp_path / "turned.toml").write_text(text.replace('["bad", "great"]', '["great", "bad"]'), encoding="utf-8")
    other = {"task_file": str(tmp_path / "turned.toml"), "init_adapter": folder / "last_adapter"}
    told, _ = lpfl_job("on", rounds=1, calibrate="batch", **other)
    assert len(told.panics) == 1
    assert "is calibrated for the label words of another task; give one of this task" in told.panics[0]
