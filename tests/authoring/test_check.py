from __future__ import annotations

import json
import re

import numpy as np
import pytest

from flaretune.authoring.check import check_task
from flaretune.cli.main import main
from flaretune.data.load import load_split
from flaretune.data.shares import own_data
from flaretune.errors import UserError
from flaretune.methods.classifier import score
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.models.load import load_pretrained
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import open_prompted_model
from flaretune.softmax import softmax
from flaretune.tasks.spec import load_task
from tests.authoring.tickets import BODIES, SUBJECTS, WORDS, write_task, write_tickets
from tests.models_for_tests import save_tiny_model

FAMILIES = ("roberta", "gpt2", "llama")
SMALL = FedBPTConfig(n_prompt_tokens=5, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {family: str(save_tiny_model(family, folder / family, words=WORDS)) for family in FAMILIES}


def run(capsys, *argv) -> tuple[int, str, str]:
    status = main(["tasks", "check", *map(str, argv)])
    return (status, *capsys.readouterr())


CAUSAL = '[causal]\ntemplate = "{subject} . {body} It is"\n'
FIVE = (
    ('metric = "accuracy"', 'metric = "acuracy"'),
    ("{subject} . {body} . It is {mask} .", "{subject} . {text} . It is ."),
    (CAUSAL + 'label_words = [" fine"', CAUSAL + 'label_words = [" indifferent"'),
    ('train = "train"', 'trian = "train"'),
)  # fmt: skip
# line of tickets.toml: what is said of it
FIVE_FOUND = {
    5: "metric 'acuracy' is unknown; it must be one of accuracy, f1",
    8: "the masked template '{subject} . {text} . It is .' lacks {mask}, the place of the answer",
    13: "label word ' indifferent' is not one token of",
    17: "[source]: unknown key 'trian'; did you mean 'train'?",
}


def test_five_mistakes_are_told_in_one_go_with_their_lines(capsys, tmp_path, models):
    """The template has two of them; nothing hides what comes after it, not even from the model's tokenizer."""
    file = write_task(tmp_path, *FIVE)
    status, out, err = run(capsys, file, "--model_name", models["gpt2"])
    assert status == 1
    *mistakes, total = err.splitlines()
    assert total == "error: 5 mistakes"
    lines = [int(re.match(rf"error: {re.escape(str(file))}:(\d+): ", line)[1]) for line in mistakes]
    assert lines == [5, 8, 8, 13, 17]
    for line, said in FIVE_FOUND.items():
        assert f"{file}:{line}: {said}" in err
    assert "{text}, which is not in text_columns (subject, body)" in mistakes[2]
    assert "no mistakes" not in out


def test_mistakes_as_json(capsys, tmp_path):
    file = write_task(tmp_path, *FIVE)
    status, out, err = run(capsys, file, "--json")
    report = json.loads(out)
    assert (status, err, report["ok"]) == (1, "", False)
    assert [(m["file"], m["line"]) for m in report["mistakes"]] == [(str(file), line) for line in (5, 8, 8, 17)]


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_a_good_file_with_a_model_and_data(capsys, tmp_path, models, family):
    file = write_task(tmp_path)
    status, out, err = run(capsys, file, "--model_name", models[family], "--n_prompt_tokens", 5)
    assert (status, err) == (0, "")
    tokenizer = load_pretrained(models[family], "float32", "cpu").tokenizer
    for label, word in (("low", " fine"), ("high", " urgent")):
        token_id = tokenizer(f"a{word}", add_special_tokens=False)["input_ids"][-1]
        assert re.search(rf"label {label} +'{word}' +token Ġ{word.strip()} \({token_id}\)", out)
    low, high = (line for line in out.splitlines() if line.startswith("example "))
    begin, text = SUBJECTS["low"], f"{SUBJECTS['low']} . {BODIES['low']} 0"
    if family == "roberta":
        assert low == f"example 1: <s> {{prompt: 5}} . {text} . It is <<fine>> .</s>"
    else:
        assert low == f"example 1: {text} {{prompt: 5}} It is <<fine>>"
    assert begin in low
    assert "<<urgent>>" in high
    assert f"train data {tmp_path / 'tickets' / 'train.csv'}: 40 rows; low: 20, high: 20" in out
    assert "--k_shot can be 10 at the most" in out
    assert out.endswith("no mistakes\n")


@pytest.mark.parametrize("n_rows", [8, 9])
def test_the_largest_k_shot_leaves_rows_of_one_file_to_test_on(capsys, tmp_path, n_rows):
    """As a client that has the file finds out by drawing from it."""
    file, data = write_task(tmp_path), write_tickets(tmp_path, n_train=n_rows) / "train.csv"
    _, out, _ = run(capsys, file, "--data", data)
    most = int(re.search(r"--k_shot can be (\d+) at the most", out)[1])
    assert own_data(load_task(file), str(data), most, seed=1, with_test=True).test is not None
    with pytest.raises(UserError):
        own_data(load_task(file), str(data), most + 1, seed=1, with_test=True)


@pytest.mark.parametrize("n_rows", [3, 4])
def test_too_few_rows_for_any_job(capsys, tmp_path, n_rows):
    file, data = write_task(tmp_path), write_tickets(tmp_path, n_train=n_rows) / "train.csv"
    assert "too few rows for a job" in run(capsys, file, "--data", data)[1]


def test_lengths_are_those_of_the_tokenizer(tmp_path, models):
    file = write_task(tmp_path)
    lengths = check_task(str(file), models["roberta"], config=SMALL).data[0].lengths
    tokenizer = load_pretrained(models["roberta"], "float32", "cpu").tokenizer
    wanted = [
        5 + len(tokenizer(f" . {t['subject']} . {t['body']} . It is <mask> .")["input_ids"])
        for t in load_split(load_task(str(file)), "train").texts
    ]
    assert lengths.longest == max(wanted)
    for share, length in lengths.percentiles.items():
        assert np.mean(np.array(wanted) <= length) >= share / 100
        assert np.mean(np.array(wanted) < length) < share / 100
    assert lengths.cut == 0
    assert lengths.limit == 128
    tight = check_task(str(file), models["roberta"], config=FedBPTConfig(n_prompt_tokens=100)).data[0].lengths
    assert tight.cut == sum(n + 95 > 128 for n in wanted)


def test_zero_shot_is_that_of_model_and_template_alone(capsys, tmp_path, models):
    file = write_task(tmp_path)
    report = check_task(str(file), models["gpt2"], zero_shot=True, config=SMALL)
    spec = load_task(str(file))
    test = load_split(spec, "test")
    settings = PromptSettings(3, 7, "add", "suffix", "auto", 1.0, 1.0, 3, 1)
    prompted = open_prompted_model(spec, models["gpt2"], settings, dtype="float32", device="cpu")
    expected = score(spec, softmax(prompted.zero_shot_logits(test)), test.labels)
    assert report.zero_shot["value"] == expected.value
    assert report.zero_shot["by_class"] == {
        "low": (expected.correct_by_class[0], 6),
        "high": (expected.correct_by_class[1], 6),
    }
    flags = ("--model_name", models["gpt2"], "--zero_shot", "--dtype", "float32", "--device", "cpu")
    status, out, _ = run(capsys, file, *flags)
    assert status == 0
    assert f"zero-shot accuracy {expected.value:.4f} on 12 texts" in out
    with pytest.raises(UserError, match="give --model_name and --data"):
        check_task(str(file), zero_shot=True)


def test_what_is_wrong_with_the_data(tmp_path):
    file = write_task(tmp_path, ('label_values = ["low", "high"]', 'label_values = ["low", "high", "none"]'))
    data = tmp_path / "other.csv"
    data.write_text('subject,text,priority\na,b,low\n"",c,low\nd,e,medium\nf,g,medium\n')
    mistakes = [str(mistake) for mistake in check_task(str(file), data=str(data)).mistakes]
    assert mistakes == [
        f"{file}:2: {data} has no column 'body'; its columns are subject, text, priority",
        f"{file}:4: {data}: 2 rows (3, 4) have the label 'medium', which is in neither list of labels; write it into "
        "label_values or drop_labels",
        f"{file}:4: no row of {data} has the label 'high'",
        f"{file}:4: no row of {data} has the label 'none'",
        f"{file}:9: masked label_words has 2 words for 3 classes (label_values ['low', 'high', 'none']); give one word "
        "for each class, or a list of words",
        f"{file}:13: causal label_words has 2 words for 3 classes (label_values ['low', 'high', 'none']); give one "
        "word for each class, or a list of words",
        f"{data}: row 2 has no text in column 'subject'; every row needs one",
    ]


@pytest.mark.parametrize(
    ("changes", "family", "line", "said"),
    [
        ((("It is {mask}", "{mask}"),), "roberta", None, ""),
        (((". {body} It is", ". {body}"),), "gpt2", 12, "would have nothing behind it"),
        ((("[causal]", "[masked2]"),), "gpt2", 11, "unknown key 'masked2'"),
        (((' "high"]', ' "high", "new"]'), ("train = ", "tarin = ")), "gpt2", 17, "unknown key 'tarin'"),
        ((('" urgent"]\n\n[causal]', '" Fine"]\n\n[causal]'),), "roberta", 9, "' Fine' is not one token"),
        ((('" urgent"]\n\n[source]', '" fine"]\n\n[source]'),), "gpt2", 13, "' fine' 2 times"),
        ((('"{subject} . {body} It is"', '"{subject"'),), "gpt2", 12, "cannot be read"),
        ((("path = ", "path == "),), "gpt2", 16, "not valid TOML"),
        (
            (("{subject} . {body} It is", "<s>{subject} . {body} It is"),),
            "llama",
            12,
            "spells '<s>', which every text gets anyway",
        ),
        ((("{mask} .", "{mask} .</s>"),), "roberta", 8, "spells '</s>', which every text gets anyway"),
        ((("{mask} .", "{mask} .</s>"),), "llama", None, ""),  # of another kind
    ],
)
def test_single_mistakes_have_their_line(tmp_path, models, changes, family, line, said):
    report = check_task(str(write_task(tmp_path, *changes)), models[family], config=SMALL)
    if line is None:
        assert report.mistakes == ()
    assert all("\n" not in mistake.sentence for mistake in report.mistakes)
    assert line is None or any(m.line == line and said in m.sentence for m in report.mistakes), report.mistakes


def test_a_model_of_the_kind_that_the_file_lacks(tmp_path, models):
    start, end = '[masked]\ntemplate = "{subject} . {body} . It is {mask} ."\nlabel_words = [" fine", " urgent"]\n', ""
    report = check_task(str(write_task(tmp_path, (start, end))), models["roberta"], config=SMALL)
    assert [m.sentence for m in report.mistakes] == [
        f"there is no table [masked], and {models['roberta']} is a masked model; write one"
    ]


def test_what_is_not_there_is_one_sentence(capsys):
    for name, said in (
        ("absent.toml", "task file absent.toml cannot be read"),
        ("sst3", "unknown task 'sst3'; did you mean 'sst2'"),
    ):
        status, out, err = run(capsys, name)
        assert (status, out) == (1, "")
        assert said in err
        assert err.count("\n") == 1


def test_a_model_and_data_that_are_not_there_hide_nothing(capsys, tmp_path):
    file = write_task(tmp_path, ('metric = "accuracy"', 'metric = "f2"'))
    (tmp_path / "damaged.csv").write_bytes(b"subject,body,priority\n\xff,b,low\n")
    for data, said in (("absent.csv", "--data absent.csv: absent.csv does not exist"), ("damaged.csv", "is not UTF-8")):
        data = str(tmp_path / data) if data == "damaged.csv" else data
        status, _, err = run(capsys, file, "--data", data, "--model_name", "./nowhere")
        assert status == 1
        metric, second, third, total = err.splitlines()
        assert metric.startswith(f"error: {file}:5: metric 'f2' is unknown")
        assert said in second
        assert third.startswith("error: --model_name ./nowhere: there is no such folder")
        assert total == "error: 3 mistakes"


def test_a_shipped_task_is_right_and_looks_for_no_data(capsys):
    status, out, err = run(capsys, "snli")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "no mistakes"


# ---- what is no classification ----


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ((('["low", "high"]', "[0.5, 1.5]"),), 4),
        ((('metric = "accuracy"', 'metric = "rouge"'),), 5),
        ((('label_words = [" fine", " urgent"]\n\n[causal]', "[causal]"),), 7),
    ],
)
def test_another_kind_of_task_is_named_as_such(tmp_path, changes, line):
    (mistake,) = [
        m for m in check_task(str(write_task(tmp_path, *changes))).mistakes if "out of its scope" in m.sentence
    ]
    assert mistake.line == line
    assert "classification only" in mistake.sentence
    assert "\n" not in mistake.sentence
    with pytest.raises(UserError, match=r"tickets\.toml, line \d+: .*classification only"):
        load_task(str(tmp_path / "tickets.toml"))


