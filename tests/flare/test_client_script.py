"""What the scripts of all methods' clients share: texts, how they end, and what they record."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flaretune.config.options import defaults
from flaretune.engine.codec import read_clients
from flaretune.engine.worker import read
from flaretune.errors import UserError
from flaretune.methods.base import ClientContext
from flaretune.methods.client_data import evaluation_clients, load_data
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl import client as lpfl_client
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.message import Message, message, read_fields

SOURCE = Path(__file__).parents[2] / "src"
CLIENTS = ["site-1", "site-2", "site-3"]
N_TRAIN, N_TEST = 120, 31


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set in which no two texts are the same, so that shares can be told apart."""
    folder = tmp_path_factory.mktemp("client_script")
    for name, n in (("train", N_TRAIN), ("validation", N_TEST)):
        rows = [f"a warm film number {i} of {name},{i % 2}" for i in range(n)]
        (folder / f"{name}.csv").write_text("\n".join(["sentence,label", *rows]) + "\n", encoding="utf-8")
    return folder


def context(name, clients=CLIENTS):
    return ClientContext(name, clients, Path("unused"))


def parts_of(found):
    parts = (found.train, found.validation, found.unlabelled, found.test)
    return [part for part in parts if part is not None]


@pytest.mark.parametrize("iid", [1, 0])
def test_no_text_is_given_to_two_clients_or_for_two_purposes(data, iid):
    config = LPFLConfig(dataset=str(data), k_shot=12, unlabelled=48, iid=iid, alpha_dir=5.0, eval_clients="all")
    found = [load_data(config, context(name), unlabelled=48)[1] for name in CLIENTS]
    texts = [row["sentence"] for one in found for part in parts_of(one) for row in part.texts]
    assert len(texts) == 24 + 24 + 48 + N_TEST
    assert len(set(texts)) == len(texts)
    assert sum(len(one.train) for one in found) == 24
    assert sum(len(one.unlabelled) for one in found) == 48


def test_a_client_with_unlabelled_texts_of_its_own_tests_on_no_text_that_others_train_on(data, tmp_path, monkeypatch):
    """One file has all: test data is what is left of it."""
    opened = []
    texts_alone = SimpleNamespace(label_model=SimpleNamespace(encode=lambda texts: texts), without_tokenizer=str)
    monkeypatch.setattr(lpfl_client, "open_tuned_model", lambda *_, **__: texts_alone)
    monkeypatch.setattr(lpfl_client, "LPFLClient", lambda _config, _context, _tuned, texts: opened.append(texts))
    (tmp_path / "own.csv").write_text("sentence\nmine\n", encoding="utf-8")
    for name, own in (("site-1", str(tmp_path / "own.csv")), ("site-2", "")):
        config = LPFLConfig(
            dataset=str(data / "train.csv"), k_shot=6, unlabelled=20, eval_clients="all", unlabelled_path=own
        )
        lpfl_client.open_client(config, context(name, CLIENTS[:2]))
    first, second = ({name: {row["sentence"] for row in part} for name, part in
        (("test", found.test.texts), ("unlabelled", found.pool))} for found in opened)  # fmt: skip
    assert len(first["test"] | second["test"]) == len(first["test"]) + len(second["test"])
    assert second["unlabelled"]
    assert not first["test"] & second["unlabelled"]


def test_a_client_that_is_named_twice_evaluates_its_part_of_the_test_data_once():
    assert evaluation_clients("site-2, site-2,site-1", CLIENTS) == ["site-2", "site-1"]


def test_a_client_s_own_file_is_its_own(data):
    config = FedBPTConfig(data_path=str(data / "train.csv"), k_shot=10)
    spec, found = load_data(config, context("site-1"), unlabelled=30)
    assert spec.name == "sst2"
    assert [len(part) for part in parts_of(found)] == [20, 20, 30, N_TRAIN - 70]
    _, found = load_data(config, context("site-2"))  # the first client alone evaluates
    assert (len(found.train), len(found.unlabelled), found.test) == (20, 0, None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task_name": "sts2"}, "unknown task 'sts2'; did you mean 'sst2'"),
        ({"device": "cuda:7", "dataset": "./nowhere"}, "--device cuda:7"),  # said before data is looked for
        ({"eval_clients": "nobody", "dataset": "./nowhere"}, "--eval_clients nobody: none of these"),
        ({"dataset": "./nowhere"}, "nowhere does not exist"),
    ],
)
@pytest.mark.parametrize("make", [FedBPTConfig, lambda **options: LPFLConfig(soft_labels="off", **options)])
def test_what_is_wrong_is_said_in_the_same_words_for_all_methods(data, make, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        load_data(make(**{"dataset": str(data), **changes}), context("site-1"))


def test_what_differs_from_client_to_client_are_options_of_all_methods():
    for config in (FedBPTConfig, LPFLConfig):
        assert set(config.client_options) <= set(defaults(config))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("first", ["site-1"]), ("all", CLIENTS), ("site-2", ["site-2"]), ("site-3, site-1", ["site-3", "site-1"])],
)
def test_evaluation_clients(wanted, expected):
    assert evaluation_clients(wanted, CLIENTS) == expected


