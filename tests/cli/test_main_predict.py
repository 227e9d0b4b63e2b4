"""`python -m flaretune predict` and `evaluate`, with a prompt or an adapter, and what a user can correct."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file as load_file_of_tensors
from safetensors.torch import save_file as save_file_of_tensors
from transformers import AutoTokenizer

from flaretune.cli.main import main
from flaretune.data.load import load_file
from flaretune.methods.classifier import Classifier, score
from flaretune.methods.fedbpt.artifact import PromptArtifact, save_prompt
from flaretune.methods.lpfl.artifact import save_adapter
from flaretune.methods.registry import load_classifier, load_saved
from flaretune.tasks.spec import TaskSpec, task_table
from tests.adapters_for_tests import random_adapter
from tests.commands_for_tests import SRC, python, run
from tests.models_for_tests import save_tiny_model
from tests.tasks_for_tests import pair_task, review_task

pytestmark = pytest.mark.usefixtures("models_read_once")

TEXTS = ["a moving and funny film", "the plot is dull , slow and far too long"]
OPTIONS = {
    "n_prompt_tokens": 2, "intrinsic_dim": 6, "cat_or_add": "add", "prompt_position": "suffix", "init_prompt": "auto",
    "alpha": 1.0, "sigma": 1.0, "seed": 3, "zero_lm_bias": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_model("gpt2", tmp_path_factory.mktemp("model"))


def save(folder: Path, model: Path, spec: TaskSpec) -> str:
    task = {"name": spec.name, **{k: v for k, v in task_table(spec).items() if k != "source"}}
    point = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    file = folder / f"{spec.name}.safetensors"
    described = {"name": str(model), "kind": "causal", "hidden_size": 32}
    save_prompt(PromptArtifact(point, task=task, options=OPTIONS, model=described, result={}), file)
    return str(file)


@pytest.fixture(scope="module")
def prompt(model, tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("prompt"), model, review_task(label_values=["bad", "good"]))


@pytest.fixture(scope="module")
def pair_prompt(model, tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("pairs"), model, pair_task())


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("adapter") / "best_adapter"
    save_adapter(random_adapter(model, review_task(label_values=["bad", "good"])), folder)
    return str(folder)


@pytest.fixture(params=["prompt", "adapter"])
def result(request, prompt, adapter) -> tuple[str, str]:
    """What it is called and where it lies."""
    return request.param, {"prompt": prompt, "adapter": adapter}[request.param]


def opened(place: str) -> Classifier:
    return load_classifier(place, dtype="float32", device="cpu")


def test_predict_prints_label_and_probabilities_of_every_text(capsys, result):
    status, out, err = run(capsys, "predict", "--result", result[1], "--dtype", "float32", "--device", "cpu", *TEXTS)
    assert (status, err) == (0, "")
    names = ["bad (bad)", "great (good)"]
    for line, text, (bad, great) in zip(
        out.splitlines(), TEXTS, opened(result[1]).probabilities([{"sentence": text} for text in TEXTS]), strict=True
    ):
        assert line == f"{names[int(great > bad)]:<12}  bad {bad:.3f}  great {great:.3f}  |  {text}"


def test_predict_prints_json_a_line_each(capsys, result):
    flags = ("--result", result[1], "--dtype", "float32", "--device", "cpu", "--json")
    status, out, _ = run(capsys, "predict", *flags, "ein schöner Film", TEXTS[1])
    assert status == 0
    assert "schöner" in out
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["text"]["sentence"] for answer in answers] == ["ein schöner Film", TEXTS[1]]
    for answer, row in zip(answers, opened(result[1]).probabilities([a["text"] for a in answers]), strict=True):
        assert list(answer["probabilities"]) == ["bad", "good"]
        np.testing.assert_allclose(list(answer["probabilities"].values()), row, atol=1e-6)
        assert answer["label"] == ("bad", "good")[row.argmax()]
        assert answer["word"] == ("bad", "great")[row.argmax()]


def test_predict_reads_files_of_pairs(capsys, tmp_path, pair_prompt):
    file = tmp_path / "pairs.jsonl"
    pairs = [{"premise": "He sleeps .", "hypothesis": "He runs ."}, {"premise": "Yes , she said .", "hypothesis": "No"}]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    flags = ("--result", pair_prompt, "--file", str(file), "--dtype", "float32", "--device", "cpu")
    status, out, _ = run(capsys, "predict", *flags)
    assert status == 0
    assert [line.split("  |  ")[1] for line in out.splitlines()] == ["He sleeps . | He runs .", "Yes , she said . | No"]
    status, out, _ = run(capsys, "predict", *flags, "--json")
    for line, row in zip(out.splitlines(), opened(pair_prompt).probabilities(pairs), strict=True):
        assert json.loads(line)["label"] == row.argmax()  # the raw labels are 0, 1, 2
        np.testing.assert_allclose(list(json.loads(line)["probabilities"].values()), row, atol=1e-6)


def test_predict_takes_the_model_from_elsewhere(capsys, tmp_path, model):
    file = save(tmp_path, Path("/absent/model"), review_task())
    flags = ("predict", "--result", file, "--device", "cpu")
    status, out, err = run(capsys, *flags, TEXTS[0])
    assert (status, out) == (1, "")
    assert "/absent/model" in err
    assert run(capsys, *flags, "--model_name", model, TEXTS[0])[0] == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["predict", "--result", "absent.safetensors", "text"],
            "--result absent.safetensors: there is no such file or folder; a job leaves best_prompt.safetensors or ",
        ),
        (["predict", "--result", "{prompt}"], "give either texts or --file FILE: neither is there"),
        (["predict", "--result", "{prompt}", "--file", "a.csv", "text"], "--file FILE: both are there"),
        (["predict", "--result", "{prompt}", "--file", "absent.csv"], "data file absent.csv does not exist"),
        (["predict", "--result", "{prompt}", ""], "text 1 of the command line is '' in column 'sentence'"),
        (
            ["predict", "--result", "{prompt}", "--dtype", "int4", "text"],
            "--dtype int4: must be one of auto, bfloat16, float32",
        ),
        (["predict", "--result", "{prompt}", "--device", "tpu", "text"], "--device 'tpu'"),
        (["predict", "--result", "{prompt}", "--model_name", "./nowhere", "t"], "--model_name ./nowhere: there is no"),
        (["predict", "--result", "{pair_prompt}", "text"], "task 'pairs' has the text columns premise, hypothesis"),
        (
            ["predict", "--result", "{src}/flaretune/errors.py", "text"],
            "errors.py: no result of a job, or a damaged one",
        ),
        (["predict", "--result", "", "text"], r"--result \.: no result of a job, or a damaged one \(.*flaretune.json"),
        (["predict", "--result", "{adapter}", ""], "text 1 of the command line is '' in column 'sentence'"),
        (["predict", "--result", "{adapter}", "--model_name", "./nowhere", "t"], "{adapter}: --model_name ./nowhere:"),
        (["evaluate", "--result", "{adapter}", "--data", "absent.csv"], "data file absent.csv does not exist"),
        (["evaluate", "--result", "{prompt}", "--data", "absent.csv"], "data file absent.csv does not exist"),
        (["plot", "absent"], "absent/summary.json cannot be read"),
        (["plot", "absent", "--output", "absent/a.png"], "--output absent/a.png: there is no folder absent"),
        (["tasks", "show", "sst"], r"unknown task 'sst'; did you mean 'sst2'\?"),
        (["tasks", "show", "absent.toml"], "task file absent.toml cannot be read"),
    ],
)
def test_what_a_user_can_correct_is_one_sentence_and_status_1(capsys, prompt, pair_prompt, adapter, argv, message):
    places = {"prompt": prompt, "pair_prompt": pair_prompt, "adapter": adapter, "src": SRC}
    status, out, err = run(capsys, *(word.format(**places) for word in argv))
    assert (status, out) == (1, "")
    for name, place in places.items():
        message = message.replace(f"{{{name}}}", re.escape(str(place)))
    assert re.match(f"error: .*{message}", err)
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [["predict", "text"], ["evaluate", "--data", "a.csv"]])
def test_one_result_is_used(capsys, prompt, adapter, command):
    for flags, message in (
        ([], "one of the arguments --result is required"),
        (["--prompt", prompt, "--adapter", adapter], "argument --adapter: not allowed with argument --prompt"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([command[0], *flags, *command[1:]])
        assert stop.value.code == 2
        assert capsys.readouterr().err.endswith(f"flaretune {command[0]}: error: {message}\n")


def test_the_flags_of_version_0_1_are_taken_with_a_warning(capsys, result):
    flags = ("--dtype", "float32", "--device", "cpu", TEXTS[0])
    status, out, err = run(capsys, "predict", f"--{result[0]}", result[1], *flags)
    assert (status, err) == (0, f"warning: --{result[0]} is now called --result\n")
    assert run(capsys, "predict", "--result", result[1], *flags) == (0, out, "")


# ---- evaluate ----


@pytest.fixture
def labelled(tmp_path) -> Path:
    file = tmp_path / "labelled.csv"
    rows = [(text, label) for label in ("good", "bad") for text in (*TEXTS, "a bright , lovely cast", "No")][:7]
    file.write_text("label,sentence\n" + "".join(f'{label},"{text}"\n' for text, label in rows))
    return file


def test_evaluate_counts_what_is_correct_per_class(capsys, result, labelled):
    what, classifier = result[0], opened(result[1])
    examples = load_file(classifier.spec, labelled)
    right = score(classifier.spec, classifier.probabilities(examples.texts), examples.labels)
    plain = score(classifier.spec, classifier.zero_shot(examples), examples.labels)
    flags = ("evaluate", "--result", result[1], "--data", str(labelled), "--dtype", "float32", "--device", "cpu")

    status, out, err = run(capsys, *flags, "--zero_shot")
    assert (status, err) == (0, "")
    bad, great = right.correct_by_class
    assert out.splitlines()[:2] == [
        f"7 texts of {labelled}",
        f"{what:<10} accuracy {(bad + great) / 7:.4f} ± {right.standard_error:.4f}   "
        f"correct: bad (bad) {bad} of 3, great (good) {great} of 4",
    ]
    assert out.splitlines()[2].startswith(
        f"zero-shot  accuracy {plain.value:.4f} ± {plain.standard_error:.4f}   correct: "
    )

    status, out, _ = run(capsys, *flags, "--json")
    written = labelled.with_suffix(".json")
    bins = [dict(b) for b in right.reliability]
    confusion = [[bad, 3 - bad], [4 - great, great]]
    assert json.loads(out) == {
        "task": "reviews",
        "result": str(result[1]),
        "data": str(labelled),
        "label_values": ["bad", "good"],
        "words": ["bad", "great"],
        what: {
            "metric": "accuracy",
            "value": (bad + great) / 7,
            "n": 7,
            "n_by_class": [3, 4],
            "correct_by_class": [bad, great],
            "standard_error": pytest.approx(((bad + great + 0.5) * (7.5 - bad - great) / 8**3) ** 0.5),
            "confusion": confusion,
            "reliability": bins,
        },
    }
    assert run(capsys, *flags, "--output", written)[0] == 0
    assert json.loads(written.read_text(encoding="utf-8")) == json.loads(out)
    _, out, _ = run(capsys, *flags, "--json", "--zero_shot")
    assert json.loads(out)["zero_shot"]["value"] == plain.value


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_texts_that_the_model_gives_no_numbers_for_are_given_no_class(capsys, tmp_path, result, command):
    """The embedding of a word of one of them is NaN, and so is the scale of a prompt for both."""
    folder, (_, place) = tmp_path / "model", result
    shutil.copytree(load_saved(place).artifact.model["name"], folder)
    weights, tokenizer = load_file_of_tensors(folder / "model.safetensors"), AutoTokenizer.from_pretrained(folder)
    words = next(name for name in weights if name.endswith("wte.weight"))
    weights[words][tokenizer(" slow", add_special_tokens=False)["input_ids"]] = math.nan
    save_file_of_tensors(weights, folder / "model.safetensors", {"format": "pt"})
    file = tmp_path / "texts.csv"
    file.write_text(f'sentence,label\n{TEXTS[0]},good\n"{TEXTS[1]}",bad\n')
    argv = [command, "--result", place, "--model_name", str(folder), "--dtype", "float32", "--device", "cpu"]
    assert main([*argv, {"predict": "--file", "evaluate": "--data"}[command], str(file)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch("error: the model gives logits that are not finite for [12] of 2 texts; .*\n", told.err)


def test_evaluate_names_an_unknown_label(capsys, prompt, tmp_path):
    (tmp_path / "odd.csv").write_text("sentence,label\na,fine\n")
    status, _, err = run(capsys, "evaluate", "--result", prompt, "--data", tmp_path / "odd.csv")
    assert status == 1
    assert "has the label 'fine' in column 'label'; task 'reviews' allows 'bad', 'good'" in err


@pytest.mark.slow
def test_results_can_be_used_where_nvflare_is_not_installed(without_nvflare, result, labelled):
    flags = ["--result", result[1], "--device", "cpu"]
    commands = [["predict", *flags, *TEXTS], ["evaluate", *flags, "--data", str(labelled)]]
    code = f"from flaretune.cli.main import main\nfor argv in {commands}: print(main(argv))"
    done = python("-c", code, path=without_nvflare)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 6  # of each command two, and its status
    assert lines[2::3] == ["0", "0"]
