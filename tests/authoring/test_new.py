from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from flaretune.authoring.check import check_task
from flaretune.cli.main import main
from flaretune.data.load import load_split
from flaretune.tasks.spec import Wording, load_task
from tests.authoring.tickets import write_tickets

FLAGS = ("--text_columns", "subject,body", "--label_column", "priority", "--label_values", "low,high")
FLAGS = (*FLAGS, "--label_words", "fine,urgent", "--no_questions")


def run(capsys, *argv) -> tuple[int, str, str]:
    status = main(["tasks", "new", *map(str, argv)])
    return (status, *capsys.readouterr())


def test_flags_alone_write_a_file_that_is_right(capsys, tmp_path):
    file, data = tmp_path / "tickets.toml", write_tickets(tmp_path / "tickets")
    status, out, err = run(capsys, file, "--data", data, *FLAGS)
    assert (status, err) == (0, "")
    assert out == f"{file}\nnext: python -m flaretune tasks check {file} --model_name NAME\n"
    assert check_task(str(file)).mistakes == ()
    spec = load_task(str(file))
    assert (spec.text_columns, spec.label_column, spec.label_values) == (
        ("subject", "body"),
        "priority",
        ("low", "high"),
    )
    assert spec.masked == Wording("{subject} {body} . It was {mask} .", (" fine", " urgent"))
    assert spec.causal == Wording("{subject} {body} . It was", (" fine", " urgent"))
    assert 'path = "tickets"' in file.read_text()  # so that file and folder can be moved together
    assert len(load_split(spec, "train")) == 40
    assert len(load_split(spec, "test")) == 12


@pytest.mark.parametrize(
    ("flags", "masked", "causal"),
    [
        (
            ["--masked_template", "{mask} News: {subject}"],
            Wording("{mask} News: {subject}", ("fine", "urgent")),
            Wording("{subject} {body} Answer:", (" fine", " urgent")),
        ),
        (["--masked_template", "none"], None, Wording("{subject} {body} Answer:", (" fine", " urgent"))),
        (
            ["--causal_template", "none", "--label_words", "fine/okay, urgent"],
            Wording("{subject} {body} . It was {mask} .", ((" fine", " okay"), " urgent")),
            None,
        ),
    ],
)
def test_templates_and_words(capsys, tmp_path, flags, masked, causal):
    file = tmp_path / "tickets.toml"
    assert run(capsys, file, "--data", write_tickets(tmp_path / "tickets"), *FLAGS, *flags)[0] == 0
    spec = load_task(str(file))
    assert (spec.masked, spec.causal) == (masked, causal)


def test_a_single_file_and_numbers_as_labels(capsys, tmp_path):
    data = tmp_path / "data" / "all.jsonl"
    data.parent.mkdir()
    data.write_text("".join(f'{{"text": "a \\"text\\" {i}", "label": {[10, 9, -1][i % 3]}}}\n' for i in range(9)))
    file = tmp_path / "own.toml"
    assert run(capsys, file, "--data", data, "--label_words", "no,good,bad", "--no_questions")[0] == 0
    spec = load_task(str(file))
    assert (spec.text_columns, spec.label_values) == (("text",), (-1, 9, 10))
    assert spec.source.path == str(data)
    assert load_split(spec, "train").texts[0] == {"text": 'a "text" 0'}


def test_labels_with_line_breaks(capsys, tmp_path):
    data, file = tmp_path / "all.csv", tmp_path / "own.toml"
    data.write_bytes(b'text,label\na,"x\ny"\nb,"x\r\ny"\nc,z\n')
    assert run(capsys, file, "--data", data, "--no_questions")[0] == 0
    assert load_task(str(file)).label_values == ("x\ny", "x\r\ny", "z")
    assert load_split(load_task(str(file)), "train").labels.tolist() == [0, 1, 2]
    file.unlink()
    assert run(capsys, file, "--data", data, "--no_questions", "--label_values", 'z,"x\ny"')[0] == 0
    assert load_task(str(file)).label_values == ("z", "x\ny")


