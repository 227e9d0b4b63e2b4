"""`python -m flaretune try`: honest numbers from one pass, the task file to go on with, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from flaretune.authoring.trial import HeadsOfTexts, cross_validate, draw_folds, draw_sample, learning_curve
from flaretune.cli.main import main
from flaretune.data.demo import model as demo_model
from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.verbalizer.head_steps import AskedTexts, WordFeatures
from flaretune.models.word_log_probs import WordLogProbs
from flaretune.tasks.spec import load_task
from tests.learnable import BAD, GOOD, NEUTRAL
from tests.models_for_tests import save_tiny_model

SPEC = load_task("sst2")


def write_csv(file: Path, texts, labels, columns=("sentence", "label")) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(texts, labels, strict=True))
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Knows nothing, and says other things of some words than of others."""
    return save_tiny_model("gpt2", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    """Made-up reviews that end in what they are about: a last token is what a causal model's answer depends on most."""
    rng = np.random.default_rng(3)
    labels = np.arange(120) % 2
    texts = [" ".join([*rng.choice(NEUTRAL, size=3), *[rng.choice(GOOD if label else BAD)] * 4]) for label in labels]
    return write_csv(tmp_path_factory.mktemp("data") / "reviews.csv", texts, labels)


def run(capsys, data, model=None, *argv) -> tuple[int, str, str]:
    flags = ["--text", "sentence", "--label", "label", "--dtype", "float32", "--device", "cpu"]
    status = main(["try", *map(str, [data, *flags, *(["--model_name", model] if model else []), *argv])])
    return (status, *capsys.readouterr())


def of_texts(log_probs: np.ndarray, labels: np.ndarray, n_words: int = 64) -> HeadsOfTexts:
    """Texts of which a model is said to have told float (N, V), one template."""

    class Model:
        example_forwards = 0
        gives_all = True

        def __call__(self, texts, token_ids):
            raise AssertionError("asked again")

    ids = np.arange(log_probs.shape[1])
    data = AskedTexts([{"sentence": str(i)} for i in range(len(labels))], labels, ids=ids, log_probs=log_probs[:, None])
    return HeadsOfTexts(SPEC, data, WordFeatures(Model(), ids, 1), n_words)


def ridge_by_hand(features: np.ndarray, labels: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of ridge regression of one-hot classes, with an intercept that is not shrunk."""
    targets = np.eye(2)[labels]
    middle = features.mean(axis=0)
    centred = features - middle
    normal = centred.T @ centred + shrinkage * np.eye(features.shape[1])
    weights = np.linalg.solve(normal, centred.T @ (targets - targets.mean(axis=0)))
    return weights, targets.mean(axis=0) - middle @ weights


def loss_by_hand(logits: np.ndarray, labels: np.ndarray) -> float:
    """Summed cross entropy."""
    logits = logits - logits.max(axis=1, keepdims=True)
    return (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]).sum()


def head_by_hand(features: np.ndarray, labels: np.ndarray):
    """The same with λ and τ by leaving out each text in turn; gives probabilities of the classes of other features."""
    middle, spread = features.mean(axis=0), features.std(axis=0)
    scaled = (features - middle) / spread
    mean_square = np.square(scaled - scaled.mean(axis=0)).sum() / features.shape[1]
    best = (np.inf, 0.0, None)
    temperatures = np.geomspace(0.02, 2.0, 21)
    for multiple in np.geomspace(1e-3, 1e3, 19):
        scores = []
        for i in range(len(labels)):
            others = np.arange(len(labels)) != i
            weights, bias = ridge_by_hand(scaled[others], labels[others], multiple * mean_square)
            scores.append(scaled[i] @ weights + bias)
        losses = np.array([loss_by_hand(np.array(scores) / tau, labels) for tau in temperatures])
        if losses.min() <= best[0]:
            best = (losses.min(), multiple * mean_square, losses)
    # τ serves one text more, which scores 1 for one of two classes and is as probably of the other
    unknown = [loss_by_hand(np.array([[1, 0], [1, 0]]) / tau, np.array([0, 1])) / 2 for tau in temperatures]
    temperature = temperatures[np.argmin(best[2] + unknown)]
    weights, bias = ridge_by_hand(scaled, labels, best[1])

    def probabilities(values: np.ndarray) -> np.ndarray:
        powers = np.exp((((values - middle) / spread) @ weights + bias) / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    return probabilities


def test_cross_validation_with_fixed_words_is_what_a_regression_for_each_fold_by_hand_gives():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    log_probs = rng.normal(size=(40, 3)) + 0.7 * labels[:, None]  # three candidates: all of them are the words
    folds = draw_folds(labels, seed=1)
    assert all(np.bincount(labels[folds == fold]).tolist() == [4, 4] for fold in range(5))
    expected = np.empty((40, 2))
    for fold in range(5):
        train, held_out = folds != fold, folds == fold
        expected[held_out] = head_by_hand(log_probs[train], labels[train])(log_probs[held_out])
    found = cross_validate(of_texts(log_probs, labels), folds)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert 0.5 < np.mean(found.argmax(axis=1) == labels) < 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_that_say_nothing_of_the_texts_give_chance(seed):
    """With words chosen on all texts, before the folds are held out, the accuracy of such labels is near 0.8."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 100)
    log_probs, folds = rng.normal(size=(200, 2000)), draw_folds(labels, seed)
    heads = of_texts(log_probs, labels, n_words=32)
    accuracy = np.mean(cross_validate(heads, folds).argmax(axis=1) == labels)
    assert abs(accuracy - 0.5) < 0.12  # 3.4 standard errors
    assert all(abs(point.mean - 0.5) < 0.12 for point in learning_curve(heads, folds, seed))
    # what a leak would come to: words of all texts, heads of the training folds
    means = [log_probs[labels == c].mean(axis=0) for c in (0, 1)]
    best = np.sort(np.argsort(-np.abs(means[0] - means[1]))[:32])
    leaked = cross_validate(of_texts(log_probs[:, best], labels, n_words=32), folds)
    assert np.mean(leaked.argmax(axis=1) == labels) > 0.7


def test_held_out_texts_change_nothing_of_the_head_that_judges_them():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    log_probs, folds = rng.normal(size=(100, 200)), draw_folds(labels, 0)
    held_out = folds == 2
    changed, others = log_probs.copy(), labels.copy()
    changed[held_out], others[held_out] = rng.normal(size=(held_out.sum(), 200)), 1 - labels[held_out]
    train = np.flatnonzero(~held_out)
    first, second = of_texts(log_probs, labels).head(train), of_texts(changed, others).head(train)
    assert all(np.array_equal(a, b) for a, b in zip(first.arrays().values(), second.arrays().values(), strict=True))


def test_the_learning_curve_rises_doubles_and_ends_where_a_class_does():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 200 + [1] * 45)  # 36 of the second class in four folds
    log_probs = rng.normal(size=(245, 300))
    log_probs[:, :20] += 0.8 * labels[:, None]
    heads, folds = of_texts(log_probs, labels), draw_folds(labels, 0)
    curve = learning_curve(heads, folds, seed=0)
    assert [point.labels_per_class for point in curve] == [8, 16, 32]
    assert {point.draws for point in curve} == {10}
    assert curve[0].mean < curve[-1].mean
    assert all(point.standard_deviation > 0 for point in curve)
    assert curve == learning_curve(heads, folds, seed=0) != learning_curve(heads, folds, seed=1)


def test_a_sample_keeps_the_classes_shares_and_a_rare_class_and_no_text_twice():
    labels = np.array([0] * 600 + [1] * 300 + [0] * 100)
    texts = [{"sentence": f"text {i % 950}"} for i in range(1000)]  # the last 50 stand in earlier rows
    drawn, n_there, n_twice = draw_sample(Examples(tuple(texts), labels), SPEC, 95, seed=0)
    assert (n_there, n_twice, len(drawn)) == (950, 50, 95)
    assert len({text["sentence"] for text in drawn.texts}) == 95
    assert abs(np.sum(drawn.labels == 1) - 30) <= 2
    rare = Examples(tuple(texts[:950]), np.arange(950) // 945)
    assert np.bincount(draw_sample(rare, SPEC, 20, seed=0)[0].labels).tolist() == [15, 5]


def test_a_file_gives_a_number_a_curve_errors_and_a_task_file_without_mistakes(capsys, tmp_path, model, reviews):
    file = tmp_path / "mine.toml"
    status, out, err = run(capsys, reviews, model, "--output", file, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found["n"], found["n_by_class"], found["majority"]) == (120, {"0": 60, "1": 60}, 0.5)
    assert found["metric"] == "accuracy"
    assert found["value"] > 0.7
    p = (found["value"] * 120 + 0.5) / 121  # with half a success and half a failure more
    assert found["standard_error"] == pytest.approx(np.sqrt(p * (1 - p) / 121))
    assert [point["labels_per_class"] for point in found["curve"]] == [8, 16, 32]
    assert found["example_forwards"] == 120 + 3  # and the neutral texts
    assert file.read_text(encoding="utf-8") == found["toml"]

    wrong = found["most_wrong"]
    assert len(wrong) == min(10, round((1 - found["value"]) * 120))
    probabilities = [one["probability"] for one in wrong]
    assert probabilities == sorted(probabilities, reverse=True)
    rows = dict(csv.reader(reviews.open(encoding="utf-8")))
    assert all(rows[one["text"]["sentence"]] == str(one["label"]) != str(one["prediction"]) for one in wrong)

    again = tmp_path / "as_new.toml"
    flags = ["--text_columns", "sentence", "--label_column", "label", "--label_words", "auto", "--no_questions"]
    assert main(["tasks", "new", str(again), "--data", str(reviews), *flags]) == 0
    assert again.read_text(encoding="utf-8") == found["toml"]
    assert main(["tasks", "check", str(file), "--method", "verbalizer"]) == 0
    assert capsys.readouterr().out.endswith("no mistakes\n")


def test_the_model_is_asked_once_and_equal_seeds_give_equal_numbers(capsys, monkeypatch, model, reviews):
    passes, ask = [], WordLogProbs.__call__
    monkeypatch.setattr(
        WordLogProbs, "__call__", lambda self, texts, *a: passes.append(len(texts)) or ask(self, texts, *a)
    )
    flags = ("--max_texts", 60, "--quiet")
    first, again, other = (run(capsys, reviews, model, *flags, "--seed", seed) for seed in (1, 1, 2))
    assert first == again != other
    assert passes == [3, 60] * 3
    status, out, err = first
    assert (status, err) == (0, "")
    assert out.startswith("60 texts (0: 30, 1: 30), drawn from 120\n")
    assert 'label_words = "auto"' in out
    assert out.endswith('test = "test"\n')


def test_several_text_columns_and_labels_in_words(capsys, tmp_path, model):
    file = tmp_path / "tickets.csv"
    rows = ((f"plot {i}", f"the team {i}", ("low", "high", "none")[i % 3]) for i in range(30))
    file.write_text("\n".join(["subject,body,priority", *map(",".join, rows)]), encoding="utf-8")
    flags = ["--text", "subject,body", "--label", "priority", "--model_name", str(model), "--device", "cpu"]
    assert main(["try", str(file), *flags]) == 0
    out = capsys.readouterr().out
    assert out.startswith("30 texts (high: 10, low: 10, none: 10)\n")
    assert 'template = "{subject} {body} . It was"' in out
    assert "8  0." in out


def test_long_texts_are_cut_and_few_have_no_curve(capsys, tmp_path, model):
    file = write_csv(tmp_path / "a.csv", [f"{i} {'movie ' * 400}" for i in range(12)], [0, 1] * 6)
    status, out, _ = run(capsys, file, model)
    assert status == 0
    assert "no learning curve: a class has fewer than 8 texts" in out
    assert all(len(line) < 140 for line in out.splitlines() if "movie" in line)


def test_the_demo_s_model_is_the_default_once_it_was_fetched(capsys, monkeypatch, tmp_path, model, reviews):
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path))
    status, _, err = run(capsys, reviews)
    assert status == 1
    assert err.startswith("error: --model_name is needed, since the demo's model has not been fetched")
    target, source = tmp_path / "models" / "gemma-3-270m", {"a": 1}
    target.mkdir(parents=True)
    for part in model.iterdir():
        (target / part.name).write_bytes(part.read_bytes())
    (target / "source.json").write_text(json.dumps({"source": source, "sizes": {}}))
    monkeypatch.setattr(demo_model, "_target", lambda cache: (target, source))
    status, out, _ = run(capsys, reviews, None, "--max_texts", 20)
    assert (status, f"model {target}: 23 example-forwards" in out) == (0, True)


