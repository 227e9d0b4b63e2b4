"""The seven tasks of BBT and FedBPT, against the table of ../shared/spec/tasks.md written down here."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from flaretune.data.encode import Encoder
from flaretune.data.load import load_split
from flaretune.data.shares import Split, share_of_common_set
from flaretune.models.load import load_outline
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import open_prompted_model
from flaretune.tasks.evaluation import count_correct
from flaretune.tasks.spec import available_tasks, load_task
from tests.models_for_tests import save_tiny_model
from tests.published_for_tests import SHAPES, WORDS, WRITERS, stand_in
from tests.tokenizers_for_tests import SENTENCES, roberta_like

OPINION, PAIR = ("bad", "great"), "{sentence1} ? {mask} , {sentence2}"
THINGS = (
    *("Company", "Education", "Artist", "Athlete", "Office", "Transportation", "Building", "Natural", "Village"),
    *("Animal", "Plant", "Album", "Film", "Written"),
)
# task: hub id, configuration, masked template, label words, test split
TABLE = {
    "sst2": ("nyu-mll/glue", "sst2", "{sentence} . It was {mask} .", OPINION, "validation"),
    "yelpp": ("fancyzhx/yelp_polarity", None, "{text} . It was {mask} .", OPINION, "test"),
    "agnews": ("fancyzhx/ag_news", None, "{mask} News: {text}", ("World", "Sports", "Business", "Tech"), "test"),
    "dbpedia": ("fancyzhx/dbpedia_14", None, "[ Category: {mask} ] {content}", THINGS, "test"),
    "rte": ("nyu-mll/glue", "rte", PAIR, ("Yes", "No"), "validation"),
    "mrpc": ("nyu-mll/glue", "mrpc", PAIR, ("No", "Yes"), "validation"),
    "snli": ("stanfordnlp/snli", None, "{premise} ? {mask} , {hypothesis}", ("Yes", "Maybe", "No"), "test"),
}
SETTINGS = PromptSettings(4, 6, "add", "suffix", "auto", 1.0, 1.0, 3, 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {family: str(save_tiny_model(family, folder / family, words=WORDS)) for family in ("roberta", "gpt2")}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    return {task: str(WRITERS["csv"](task, folder / task)) for task in TABLE}


def test_all_seven_are_shipped():
    assert set(TABLE) | {"movie_reviews"} == set(available_tasks())


@pytest.mark.parametrize("task", TABLE)
def test_a_task_is_as_published(task):
    hub, config, template, words, test = TABLE[task]
    spec = load_task(task)
    assert (spec.source.hub, spec.source.config, spec.source.train, spec.source.test) == (hub, config, "train", test)
    assert spec.label_column == "label"
    assert (spec.masked.template, spec.masked.label_words) == (template, words)
    assert spec.causal.label_words == tuple(f" {word}" for word in words)
    assert all(f"{{{column}}}" in spec.causal.template for column in spec.text_columns)
    assert (spec.metric, spec.positive_class) == (("f1", 1) if task == "mrpc" else ("accuracy", None))
    assert spec.label_values == tuple(range(len(words)))
    assert spec.drop_labels == ((-1,) if task == "snli" else ())
    assert spec.placeholder_tail == (" " if task == "dbpedia" else " . ")


@pytest.mark.parametrize("task", TABLE)
def test_columns_and_label_ids_are_those_of_the_data_set(task):
    """Label words stand for the labels that the data set's own feature names."""
    names, columns, *_ = SHAPES[task]
    spec = load_task(task)
    assert spec.text_columns == tuple(columns)
    assert len(names) == spec.n_classes
    if task in ("agnews", "dbpedia"):
        assert all(
            word[:4] in name
            for word, name in zip(spec.masked.label_words, names, strict=True)
            if word != "Transportation"
        )


@pytest.mark.parametrize("shape", WRITERS)
@pytest.mark.parametrize("task", TABLE)
def test_every_task_loads_from_a_folder_in_every_shape(tmp_path, task, shape):
    folder = WRITERS[shape](task, tmp_path / "data")
    spec, rows = load_task(task), stand_in(task)
    for split, name in (("train", "train"), ("test", spec.source.test)):
        examples = load_split(spec, split, str(folder))
        kept = rows[name].filter(lambda row: row["label"] >= 0)
        assert examples.labels.tolist() == list(kept["label"])
        for column in spec.text_columns:
            assert [texts[column] for texts in examples.texts] == list(kept[column])
        if task == "snli":
            assert len(examples) < len(rows[name])


