"""What people would use instead, measured on a job's texts: with a stand-in embedding and a tiny model."""

import json

import baselines
import minilm
import numpy as np
import pytest
import same_texts

from flaretune.config.options import build
from flaretune.data.load import load_split
from flaretune.data.shares import few_shot
from flaretune.errors import UserError
from flaretune.methods.base import ClientContext
from flaretune.methods.client_data import load_data
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import load_task
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model


@pytest.fixture
def place(tmp_path):
    return same_texts.lay_out("sst2", str(write_reviews(tmp_path / "data", 300, 450)), tmp_path / "drawn")


def rows(examples):
    return sorted((text["sentence"], int(label)) for text, label in zip(examples.texts, examples.labels, strict=True))


def test_the_texts_are_those_of_a_job_s_clients(place, tmp_path):
    for seed in (1, 2):
        texts = place.texts(seed)
        pool = load_split(load_task("sst2"), "train", str(tmp_path / "data"))
        train, validation = few_shot(pool.labels, 64, (0, 1), derive_seed(seed, "few-shot"))
        assert rows(texts.train) == rows(pool.take(train))
        assert rows(texts.validation) == rows(pool.take(validation))

        config = build(
            VerbalizerConfig, {"task_name": "sst2", "dataset": place.folder, "k_shot": 64, "seed": seed}
        )  # of one client that evaluates on all test texts
        clients = [
            load_data(config, ClientContext(name, same_texts.CLIENTS, tmp_path))[1] for name in same_texts.CLIENTS
        ]
        assert rows(texts.train) == sorted(row for client in clients for row in rows(client.train))
        assert rows(texts.test) == rows(clients[0].test)


def test_test_texts_are_drawn_once_for_all_seeds(place, tmp_path):
    first, second = (place.texts(seed).test for seed in (1, 2))
    assert len(first) == same_texts.N_TEST < 450
    assert rows(first) == rows(second)
    every = rows(load_split(load_task("sst2"), "test", str(tmp_path / "data")))
    assert all(every.count(row) >= rows(first).count(row) for row in rows(first))


def test_a_probe_learns_from_an_embedding_that_tells_the_classes(place):
    pytest.importorskip("sklearn")
    label_of = dict(rows(place.texts(1).train) + rows(place.texts(1).validation) + rows(place.texts(1).test))

    def embed(texts):
        return np.array([[1.0, 2.0 * label_of[text] - 1] for text in texts])

    (run,) = minilm.linear_probes(place, [1], embed)
    assert (run["accuracy"], run["validation_accuracy"], run["labels"]) == (1.0, 1.0, 256)
    assert run["settings"]["C"] == max(minilm.STRENGTHS)  # all are correct: the most certain one has the least loss


@pytest.mark.slow
def test_a_verbalizer_job_and_what_comes_of_its_passes(roberta, place):
    by_method = {run["method"]: run for run in baselines.verbalizers(place, [1], str(roberta))}
    assert list(by_method) == ["zero_shot", "calibrated", "verbalizer"]
    assert [run["labels"] for run in by_method.values()] == [0, 0, 256]
    # one template: 64 + 64 texts of two classes, and three that say nothing at each of four clients
    assert [run["example_forwards"] for run in by_method.values()] == [0, 128, 256 + 4 * 3]


@pytest.mark.slow
def test_a_whole_job_on_the_same_labels(tmp_path, place):
    model = save_tiny_model("roberta", tmp_path / "model", num_hidden_layers=2)
    [run] = baselines.METHODS["lora"](place, [1], str(model))
    assert (run["method"], run["labels"]) == ("lora", 256)
    assert run["example_forwards"] == 5 * 2 * 128  # rounds, epochs, training texts of all clients
    assert list(run["by_round"]) == [0, 1, 2, 3, 4, 5]
    assert run["accuracy"] in run["by_round"].values()


def a_run(task, method, seed, accuracy, **more):
    about = {"n_test": 400, "labels": 256, "example_forwards": 2000, "memory_mib": 1500}
    told = {"machine": "one", "date": "2026-11-28"}
    return {"task": task, "method": method, "seed": seed, "accuracy": accuracy, **about, **told, **more}


def test_the_table_has_a_line_for_each_method_and_a_column_for_each_task():
    runs = [a_run("a", "verbalizer", seed, accuracy) for seed, accuracy in ((1, 0.7), (2, 0.8), (3, 0.9))]
    runs += [a_run("b", "verbalizer", 1, 0.5, labels=512), a_run("a", "zero_shot", 1, 0.25, labels=0)]
    lines = baselines.table(runs).splitlines()
    assert lines[0] == "|  | a | b | labels used | example-forwards | memory, MiB |"
    assert lines[2] == "| zero-shot (model and template alone) | 0.250 (1) | – | 0 | 2,000 | 1,500 |"
    assert lines[3] == "| learned verbalizer | 0.800 ± 0.100 | 0.500 (1) | 256 to 512 | 2,000 | 1,500 |"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(minilm.MODULES, "setfit", "no_such_module_here")
    with pytest.raises(UserError, match="setfit"):
        minilm.need_packages()


def test_each_run_is_kept_at_once_and_replaces_the_one_before(place, tmp_path, monkeypatch):
    def two_runs(place, seeds):
        for seed in seeds:
            yield {"method": "made_up", "seed": seed, "accuracy": seed / 10, "seconds": 0.0}
            written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["runs"]
            assert written[-1]["seed"] == seed

    monkeypatch.setitem(baselines.METHODS, "made_up", two_runs)
    for _ in range(2):
        baselines.run_and_keep("made_up", place, [1, 2], tmp_path / "out.json")
    runs = baselines.kept(tmp_path / "out.json")
    assert [(run["task"], run["n_test"], run["seed"]) for run in runs] == [("sst2", 400, 1), ("sst2", 400, 2)]