def test_scores_are_no_classes(tmp_path):
    file = write_task(tmp_path)
    scores = tmp_path / "scores.csv"
    scores.write_text("subject,body,priority\na,b,3.75\nc,d,low\ne,f,high\n")
    (mistake,) = check_task(str(file), data=str(scores)).mistakes
    assert (mistake.line, mistake.sentence.count("3.75")) == (3, 1)
    assert "classification only" in mistake.sentence
    with pytest.raises(UserError, match=r"the label '3\.75' .*classification only"):
        load_split(load_task(str(file)), "train", str(scores))


def test_a_file_of_a_generation_task(tmp_path):
    file = tmp_path / "summaries.toml"
    file.write_text(
        'text_columns = ["text"]\ntarget = "summary"\n[source]\nhub = "a/b"\ntrain = "train"\ntest = "test"\n'
    )
    with pytest.raises(UserError, match=r"neither \[masked\] nor \[causal\].*classification only") as caught:
        load_task(str(file))
    assert "\n" not in str(caught.value)


def test_zero_shot_takes_the_last_split_that_has_rows(tmp_path, models):
    file = write_task(tmp_path)
    test = tmp_path / "tickets" / "test.csv"
    test.write_text("subject,body,priority\n", encoding="utf-8")
    report = check_task(str(file), models["gpt2"], zero_shot=True, config=SMALL)
    assert report.zero_shot["n"] == 40
