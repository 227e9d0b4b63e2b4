"""The report of a run, read back by an HTML parser and held against the files that it was made of."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from flaretune.engine.errors import Failure, record_failure
from flaretune.engine.report import read_evaluation
from flaretune.engine.results import read_summary
from flaretune.errors import UserError
from flaretune.methods.registry import find_method
from flaretune.privacy.accountant import account
from tests.engine.in_process import run_job
from tests.engine.report_pages import NASTY, Page, a_run, an_evaluation, page_of
from tests.engine.summaries import a_summary, a_training_summary
from tests.engine.whole_jobs import CLIENTS, JOBS
from tests.learnable import write_reviews


def column(page: Page, table: str, name: str) -> list[str]:
    head, *rows = page.tables[table]
    return [row[head.index(name)] for row in rows]


def shown(value: float | None, error: float | None = None) -> str:
    return "–" if value is None else f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}")


@pytest.fixture(autouse=True)
def _pictures(request, monkeypatch):
    """Pictures take most of a report's time: they are drawn of the runs that are real."""
    if "small" not in request.fixturenames:
        monkeypatch.setattr("flaretune.engine.report.svg", lambda _figure: b"<svg/>")


@pytest.fixture(scope="module", params=["fedbpt", "lpfl", "verbalizer"])
def small(request, roberta, tmp_path_factory) -> Path:
    """A run of each method, on a tiny model."""
    folder, method = tmp_path_factory.mktemp("report"), find_method(request.param)
    data = write_reviews(folder / "data", n_train=60, n_test=20)
    options = {"model_name": str(roberta), "dataset": str(data), "k_shot": 6, "dtype": "float32", "eval_clients": "all"}
    config = method.client_config(**options, **{**JOBS, "verbalizer": {"n_words": 8}}[request.param])
    server = {} if request.param == "verbalizer" else {"num_rounds": 2}
    told = run_job(method, dict.fromkeys(CLIENTS, config), folder / "run", **server)
    assert not told.failure
    return folder / "run"


@pytest.fixture(scope="module")
def page(small) -> Page:
    return page_of(small)


def test_every_number_is_that_of_the_run(small, page):
    summary = read_summary(small)
    rounds, best = summary["rounds"], next(r for r in summary["rounds"] if r["round"] == summary["best_round"])
    assert column(page, "rounds", "round") == [str(r["round"]) for r in rounds]
    for name, of in (("test", ""), ("validation", "validation_")):
        expected = [shown(r[f"{of}accuracy"], r[f"{of}standard_error"]) for r in rounds]
        assert column(page, "rounds", name) == expected
        assert all(" ± " in text for text in expected)
    for name, key in (("bytes down", "bytes_down"), ("bytes up", "bytes_up"), ("queries", "queries")):
        found = [float(text.replace(",", "")) for text in column(page, "rounds", name)]
        assert found == pytest.approx([r[key] for r in rounds], abs=0.5)
    for name, key in (("validation loss", "validation_loss"), ("seconds", "seconds"), ("overhead", "overhead_seconds")):
        found = [float(text.replace(",", "")) for text in column(page, "rounds", name)]
        assert found == pytest.approx([r[key] for r in rounds], rel=1e-3)
    for name in {name for r in rounds for name in r["metrics"]}:
        expected = [r["metrics"].get(name) for r in rounds]
        for text, value in zip(column(page, "rounds", name), expected, strict=True):
            assert text == "–" if value is None else float(text.replace(",", "")) == pytest.approx(value, rel=1e-3)
    assert column(page, "rounds", "example-forwards") == [f"{r['example_forwards']:,}" for r in rounds]
    assert column(page, "clients", "client") == CLIENTS
    assert column(page, "clients", "validation accuracy") == [
        shown(best["client_accuracy"][c], best["client_standard_error"][c]) for c in CLIENTS
    ]
    assert column(page, "clients", "rounds that counted") == [f"{len(rounds)} of {len(rounds)}"] * len(CLIENTS)
    assert column(page, "clients", "computed in") == [summary["dtypes"][c] for c in CLIENTS]


def test_the_first_sentence_is_the_result(small, page):
    summary = read_summary(small)
    test, validation = (shown(summary[f"{o}_accuracy"], summary[f"{o}_standard_error"]) for o in ("test", "validation"))
    assert f"{summary['method']} on {summary['task']}" in page.text
    planned = json.loads((small / "config.json").read_text(encoding="utf-8"))["server"]["num_rounds"]
    assert (
        f"Test accuracy {test} after round {summary['best_round']} of {planned}, which was chosen by validation "
        f"accuracy {validation}."
    ) in page.text


