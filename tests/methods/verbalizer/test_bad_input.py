"""What a learned verbalizer cannot be made of: each a clear sentence, or handled."""

from dataclasses import replace

import numpy as np
import pytest

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.base import ClientContext
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.registry import find_method
from flaretune.methods.verbalizer.client import ModelFacts, VerbalizerClient
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.settings import Vocabulary
from flaretune.models.load import load_pretrained
from flaretune.models.verbalizer import label_word_ids
from flaretune.models.word_log_probs import WordLogProbs
from flaretune.tasks.spec import load_task, parse_task, task_table

SPEC = load_task("sst2")
AUTO_TASK = """
text_columns = ["sentence"]
label_column = "label"
label_values = [0, 1]
metric = "accuracy"
[masked]
template = "{sentence} . It was {mask} ."
label_words = "auto"
[source]
path = "data"
train = "train"
test = "validation"
"""
N_CANDIDATES = 20
CONFIG = VerbalizerConfig(n_words=6, k_shot=30)


@pytest.fixture
def auto_file(tmp_path):
    """A task that names no label words."""
    file = tmp_path / "mine.toml"
    file.write_text(AUTO_TASK, encoding="utf-8")
    return str(file)


class MadeUpModel:
    """Gives numbers that follow from a text's class and noise; in `alike`, the same for every text."""

    gives_all = True

    def __init__(self, alike=False):
        self.example_forwards, self._alike = 0, alike

    def __call__(self, texts, token_ids):
        self.example_forwards += len(texts)
        found = []
        for text in texts:
            label, seed = (int(part) for part in text["sentence"].split())
            noise = np.random.default_rng(seed).normal(size=(1, N_CANDIDATES))
            noise[:, 0] += 3 * label
            found.append((0 * noise if self._alike else noise)[:, np.asarray(token_ids)] - 8)
        return np.array(found, dtype=np.float32).reshape(len(texts), 1, len(token_ids))


def examples(labels, seed):
    labels = np.array(labels, dtype=np.int64)
    return Examples([{"sentence": f"{label} {seed + i}"} for i, label in enumerate(labels)], labels)


def client(labels, seed, validation=(), alike=False, config=CONFIG):
    vocabulary = Vocabulary(
        [[0], [1]], np.arange(N_CANDIDATES), [f"w{i}" for i in range(N_CANDIDATES)], np.zeros((1, N_CANDIDATES))
    )
    facts, model = ModelFacts("masked", 8, "float32"), MadeUpModel(alike)
    train, held_out = examples(labels, seed), examples(validation, seed + 500)
    return VerbalizerClient(config, SPEC, facts, ["t"], vocabulary, model, train, held_out, None)


def learn(tmp_path, *clients):
    """The three steps; the head. By the mean, since the default holds clients of very many texts to the others."""
    method = find_method("verbalizer")
    strategy = method.strategy(method.server_config(aggregation="mean"))
    strategy.start({f"c{i}": c.initialize() for i, c in enumerate(clients)}, None, tmp_path)
    for step in strategy.steps(1):
        request = FitRequest(1, *strategy.configure(1, step), evaluate=False, step=step)
        results = {f"c{i}": strategy.check(c.fit(request), step) for i, c in enumerate(clients)}
        strategy.aggregate(1, step, results)
    return strategy.evaluated_arrays()


@pytest.mark.parametrize("validation", [(), (0, 1, 1, 0)], ids=["leave-one-out", "validation"])
def test_clients_of_one_class_of_one_text_and_of_none_give_what_one_client_would(tmp_path, validation):
    labels = [0] * 6 + [1] * 6 + [1]
    split = learn(tmp_path, client([0] * 6, 0, validation), client([1] * 6, 6), client([1], 12), client([], 13))
    whole = learn(tmp_path, client(labels, 0, validation))
    assert split.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_allclose(split[name], values, atol=1e-6)


def test_more_words_than_texts_is_still_sane(tmp_path):
    head = learn(tmp_path, client([0, 1, 1], 0), client([0], 5))
    assert len(head["weights"]) > 4
    assert np.all(np.isfinite(head["weights"]))


