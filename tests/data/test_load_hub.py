"""A task's examples from a hub, which a function in place of `datasets.load_dataset` stands for."""

from __future__ import annotations

import datasets
import pytest

from flaretune.data.load import load_split
from flaretune.errors import UserError
from tests.tasks_for_tests import review_task


class FakeHub:
    """Stands in for ``datasets.load_dataset``: notes what it was asked for and answers with a data set."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = []

    def __call__(self, path, name=None, *, split):
        self.calls.append((path, name, split))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hub(monkeypatch):
    def install(answer) -> FakeHub:
        fake = FakeHub(answer)
        monkeypatch.setattr(datasets, "load_dataset", fake)
        return fake

    return install


def labelled(**columns) -> datasets.Dataset:
    features = datasets.Features(
        {column: datasets.Value("string") for column in columns if column != "label"}
        | {"label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    return datasets.Dataset.from_dict(columns, features=features)


def test_hub_data_with_class_labels(hub):
    fake = hub(labelled(sentence=["a", "b", "c"], label=[1, 0, 1]))
    examples = load_split(review_task(), "test")
    assert examples.texts == ({"sentence": "a"}, {"sentence": "b"}, {"sentence": "c"})
    assert examples.labels.tolist() == [1, 0, 1]
    assert fake.calls == [("owner/reviews", None, "validation")]


@pytest.mark.parametrize(
    ("dataset", "called"),
    [
        (None, ("owner/glue", "sst2")),
        ("owner/glue", ("owner/glue", "sst2")),
        ("other/sst2", ("other/sst2", None)),
        ("other/glue:cola", ("other/glue", "cola")),
    ],
)
def test_which_hub_data_and_configuration_are_asked_for(hub, dataset, called):
    spec = review_task(source={"hub": "owner/glue", "config": "sst2", "train": "train", "test": "validation"})
    fake = hub(labelled(sentence=["a"], label=[1]))
    load_split(spec, "train", dataset)
    assert fake.calls == [(*called, "train")]


def test_a_column_that_the_hubs_data_lacks(hub):
    hub(labelled(text=["a"], label=[1]))
    with pytest.raises(UserError, match=r"'train' of owner/reviews has no column 'sentence'.*'text', 'label'"):
        load_split(review_task(), "train")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ConnectionError("Couldn't reach it\non the Hub"), "hub could not be reached .*--dataset FOLDER"),
        (datasets.exceptions.DatasetNotFoundError("gated"), "no data set 'owner/reviews'.*--dataset FOLDER"),
        (ValueError("Unknown split"), r"split 'train' of data set owner/reviews .*\(Unknown split\)"),
        (OSError("disk full"), r"cannot be read \(disk full\)"),
    ],
)
def test_a_hub_that_does_not_answer(hub, failure, message):
    hub(failure)
    with pytest.raises(UserError, match=message) as caught:
        load_split(review_task(), "train")
    assert "\n" not in str(caught.value)