def few_of_one(file: Path) -> Path:
    return write_csv(file, [f"text {i}" for i in range(20)], [0] * 16 + [1] * 4)


def one_class(file: Path) -> Path:
    return write_csv(file, [f"text {i}" for i in range(20)], [1] * 20)


def no_class(file: Path) -> Path:
    return write_csv(file, [], [])


def many(file: Path) -> Path:
    return write_csv(file, [f"text {i}" for i in range(1510)], [i % 151 for i in range(1510)])


def scores(file: Path) -> Path:
    return write_csv(file, [f"text {i}" for i in range(20)], [i / 7 for i in range(20)])


def without_text(file: Path) -> Path:
    return write_csv(file, [f"text {i}" for i in range(20)], [i % 2 for i in range(20)], ("review", "label"))


def without_label(file: Path) -> Path:
    return write_csv(file, [f"text {i}" for i in range(20)], [i % 2 for i in range(20)], ("sentence", "stars"))


def enough(file: Path) -> Path:
    return write_csv(file, [f"text {i}" for i in range(20)], [i % 2 for i in range(20)])


@pytest.mark.parametrize(
    ("make", "argv", "message"),
    [
        (few_of_one, (), "label 1 has 4 different texts, and cross-validation in 5 folds needs 5 of each"),
        (one_class, (), "column 'label' has one value alone, '1'"),
        (no_class, (), "column 'label' has no values"),
        (many, (), "tasks of up to 150 classes are tested"),
        (scores, (), "classification only"),
        (without_text, (), "--text_columns sentence: there is no column 'sentence'; there are review, label"),
        (without_label, (), "--label_column label: there is no column 'label'; there are sentence, stars"),
        (enough, ("--max_texts", 9), "--max_texts 9: cross-validation in 5 folds needs 5 texts of each of 2 classes"),
        (enough, ("--output", "absent/a.toml"), "there is no folder absent"),
        (enough, ("--output", "a.csv"), "a.csv: a task file's name ends in .toml"),
        (enough, ("--seed", "x"), "--seed 'x': must be a whole number"),
        (enough, ("--model_name", "./absent"), "--model_name ./absent: there is no such folder"),
        (lambda file: file, (), "does not exist"),
    ],
)
def test_what_is_wrong_is_one_sentence(capsys, tmp_path, monkeypatch, make, argv, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, make(tmp_path / "data.csv"), "./model", *argv)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) in ([], ["data.csv"])


def test_what_to_do_next_is_a_line_for_the_shell(capsys, tmp_path, model, reviews):
    file = tmp_path / "my task.toml"
    status, out, _ = run(capsys, reviews, model, "--max_texts", 20, "--output", file)
    assert (status, "label_words" in out) == (0, False)
    assert out.splitlines()[-2:] == [str(file), f"next: python -m flaretune tasks check '{file}' --model_name {model}"]
    assert main(["tasks", "check", str(file), "--model_name", str(model), "--device", "cpu"]) == 0


def test_a_task_file_that_is_there_is_kept(capsys, tmp_path, reviews):
    file = tmp_path / "mine.toml"
    file.write_text("mine")
    status, _, err = run(capsys, reviews, "./model", "--output", file)
    assert (status, "is there already" in err, file.read_text()) == (1, True, "mine")


def test_a_word_that_varies_nowhere_is_a_sentence():
    with pytest.raises(UserError, match="no word's log-probability differs"):
        cross_validate(of_texts(np.zeros((20, 4)), np.arange(20) % 2), draw_folds(np.arange(20) % 2, 0))