def test_evaluation_clients_that_are_not_in_the_job(caplog):
    assert evaluation_clients("site-9,site-2", CLIENTS) == ["site-2"]
    assert "site-9 not in this job, whose clients are site-1, site-2, site-3" in caplog.text
    with pytest.raises(UserError, match=r"--eval_clients site-9: none of these is a client of this job \(site-1"):
        evaluation_clients("site-9", CLIENTS)


def test_a_message_of_another_version_is_a_sentence():
    with pytest.raises(UserError, match=r"message schema 99, expected 4.*server and clients need the same version"):
        read(read_clients, Message({}, {**message({}, {"clients": CLIENTS}).fields, "schema": 99}))


def test_a_message_without_what_is_looked_for_is_a_sentence():
    with pytest.raises(UserError, match=r"cannot be read \(.*'clients'\)\): server and clients need the same version"):
        read(read_clients, message({}, {}))
    assert read_fields(message({}, {})) == {"schema": 4}


RUN = """
import sys
from flaretune.flare import client_script

def serve(method, config):
    raise {error}

client_script._serve = serve  # where NVFlare would be asked for tasks
client_script.main("{method}", sys.argv[1:])
print("never reached")
"""


def run_script(method, error, folder, *flags):
    """Run ward-7's script, whose work ends with an error; returns the process and what it recorded."""
    (folder := folder / "app_ward-7").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(method=method, error=error), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
    )
    file = folder / "flaretune" / "errors.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return done, [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "sentence", "traceback"),
    [
        ("client_script.UserError('no such model')", "no such model", False),
        ("FloatingPointError('the loss became nan')", "the loss became nan", False),
        ("__import__('torch').OutOfMemoryError('no more')", "there is not enough memory (no more): a smaller", False),
        ("ModuleNotFoundError('no', name='torch.nn')", "the package torch is not installed: this takes all of", False),
        ("KeyError('x')", "unexpected KeyError: 'x'", True),
        ("KeyboardInterrupt()", "unexpected KeyboardInterrupt: ", True),
    ],
)
def test_script_fails_with_a_sentence_and_only_what_is_unexpected_with_a_traceback(
    error, sentence, traceback, tmp_path
):
    done, recorded = run_script("fedbpt", error, tmp_path)
    assert done.returncode == 1
    assert f"ERROR flaretune.client: {sentence}" in done.stdout
    assert ("Traceback" in done.stdout) == traceback
    assert "never reached" not in done.stdout
    [failure] = recorded
    assert failure["who"] == "ward-7"
    assert failure["sentence"].startswith(sentence)


@pytest.mark.parametrize(
    ("method", "flags", "status"),
    [("fedbpt", ["--parallel"], 1), ("lpfl", ["--soft_labels", "off", "--parallel"], 2)],
)
def test_script_warns_of_published_options_without_effect_where_the_method_has_them(method, flags, status, tmp_path):
    """Elsewhere they are unknown, which is recorded too."""
    done, [failure] = run_script(method, "client_script.UserError('enough')", tmp_path, *flags)
    assert done.returncode == status
    warned = "WARNING flaretune.client: --parallel has no effect" in done.stdout
    assert warned == (method == "fedbpt")
    assert failure["sentence"].startswith("enough" if warned else "unrecognized arguments: --parallel")


def test_help_is_no_failure(tmp_path):
    done, recorded = run_script("lpfl", "client_script.UserError('enough')", tmp_path, "--help")
    assert (done.returncode, recorded) == (0, [])


@pytest.mark.parametrize(
    ("script", "flags"),
    [("fedbpt_train.py", []), ("lpfl_train.py", ["--soft_labels", "off"]), ("verbalizer_train.py", [])],
)
def test_scripts_end_at_once_with_a_sentence_and_a_failing_status(script, flags):
    argv = [sys.executable, SOURCE / script, *flags, "--k_shot", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "ERROR flaretune.client: --k_shot 0: must be at least 1\n")
    assert done.stderr == ""