def test_labels_with_commas_and_rows_without_a_label(capsys, tmp_path):
    """Neither null nor NaN is a class."""
    data = tmp_path / "all.jsonl"
    labels = ['"arts, music"', '"the \\"big\\" news"', '"sport"', "null", "NaN"]
    data.write_text("".join(f'{{"text": "text {i}", "label": {label}}}\n' for i, label in enumerate(labels * 2)))
    file = tmp_path / "own.toml"
    flags = ["--label_words", "song,paper,ball", "--no_questions"]
    assert run(capsys, file, "--data", data, *flags)[0] == 0
    assert load_task(str(file)).label_values == ("arts, music", "sport", 'the "big" news')
    file.unlink()
    assert (
        run(capsys, file, "--data", data, *flags, "--label_values", 'sport,"arts, music", "the ""big"" news"')[0] == 0
    )
    assert load_task(str(file)).label_values == ("sport", "arts, music", 'the "big" news')


@pytest.mark.parametrize("n_classes", [77, 150])
def test_many_classes_are_classes(capsys, tmp_path, n_classes):
    """The first number is that of banking77."""
    data = write_intents(tmp_path / "intents.csv", n_classes, 2)
    assert run(capsys, tmp_path / "own.toml", "--data", data, "--no_questions")[0] == 0
    spec = load_task(str(tmp_path / "own.toml"))
    assert spec.label_values == tuple(sorted(f"intent_{number}" for number in range(n_classes)))
    assert not spec.masked.has_label_words


@pytest.mark.parametrize(
    ("n_classes", "rows", "said"),
    [(151, 2, "tasks of up to 150 classes are tested: write broader classes"), (51, 1, "classification only")],
)
def test_more_classes_than_are_tested_and_a_column_that_is_no_label(capsys, tmp_path, n_classes, rows, said):
    data = write_intents(tmp_path / "intents.csv", n_classes, rows)
    status, out, err = run(capsys, tmp_path / "own.toml", "--data", data, "--no_questions")
    assert (status, out) == (1, "")
    assert f"column 'label' has {n_classes} different values such as intent_0, " in err
    assert said in err


def write_intents(file: Path, n_classes: int, rows: int) -> Path:
    """A question for each row of each class."""
    lines = [f"question {row} about {label},intent_{label}" for row in range(rows) for label in range(n_classes)]
    file.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(("written", "other"), [("True", "False"), ("true", "false")])
def test_truth_values_as_labels(capsys, tmp_path, written, other):
    data, file = tmp_path / "spam.csv", tmp_path / "own.toml"
    data.write_text(f"text,label\nbuy now,{written}\nsee you,{other}\n")
    assert run(capsys, file, "--data", data, "--no_questions", "--label_values", "False,True")[0] == 0
    assert load_split(load_task(str(file)), "train").labels.tolist() == [1, 0]


def test_what_is_missing_is_told_at_once(capsys, tmp_path):
    data = tmp_path / "x.csv"
    data.write_text("a,b,c\n1,2,x\n3,4,y\n")
    status, out, err = run(capsys, tmp_path / "t.toml", "--data", data, "--no_questions")
    assert (status, out) == (1, "")
    assert err == "error: give --label_column, --text_columns, or run this on a terminal to be prompted\n"
    assert not (tmp_path / "t.toml").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--text_columns", "subjekt"],
            "--text_columns subjekt: there is no column 'subjekt'; there are subject, body",
        ),
        (["--text_columns", "priority"], "label_column 'priority' must be a column that is not a text column"),
        (["--label_values", "low,medium"], "no row has the label 'medium'; there are high, low"),
        (["--label_words", "fine"], "1 words for 2 classes"),
        (["--label_words", "fine,fine"], "'fine' 2 times"),
        (["--masked_template", "{subject} {mood} {mask}"], "the field {mood}, which is not in text_columns"),
        (["--masked_template", "none", "--causal_template", "none"], "a task needs at least one template"),
        (["--text_columns", "subject", "--label_column", "body"], "different values such as .* classification only"),
    ],
)
def test_wrong_answers_are_one_sentence_and_nothing_is_written(capsys, tmp_path, flags, said):
    data = write_tickets(tmp_path / "tickets", n_train=120)
    status, out, err = run(capsys, tmp_path / "t.toml", "--data", data, *FLAGS, *flags)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert re.search(said if ".*" in said else re.escape(said), err)
    assert not (tmp_path / "t.toml").exists()