def test_cost_configuration_versions_and_words_are_there(small, page):
    summary = read_summary(small)
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    cost = dict(page.tables["What it cost"])
    down, up = (round(summary[f"bytes_{way}_per_client_round"]) for way in ("down", "up"))
    assert cost["bytes per client and round"] == f"{down:,} down, {up:,} up"
    assert cost["queries"] == f"{summary['queries']:,}"
    assert cost["example-forwards"] == f"{summary['example_forwards']:,}"
    for group in ("server", "options", "task", "model"):
        found = dict(page.tables[f"config-{group}"])
        assert found.keys() == config[group].keys()
        for name, value in config[group].items():
            if not isinstance(value, str):
                assert json.loads(found[name]) == value
    assert dict(page.tables["Versions"]) == config["versions"]
    path = small / summary["artifact"]
    artifact = find_method(summary["method"]).read(path)
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    assert f"{summary['artifact']}, {size:,} bytes" in page.text
    rows = page.tables["words"][1:]
    assert len(rows) == artifact.spec.n_classes
    if learned := getattr(artifact, "learned", None):
        for weights, (_, words) in zip(learned.head.weights.T, rows, strict=True):
            first = learned.word_texts[int(weights.argmax())]
            assert words.split(", ")[0] == (first.strip() or repr(first))
    else:
        assert [words for _, words in rows] == artifact.spec.class_names(artifact.model["kind"])


def test_equal_runs_give_equal_bytes_and_pictures_are_svg(small, page):
    before = (small / "report.html").read_bytes()
    page_of(small)
    assert (small / "report.html").read_bytes() == before
    assert "script" not in page.tags
    [curve] = page.images
    kind, _, content = curve.partition(";base64,")
    assert kind == "data:image/svg+xml"
    picture = b64decode(content).decode()
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert "date" not in picture


# ---- runs that are made up ----


def test_what_went_wrong_is_listed_with_who_it_was(tmp_path):
    summary = a_summary()
    assert "Nothing was recorded." in page_of(a_run(tmp_path, summary)).text
    summary["rounds"][1] |= {"excluded": {"site-2": "no reply within 9 s"}, "clipped": ["hospital-a"]}
    a_run(tmp_path, summary)
    record_failure(tmp_path / "workspace" / "site-2" / "job", Failure("site-2", "its data cannot be read"))
    rows = page_of(tmp_path).tables["wrong"][1:]
    assert rows[0] == ["site-2", "", "its data cannot be read"]
    assert rows[1] == ["site-2", "1", "its reply did not count: no reply within 9 s"]
    assert rows[2][:2] == ["hospital-a", "1"]
    assert "clipped" in rows[2][2]


def test_texts_from_elsewhere_are_shown_as_texts(tmp_path):
    """A client's name, an error, a label, a column, a word: whatever is in angle brackets stays text."""
    clients = [NASTY, "b&amp;b"]
    summary = a_summary(clients=clients, task=NASTY, dtypes={NASTY: NASTY})
    for record in summary["rounds"]:
        record |= {"clients": clients, "excluded": {NASTY: NASTY}, "client_accuracy": {NASTY: 0.5}}
        record["metrics"] = {NASTY: 1.0}
    a_run(tmp_path, summary, {"task": {"text_columns": [NASTY]}, "options": {NASTY: NASTY}, "versions": {"p": NASTY}})
    evaluation = an_evaluation([NASTY, "1"], [[3, 1], [2, 4]], task=NASTY, data=NASTY, result=NASTY)
    page = page_of(tmp_path, evaluation)
    assert "script" not in page.tags
    assert column(page, "clients", "client") == clients
    assert page.tables["wrong"][1] == [NASTY, "0", f"its reply did not count: {NASTY}"]
    assert dict(page.tables["config-options"]) == {NASTY: NASTY}
    assert column(page, "classes", "class") == [f"{NASTY} (word 0)", "1 (word 1)"]
    assert NASTY in page.tables["rounds"][0]


def test_a_run_of_an_earlier_version_has_no_standard_errors_and_says_so(tmp_path):
    def without(values):
        return {k: v for k, v in values.items() if "standard_error" not in k}

    summary = without(a_training_summary())
    summary["rounds"] = [without(r) for r in summary["rounds"]]
    page = page_of(a_run(tmp_path, summary))
    assert "which this run, by an earlier version, does not tell" in page.text
    assert column(page, "rounds", "test") == ["0.500", "0.600", "0.700"]
    assert "by an earlier version" not in page_of(a_run(tmp_path, a_training_summary())).text


def test_a_run_with_noise_claims_neither_a_choice_nor_a_memory_that_nobody_told(tmp_path):
    unknown = {"validation_accuracy": None, "validation_standard_error": None, "validation_loss": None}
    summary = a_summary(best_round=2, test_accuracy=0.7, **unknown)
    summary["rounds"] = [{**r, **unknown, "memory_mb": 0.0} for r in summary["rounds"]]
    summary |= {"privacy": account({"dp_noise": 1.0, "dp_clip": 1.0}, 2), "memory_mb": 0.0}
    page = page_of(a_run(tmp_path, summary))
    assert "after round 2, the last, as there is no validation accuracy to choose by." in page.text
    assert "MiB" not in page.text
    summary |= {"test_accuracy": None}
    assert "Without test data; round 2 is the last." in page_of(a_run(tmp_path, summary)).text