def test_one_class_in_all_is_still_sane(tmp_path):
    head = learn(tmp_path, client([1, 1, 1], 0), client([1], 5))
    scores = np.zeros(len(head["weights"])) @ head["weights"] + head["bias"]
    assert np.all(np.isfinite(head["weights"]))
    assert scores.argmax() == 1


def test_words_that_no_text_makes_vary_are_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no word's log-probability differs"):
        learn(tmp_path, client([0, 1, 1], 0, alike=True))


def test_no_labelled_text_anywhere_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"no client has a labelled text|no word's log-probability differs"):
        learn(tmp_path, client([], 0), client([], 1))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_words": 2001}, "n_words"),
        ({"calibrate": "batch"}, "has its own weights and bias"),
        ({"n_words": 0}, "n_words"),
    ],
)
def test_options_that_clash_are_a_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        VerbalizerConfig(**changes)


def test_a_model_without_an_output_embedding_is_a_sentence(roberta, monkeypatch):
    pretrained = load_pretrained(str(roberta), "float32", "cpu")
    monkeypatch.setattr(pretrained.model, "get_output_embeddings", lambda: None)
    with pytest.raises(UserError, match="gives no log-probabilities of chosen words"):
        WordLogProbs(pretrained, SPEC, [SPEC.masked.template], 4)


def test_a_template_without_the_task_s_text_is_a_sentence():
    table = task_table(SPEC)
    for templates, sentence in (
        (["It was {mask} ."], "sentence"),
        (["{text} {mask}"], "text"),
        ([table["masked"]["template"]], "2 times"),
    ):
        with pytest.raises(UserError, match=sentence):
            parse_task({**table, "masked": {**table["masked"], "templates": templates}}, "mine", "here")


@pytest.mark.parametrize(("name", "needed"), [("fedbpt", {}), ("lpfl", {"soft_labels": "off"})])
def test_other_methods_say_that_they_need_label_words_before_any_data_or_model_is_read(name, needed, auto_file):
    method = find_method(name)
    config = method.client_config(task_file=auto_file, dataset="./nowhere", model_name="./nowhere", **needed)
    with pytest.raises(UserError, match=f"for the verbalizer method, .* {method.title} needs label words"):
        method.client(config, ClientContext("site-1", ["site-1"], None))


def test_other_methods_say_so_of_the_model_s_kind_too(roberta, auto_file):
    """The task has label words for the other kind of model alone."""
    tokenizer = load_pretrained(str(roberta), "float32", "cpu").tokenizer
    spec = replace(load_task(auto_file), causal=SPEC.causal)
    with pytest.raises(UserError, match=r'label_words = "auto" of task .* is for the verbalizer method'):
        label_word_ids(tokenizer, spec, "masked")


def test_fewer_labels_than_classes_are_a_sentence(auto_file, tmp_path):
    """A class that no row has, in data of the job and of a client's own."""
    data = tmp_path / "one_class.csv"
    data.write_text("sentence,label\n" + "".join(f"a film {i},1\n" for i in range(9)))
    for place in ("dataset", "data_path"):
        config = VerbalizerConfig(task_file=auto_file, k_shot=2, **{place: str(data)})
        with pytest.raises(UserError, match="only 0 have the label 0; add texts with it"):
            find_method("verbalizer").client(config, ClientContext("site-1", ["site-1"], None))


def wrong_settings():
    settings = client([0, 1], 0).initialize().settings
    told = settings["verbalizer"]
    return {
        "no template": {"verbalizer": {**told, "templates": []}},
        "words of three classes": {"verbalizer": {**told, "label_ids": [[0], [1], [2]]}},
        "a label word that is no candidate": {"verbalizer": {**told, "label_ids": [[0], [99]]}},
        "a candidate twice": {"candidates": settings["candidates"] + settings["candidates"][:1]},
        "no candidate": {"candidates": []},
        "a negative id": {"candidates": [[-1, "x"]] + settings["candidates"]},
    }


@pytest.mark.parametrize("changes", wrong_settings().values(), ids=wrong_settings())
def test_settings_that_cannot_be_are_refused(changes):
    method, result = find_method("verbalizer"), client([0, 1], 0).initialize()
    method.check_settings(result.settings)
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        method.check_settings({**result.settings, **changes})