ABOUT = (
    'label_words = "auto": the verbalizer method (jobs/verbalizer_job.py) learns the words; FedBPT and LP-FL need '
    "label words and refuse the task\n"
)


@pytest.mark.parametrize("flags", [["--label_words", "auto"], ["--label_words", ""], []], ids=["auto", "", "none"])
def test_who_has_no_label_words_gets_a_task_for_the_verbalizer_and_one_sentence_about_it(capsys, tmp_path, flags):
    """Of labels that are no words, none are suggested."""
    data = tmp_path / "all.csv"
    data.write_text("text,label\na,0\nb,1\nc,0\nd,1\n")
    file = tmp_path / "own.toml"
    status, out, err = run(capsys, file, "--data", data, *flags, "--no_questions")
    assert (status, err) == (0, "")
    assert out == f"{ABOUT}{file}\nnext: python -m flaretune tasks check {file} --model_name NAME\n"
    spec = load_task(str(file))
    assert not spec.has_label_words
    assert (spec.masked.label_words, spec.causal.label_words) == ("auto", "auto")
    assert spec.class_names("causal") == ["0", "1"]
    assert check_task(str(file)).mistakes == ()


def test_on_a_terminal_no_answer_means_learned_words_where_the_labels_are_no_words(capsys, monkeypatch, tmp_path):
    asked = []

    def answer(question: str) -> str:
        asked.append(question)
        return ""

    data = tmp_path / "all.csv"
    data.write_text("text,label\na,0\nb,1\n")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    status, out, _ = run(capsys, tmp_path / "own.toml", "--data", data)
    assert (status, out[: len(ABOUT)]) == (0, ABOUT)
    assert asked[3] == "A word for each of these classes, or auto to have them learned [auto]: "


def test_data_elsewhere_is_named_by_its_whole_path(capsys, monkeypatch, tmp_path):
    write_tickets(tmp_path / "tickets")
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path / "tasks")
    assert run(capsys, "tickets.toml", "--data", "../tickets", *FLAGS)[0] == 0
    assert f'path = "{tmp_path / "tickets"}"' in (tmp_path / "tasks" / "tickets.toml").read_text()


def test_a_file_that_is_there_stays(capsys, tmp_path):
    file = tmp_path / "tickets.toml"
    file.write_text("mine")
    status, _, err = run(capsys, file, "--data", write_tickets(tmp_path / "tickets"), *FLAGS)
    assert status == 1
    assert err == f"error: {file} is there already; give another name, or remove it first\n"
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.txt", "tickets", "a task file's name ends in .toml"),
        ("t.toml", "nowhere", "nowhere does not exist"),
        ("t.toml", "notes.txt", "has no known format"),
        ("t.toml", "half", "has no test data, such as test.csv"),
    ],
)
def test_data_that_cannot_be_used(capsys, tmp_path, name, data, said):
    write_tickets(tmp_path / "tickets")
    write_tickets(tmp_path / "half")
    (tmp_path / "half" / "test.csv").unlink()
    (tmp_path / "notes.txt").write_text("a")
    status, _, err = run(capsys, tmp_path / name, "--data", tmp_path / data, *FLAGS)
    assert (status, err.count("\n")) == (1, 1)
    assert said in err


def test_questions_on_a_terminal(capsys, monkeypatch, tmp_path):
    """What is suggested stands in brackets and is taken by an empty answer; a wrong answer is asked again."""
    answers = iter(["", "prioritaet", "priority", "subject", "low,high", "fine,urgent", "", "", "Is it urgent?"])
    asked = []

    def answer(question: str) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    file = tmp_path / "tickets.toml"
    status, out, err = run(capsys, file, "--data", write_tickets(tmp_path / "tickets") / "train.csv")
    assert (status, err) == (0, "")
    assert asked[0] == asked[1] == asked[2] == "Which column is the label: "
    assert "there is no column 'prioritaet'; there are subject, body, priority" in out
    assert asked[4] == "Its values, one for each class [high,low]: "
    assert asked[6] == "Template for masked models [{subject} . It was {mask} .]: "
    spec = load_task(str(file))
    assert spec.description == "Is it urgent?"
    assert spec.causal == Wording("{subject} . It was", (" fine", " urgent"))
    assert check_task(str(file)).mistakes == ()