@pytest.mark.parametrize("task", TABLE)
def test_the_hub_is_asked_for_what_the_table_says(monkeypatch, task):
    asked = []

    def load_dataset(path, name=None, *, split):
        asked.append((path, name, split))
        return stand_in(task)[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    spec = load_task(task)
    assert len(load_split(spec, "train")) == spec.n_classes * 6
    assert len(load_split(spec, "test")) == spec.n_classes * 6
    hub, config, *_, test = TABLE[task]
    assert asked == [(hub, config, "train"), (hub, config, test)]


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
@pytest.mark.parametrize("task", TABLE)
def test_every_task_gives_answers_of_both_kinds_of_models(models, data, task, family):
    spec = load_task(task)
    share = share_of_common_set(spec, data[task], Split(2, 1, True, 1.0, 0), 0, (0, 1))
    assert np.bincount(share.train.labels).tolist() == [2] * spec.n_classes
    prompted = open_prompted_model(spec, models[family], SETTINGS, dtype="float32", device="cpu")
    logits = prompted.black_box.label_logits(np.ones((2, 6)), prompted.register(share.test))
    assert logits.shape == (2, len(share.test), spec.n_classes)
    assert np.isfinite(logits).all()
    counts = count_correct(spec, logits[0], share.test.labels)
    predicted, labels = logits[0].argmax(axis=1), share.test.labels
    if task == "mrpc":  # true positives, false positives, false negatives of Yes
        right = [sum((predicted == p) & (labels == t)) for p, t in ((1, 1), (1, 0), (0, 1))]
        assert counts.tolist() == right
    else:
        assert counts.tolist() == [sum(predicted == labels), len(labels)]


@pytest.mark.parametrize(
    ("task", "behind_placeholders"),
    [
        ("sst2", " . a text . It was <mask> ."),
        ("yelpp", " . a text . It was <mask> ."),
        ("agnews", " . <mask> News: a text"),
        ("dbpedia", " [ Category: <mask> ] a text"),  # the one without " . "
        ("rte", " . a text ? <mask> , a text"),
        ("mrpc", " . a text ? <mask> , a text"),
        ("snli", " . a text ? <mask> , a text"),
    ],
)
def test_what_stands_behind_the_placeholders(task, behind_placeholders):
    tokenizer, spec = roberta_like(WORDS), load_task(task)
    encoded = Encoder(tokenizer, spec, "masked", "add", 3, 64).encode(dict.fromkeys(spec.text_columns, "a text"))
    usual = tokenizer(behind_placeholders)["input_ids"]
    assert [encoded.ids[0], *encoded.ids[4:]] == usual
    assert encoded.ids[encoded.answer] == tokenizer.mask_token_id


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
@pytest.mark.parametrize("task", TABLE)
def test_long_texts_are_cut_and_nothing_else(models, task, family):
    """With pairs the longer text alone loses its end, as long as it is the longer."""
    model, spec = load_outline(models[family]), load_task(task)
    long, short = " ".join(SENTENCES * 2), "a warm , honest story"
    first, *others = spec.text_columns
    mode = "add" if model.kind == "masked" else "suffix"
    encoder = Encoder(model.tokenizer, spec, model.kind, mode, 3, 60)
    encoded = encoder.encode({first: long, **dict.fromkeys(others, short)})
    assert len(encoded.ids) + (3 if mode == "suffix" else 0) in (59, 60)
    shown = model.tokenizer.decode(encoded.ids[4:] if mode == "add" else encoded.ids)
    template = spec.wording(model.kind).template.replace("{mask}", model.tokenizer.mask_token or "")
    parts = template.replace(f"{{{first}}}", "\0")
    for column in others:
        parts = parts.replace(f"{{{column}}}", short)
    before, behind = ("".join(part.split()) for part in parts.split("\0"))
    shown = "".join(shown.replace("</s>", "").split())
    start = "".join((spec.placeholder_tail if mode == "add" else "").split()) + before
    assert shown.startswith(start)
    assert shown.endswith(behind)
    kept = shown[len(start) : len(shown) - len(behind)]
    assert len(kept) > 20
    assert "".join(long.split()).startswith(kept)
