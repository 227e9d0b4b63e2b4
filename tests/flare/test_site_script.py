"""What the scripts of both methods' sites share."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from flaretune.flare.site_script import evaluation_sites, load_data, read_task

from flaretune.config.options import defaults
from flaretune.errors import UserError
from flaretune.flare import lpfl_client, messages
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.config import LPFLConfig

SOURCE = Path(__file__).parents[2] / "src"
SITES = ["site-1", "site-2", "site-3"]
N_TRAIN, N_TEST = 120, 31


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set in which no two texts are the same, so that shares can be told apart."""
    folder = tmp_path_factory.mktemp("site_script")
    for name, n in (("train", N_TRAIN), ("validation", N_TEST)):
        rows = [f"a warm film number {i} of {name},{i % 2}" for i in range(n)]
        (folder / f"{name}.csv").write_text("\n".join(["sentence,label", *rows]) + "\n", encoding="utf-8")
    return folder


def parts_of(site_data):
    return [part for part in (site_data.train, site_data.dev, site_data.unlabelled, site_data.test) if part is not None]


@pytest.mark.parametrize("iid", [1, 0])
def test_no_text_is_given_to_two_sites_or_for_two_purposes(data, iid):
    config = LPFLConfig(dataset=str(data), k_shot=12, unlabelled=48, iid=iid, alpha_dir=5.0, eval_clients="all")
    found = [load_data(config, name, SITES, unlabelled=48)[1] for name in SITES]
    texts = [row["sentence"] for site_data in found for part in parts_of(site_data) for row in part.texts]
    assert len(texts) == 24 + 24 + 48 + N_TEST
    assert len(set(texts)) == len(texts)
    assert sum(len(site_data.train) for site_data in found) == 24
    assert sum(len(site_data.unlabelled) for site_data in found) == 48


def test_a_site_with_unlabelled_texts_of_its_own_tests_on_no_text_that_others_train_on(data, tmp_path, monkeypatch):
    """One file has all: test data is what is left of it."""
    opened = []
    monkeypatch.setattr("flaretune.models.tuned.open_tuned_model", lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr(lpfl_client, "site_on", lambda config, name, spec, found, *_: opened.append(found))
    (tmp_path / "own.csv").write_text("sentence\nmine\n", encoding="utf-8")
    for name, own in (("site-1", str(tmp_path / "own.csv")), ("site-2", "")):
        config = LPFLConfig(
            dataset=str(data / "train.csv"), k_shot=6, unlabelled=20, eval_clients="all", unlabelled_path=own
        )
        lpfl_client.open_site(config, name, SITES[:2])
    first, second = ({name: {row["sentence"] for row in part.texts} for name, part in
        (("test", found.test), ("unlabelled", found.unlabelled))} for found in opened)  # fmt: skip
    assert len(first["test"] | second["test"]) == len(first["test"]) + len(second["test"])
    assert second["unlabelled"]
    assert not first["test"] & second["unlabelled"]


def test_a_site_that_is_named_twice_evaluates_its_part_of_the_test_data_once():
    assert evaluation_sites("site-2, site-2,site-1", SITES) == ["site-2", "site-1"]


def test_a_site_s_own_file_is_its_own(data):
    config = FedBPTConfig(data_path=str(data / "train.csv"), k_shot=10)
    spec, found = load_data(config, "site-1", SITES, unlabelled=30)
    assert spec.name == "sst2"
    assert [len(part) for part in parts_of(found)] == [20, 20, 30, N_TRAIN - 70]
    _, found = load_data(config, "site-2", SITES)  # the first site alone evaluates
    assert (len(found.train), len(found.unlabelled), found.test) == (20, 0, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_name": "sts2"}, "unknown task 'sts2'; did you mean 'sst2'"),
        ({"device": "cuda:7", "dataset": "./nowhere"}, "--device cuda:7"),  # said before data is looked for
        ({"eval_clients": "nobody", "dataset": "./nowhere"}, "--eval_clients nobody: none of these"),
        ({"dataset": "./nowhere"}, "nowhere does not exist"),
    ],
)
@pytest.mark.parametrize("make", [FedBPTConfig, lambda **options: LPFLConfig(soft_labels="off", **options)])
def test_what_is_wrong_is_said_in_the_same_words_for_both_methods(data, make, changes, message):
    with pytest.raises(UserError, match=message):
        load_data(make(**{"dataset": str(data), **changes}), "site-1", SITES)