def test_rounds_that_are_as_good_as_the_chosen_one_are_named(tmp_path):
    summary = a_summary()
    assert "the choice among them is luck" not in page_of(a_run(tmp_path, summary)).text  # 0.65 < 0.75 − 0.0531
    summary["rounds"][2]["validation_accuracy"] = 0.70
    assert "Validation accuracy of round 2 is within a standard error of the" in page_of(a_run(tmp_path, summary)).text


def test_without_test_data_the_validation_set_speaks(tmp_path):
    summary = a_summary(test_accuracy=None, zero_shot_accuracy=None)
    summary["rounds"] = [{**r, "accuracy": None, "standard_error": None} for r in summary["rounds"]]
    page = page_of(a_run(tmp_path, summary))
    assert "Without test data; round 1 is best on the validation set, accuracy 0.750 ± 0.053." in page.text
    assert column(page, "rounds", "test") == ["–"] * 3
    assert "template alone have" not in page.text


def test_a_noised_run_says_what_it_cost_and_does_not_tell_of_its_texts(tmp_path):
    privacy = account({"dp_noise": 1.0, "dp_clip": 2.0}, 2)
    summary = a_summary(privacy=privacy)
    for record, epsilon in zip(summary["rounds"], (0.0, 4.9, privacy["epsilon"]), strict=True):
        record |= {"epsilon": epsilon, "overhead_seconds": None}
    page = page_of(a_run(tmp_path, summary))
    assert f"ε = {privacy['epsilon']:.4g}, δ = 1e-05" in dict(page.tables["What it cost"])["privacy"]
    assert column(page, "rounds", "ε") == ["0", "4.9", f"{privacy['epsilon']:.4g}"]
    assert column(page, "rounds", "example-forwards") == column(page, "rounds", "overhead") == ["–"] * 3


def test_a_result_that_cannot_be_read_is_said_in_place_of_its_words(tmp_path):
    page = page_of(a_run(tmp_path, a_summary()))
    assert "The prompt cannot be read: prompt file" in page.text
    assert "words" not in page.tables


# ---- with an evaluation ----


def test_classes_confusion_and_calibration_are_computed_from_the_evaluation(tmp_path):
    confusion = [[30, 10, 0], [5, 5, 0], [1, 1, 0]]
    page = page_of(a_run(tmp_path, a_summary()), an_evaluation(["a", "b", "c"], confusion))
    assert "52 texts of test.csv by p.safetensors: accuracy 0.673 ± 0.125." in page.text
    assert page.tables["classes"][1:] == [
        ["a (word 0)", "40", "36", f"{30 / 36:.3f}", "0.750", f"{60 / 76:.3f}"],
        ["b (word 1)", "10", "16", f"{5 / 16:.3f}", "0.500", f"{10 / 26:.3f}"],
        ["c (word 2)", "2", "0", "–", "0.000", "0.000"],
    ]
    assert [[int(n) for n in row[1:]] for row in page.tables["confusion"][1:]] == confusion
    assert page.tables["calibration"][1:] == [
        ["0.5 to 0.6", "48", "0.550", "0.400"],
        ["0.9 to 1", "4", "0.960", "1.000"],
    ]
    assert f"Expected calibration error {(48 * 0.15 + 4 * 0.04) / 52:.3f}." in page.text
    assert len(page.images) == 2


def test_of_many_classes_the_most_frequent_confusions_are_shown(tmp_path):
    confusion = np.diag(np.full(30, 10))
    confusion[4, 7], confusion[2, 1] = 9, 3
    page = page_of(a_run(tmp_path, a_summary()), an_evaluation(list(range(30)), confusion.tolist()))
    assert "confusion" not in page.tables
    assert page.tables["confused"][1:] == [["4 (word 4)", "7 (word 7)", "9"], ["2 (word 2)", "1 (word 1)", "3"]]


def test_without_an_evaluation_the_report_says_how_to_make_one(tmp_path):
    page = page_of(a_run(tmp_path, a_summary()))
    assert "evaluate --result best_prompt.safetensors --data FILE --output evaluation.json" in page.text
    assert "classes" not in page.tables


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "sst2"}, "is of task 'sst2', and the run of 'movie_reviews'"),
        ({"prompt": {}}, r"none of a prompt \(KeyError\('confusion'\)\)"),
        ({"words": ["bad"]}, "none of a prompt"),
        ({"label_values": [0, 1, 2]}, "none of a prompt"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(tmp_path, changes, message):
    run = a_run(tmp_path, a_summary())
    with pytest.raises(UserError, match=message):
        page_of(run, an_evaluation([0, 1], [[3, 1], [2, 4]], **changes))
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("{", "is damaged"), ("[]", "no JSON object")])
def test_an_evaluation_that_cannot_be_read_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "e.json").write_text(text)
    with pytest.raises(UserError, match=rf"e\.json .*{message}.*|e\.json {message}.*flaretune evaluate --output"):
        read_evaluation(tmp_path / "e.json")


# ---- in a browser ----
