from __future__ import annotations

import json
from pathlib import Path

import pytest

import flaretune
from flaretune.errors import UserError
from flaretune.tasks import spec as spec_module
from flaretune.tasks.spec import Source, Wording, available_tasks, load_task, local_tasks, parse_task, task_table
from tests.tasks_for_tests import pair_task, review_task

GOOD = """
description = "Reviews"
text_columns = ["sentence"]
label_column = "label"
metric = "accuracy"

[masked]
template = "{sentence} . It was {mask} ."
label_words = ["bad", "great"]

[causal]
template = "{sentence} It was"
label_words = [" bad", " great"]

[source]
hub = "owner/reviews"
train = "train"
test = "validation"
"""

# Without a wording for causal models.
MASKED_ALONE = GOOD[: GOOD.index("[causal]")] + GOOD[GOOD.index("[source]") :]


def write(folder: Path, text: str, name: str = "mine.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_available_tasks_are_the_shipped_files_and_all_load():
    assert {"movie_reviews", "sst2"} <= set(available_tasks())
    for name in available_tasks():
        assert load_task(name).name == name


def test_sst2_is_as_published():
    spec = load_task("sst2")
    assert spec.masked == Wording("{sentence} . It was {mask} .", ("bad", "great"))
    assert spec.causal == Wording("{sentence} It was", (" bad", " great"))
    assert spec.source == Source("nyu-mll/glue", "sst2", None, "train", "validation")
    assert (spec.text_columns, spec.label_column, spec.label_values) == (("sentence",), "label", (0, 1))
    assert (spec.metric, spec.positive_class, spec.placeholder_tail) == ("accuracy", None, " . ")
    assert spec.n_classes == 2


def test_a_task_may_be_judged_by_macro_f1(tmp_path):
    spec = load_task(write(tmp_path, GOOD.replace('metric = "accuracy"', 'metric = "macro_f1"')))
    assert (spec.metric, spec.positive_class) == ("macro_f1", None)


def test_the_demo_task_lies_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path))
    spec = load_task("movie_reviews")
    assert spec.source == Source(None, None, str(tmp_path / "data" / "movie_reviews"), "train", "test")
    assert (spec.causal.template, spec.causal.label_words) == ("{sentence} It was", (" terrible", " great"))


def test_a_file_of_the_users(tmp_path):
    spec = load_task(write(tmp_path, GOOD))
    assert spec.name == "mine"
    assert spec.label_values == (0, 1)
    assert spec.drop_labels == ()
    assert spec.wording("masked").label_words == ("bad", "great")
    assert spec.wording("causal").template == "{sentence} It was"


def test_a_relative_path_is_relative_to_the_task_file(tmp_path):
    text = GOOD.replace('hub = "owner/reviews"', 'path = "data/reviews"')
    assert load_task(write(tmp_path, text)).source.path == str(tmp_path / "data" / "reviews")


def test_no_wording_for_the_kind(tmp_path):
    spec = load_task(write(tmp_path, MASKED_ALONE))
    with pytest.raises(UserError, match=r"'mine' has no wording for a causal model; add a table \[causal\]"):
        spec.wording("causal")


@pytest.mark.parametrize("spec", [review_task(), pair_task(), load_task("movie_reviews")], ids=lambda s: s.name)
def test_a_task_survives_its_table_as_json(spec):
    table = json.loads(json.dumps(task_table(spec)))
    assert parse_task(table, name=spec.name, place="the artifact") == spec


def test_unknown_task_lists_the_available_and_the_nearest():
    with pytest.raises(UserError, match=r"unknown task 'ssst2'; did you mean 'sst2'\? .*movie_reviews, .*sst2"):
        load_task("ssst2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label_column =", "lable_column =", r"unknown key 'lable_column'; did you mean 'label_column'\?"),
        ('template = "{sentence} It', 'tempalte = "{sentence} It', r"\[causal\].*'tempalte'.*'template'"),
        ("train = ", "zzz = ", r"\[source\].*unknown key 'zzz'; its keys are hub, config, path, train, test"),
        ('metric = "accuracy"', "", "key 'metric' is missing"),
        ('train = "train"', "", r"\[source\].*key 'train' is missing"),
        ('metric = "accuracy"', "metric = 3", "key 'metric' must be a string, not 3"),
        ('metric = "accuracy"', 'metric = "acuracy"', "metric 'acuracy' is unknown.*accuracy, f1, macro_f1"),
        ('metric = "accuracy"', 'metric = "f1"', "'f1' needs positive_class"),
        ('metric = "accuracy"', 'metric = "f1"\npositive_class = 2', "positive_class 2 .* 0 to 1"),
        ('metric = "accuracy"', 'metric = "accuracy"\npositive_class = 1', "positive_class has no meaning"),
        ('metric = "accuracy"', 'metric = "macro_f1"\npositive_class = 1', "no meaning for metric 'macro_f1'"),
        ('["sentence"]', '"sentence"', "'text_columns' must be a list of strings, not 'sentence'"),
        ('["sentence"]', "[]", "text_columns is empty"),
        ('["sentence"]', '["sentence", "mask"]', "'mask' cannot be a field"),
        ('["sentence"]', '["sentence", "label"]', "label_column 'label'"),
        ('metric = "accuracy"', 'metric = "accuracy"\nlabel_values = [0, 1, 2]', "2 words for 3 classes"),
        ('metric = "accuracy"', 'metric = "accuracy"\nlabel_values = [0, "0"]', "label_values has '0' 2 times"),
        ('metric = "accuracy"', 'metric = "accuracy"\nlabel_values = [0.5, 1]', "not \\[0.5, 1\\]"),
        ('metric = "accuracy"', 'metric = "accuracy"\ndrop_labels = ["1"]', "'1' is in both"),
        ('[" bad", " great"]', '[" bad", " great", " fine"]', "causal label_words has 3 words for 2 classes"),
        ('[" bad", " great"]', '[" bad", " "]', "empty word ' '"),
        ('[" bad", " great"]', '[" bad", " bad"]', "' bad' 2 times"),
        ("was {mask} .", "was .", r"masked template .* lacks \{mask\}"),
        ('It was"', 'It was {mask}"', r"causal template .* has \{mask\}"),
        ('It was"', 'It was "', "ends in a blank"),
        ('"{sentence} It was"', '"{text} It was"', r"field \{text\}, which is not in text_columns \(sentence\)"),
        ('"{sentence} It was"', '"It was"', "uses no text column"),
        ('"{sentence} It was"', '"{sentence} {sentence} It was"', "'sentence' 2 times"),
        ('"{sentence} It was"', '"{sentence It was"', "cannot be read"),
        ('hub = "owner/reviews"', "", "neither hub nor path"),
        ('hub = "owner/reviews"', 'hub = "owner/reviews"\npath = "x"', "both hub and path"),
        ('hub = "owner/reviews"', 'path = "x"\nconfig = "c"', "config 'c' without hub"),
        ("[causal]", "[causal", "not valid TOML"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, old, new, message):
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        load_task(file)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "values"),
    [("[false, true]", ("false", "true")), ("[0.0, 1.0]", (0, 1)), ('["0.0", "1.0"]', ("0.0", "1.0"))],
)
def test_labels_are_read_as_data_has_them(tmp_path, written, values):
    file = write(tmp_path, GOOD.replace('metric = "accuracy"', f'metric = "accuracy"\nlabel_values = {written}'))
    assert load_task(file).label_values == values