def test_what_differs_from_site_to_site_are_options_of_both_methods():
    for config in (FedBPTConfig, LPFLConfig):
        assert set(config.client_options) <= set(defaults(config))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("first", ["site-1"]), ("all", SITES), ("site-2", ["site-2"]), ("site-3, site-1", ["site-3", "site-1"])],
)
def test_evaluation_sites(wanted, expected):
    assert evaluation_sites(wanted, SITES) == expected


def test_evaluation_sites_that_are_not_in_the_job(caplog):
    assert evaluation_sites("site-9,site-2", SITES) == ["site-2"]
    assert "site-9 not in this job, whose sites are site-1, site-2, site-3" in caplog.text
    with pytest.raises(UserError, match=r"--eval_clients site-9: none of these is a site of this job \(site-1"):
        evaluation_sites("site-9", SITES)


def test_a_message_of_another_version_is_answered_with_a_sentence():
    message = messages.setup_task(SITES)
    message.meta["flaretune"]["schema"] = 99
    with pytest.raises(UserError, match=r"message schema 99, expected 3.*server and sites need the same version"):
        read_task(messages.read_sites, message)


def test_a_message_without_what_is_looked_for_is_answered_with_a_sentence():
    def read_round(message):
        return messages.read_meta(message)["round"]

    with pytest.raises(UserError, match=r"cannot be read \('round'\): server and sites need the same version"):
        read_task(read_round, messages.setup_task(SITES))


RUN = """
import sys
from flaretune.config.{config_module} import {config}
from flaretune.errors import UserError
from flaretune.flare.site_script import run_script

def tasks(config):
    raise {error}

run_script({config}, tasks, sys.argv[1:])
print("never reached")
"""


@pytest.mark.parametrize(
    ("error", "sentence", "traceback"),
    [
        ("UserError('no such model')", "ERROR flaretune.site: no such model", False),
        ("FloatingPointError('the loss became nan')", "ERROR flaretune.site: the loss became nan", False),
        (
            "__import__('torch').OutOfMemoryError('no more')",
            "ERROR flaretune.site: there is not enough memory (no more)",
            False,
        ),
        ("KeyError('x')", "ERROR flaretune.site: unexpected KeyError: 'x'", True),
        ("KeyboardInterrupt()", "ERROR flaretune.site: unexpected KeyboardInterrupt", True),
    ],
)
def test_script_fails_with_a_sentence_and_only_what_is_unexpected_with_a_traceback(error, sentence, traceback):
    code = RUN.format(config_module="fedbpt", config="FedBPTConfig", error=error)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=SOURCE)
    assert run.returncode == 1
    assert sentence in run.stdout
    assert ("Traceback" in run.stdout) == traceback
    assert "never reached" not in run.stdout


def test_script_warns_of_published_options_without_effect_where_the_method_has_them():
    for module, config, flags, status in (
        ("fedbpt", "FedBPTConfig", ["--parallel"], 1),
        ("lpfl", "LPFLConfig", ["--soft_labels", "off", "--parallel"], 2),
    ):
        code = RUN.format(config_module=module, config=config, error="UserError('enough')")
        run = subprocess.run(
            [sys.executable, "-c", code, *flags], capture_output=True, text=True, timeout=60, cwd=SOURCE
        )
        assert run.returncode == status
        warned = "WARNING flaretune.site: --parallel has no effect" in run.stdout
        assert warned == (module == "fedbpt")