def test_classes_that_nothing_says_the_number_of(tmp_path):
    """Label words do, of either kind; "auto" does not."""
    both = GOOD.replace('[" bad", " great"]', '"auto"')
    assert load_task(write(tmp_path, both)).n_classes == 2
    with pytest.raises(UserError, match="line 1: key 'label_values' is missing"):
        load_task(write(tmp_path, MASKED_ALONE.replace('["bad", "great"]', '"auto"')))


def test_a_file_without_any_wording(tmp_path):
    text = GOOD[: GOOD.index("[masked]")] + GOOD[GOOD.index("[source]") :]
    with pytest.raises(UserError, match=r"neither \[masked\] nor \[causal\]"):
        load_task(write(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.toml cannot be read"):
        load_task(str(tmp_path / "nowhere.toml"))


@pytest.fixture
def local_folder(monkeypatch, tmp_path) -> Path:
    """Stands for src/tasks_local."""
    folder = tmp_path / "tasks_local"
    folder.mkdir()
    monkeypatch.setattr(spec_module, "LOCAL_FOLDER", folder)
    return folder


def test_tasks_local_lies_beside_the_package_as_in_a_job():
    assert Path(flaretune.__file__).parents[1] / "tasks_local" == spec_module.LOCAL_FOLDER


def test_a_local_task_is_found_by_its_name(local_folder):
    write(local_folder, GOOD, "tickets.toml")
    assert local_tasks() == ["tickets"]
    assert "tickets" not in available_tasks()
    assert load_task("tickets").name == "tickets"
    with pytest.raises(
        UserError, match=r"unknown task 'tikets'; did you mean 'tickets'\? there are agnews, .*, tickets"
    ):
        load_task("tikets")


def test_a_local_task_does_not_hide_a_shipped_one(local_folder):
    write(local_folder, GOOD, "sst2.toml")
    with pytest.raises(
        UserError, match=r"task 'sst2' is shipped, and .*sst2\.toml has the same name; give yours another"
    ):
        load_task("sst2")


def test_the_first_mistake_has_its_line_and_the_others_are_counted(tmp_path):
    file = write(tmp_path, GOOD.replace('metric = "accuracy"', 'metric = "f2"').replace("was {mask} .", "was ."))
    with pytest.raises(UserError) as caught:
        load_task(file)
    assert str(caught.value) == (
        f"task file {file}, line 5: metric 'f2' is unknown; it must be one of accuracy, f1, macro_f1 (1 more: "
        f"`python -m flaretune tasks check {file}` lists them)"
    )


def test_several_words_of_a_class_survive_as_json():
    spec = review_task(causal={"template": "{sentence} It was", "label_words": [[" bad", " awful"], " great"]})
    assert spec.causal.label_words == ((" bad", " awful"), " great")
    table = json.loads(json.dumps(task_table(spec)))
    assert table["causal"]["label_words"] == [[" bad", " awful"], " great"]
    assert parse_task(table, name=spec.name, place="the artifact") == spec


def test_of_single_words_an_artifact_says_what_it_always_said():
    assert task_table(review_task())["causal"] == {"template": "{sentence} It was", "label_words": [" bad", " great"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ('[[" bad"], []]', "has a class without a word"),
        ('[[" bad", " "], " great"]', "empty word ' '"),
        ('[[" bad", " great"], " great"]', "' great' 2 times"),
        ('[[" bad", 3], " great"]', "'label_words' must be a list of strings, one for each class, or lists of strings"),
        ('[[" bad"], [" great"], [" fine"]]', "causal label_words has 3 words for 2 classes"),
    ],
)
def test_mistakes_in_several_words(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        load_task(write(tmp_path, GOOD.replace('[" bad", " great"]', words)))
