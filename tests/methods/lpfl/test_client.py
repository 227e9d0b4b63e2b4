"""LP-FL's clients: what they are initialized with, what they reply, and a sentence for what a user can correct."""

import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.engine.worker import Worker
from flaretune.errors import UserError
from flaretune.methods.base import ClientContext
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.lpfl.client import open_client
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.registry import find_method
from flaretune.models import tuned
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model

pytestmark = pytest.mark.usefixtures("models_read_once")

CLIENTS = ["site-1", "site-2", "site-3"]
FAMILIES = ["roberta", "llama"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpfl_client")
    models = {family: str(save_tiny_model(family, folder / family)) for family in FAMILIES}
    return {**models, "data": str(write_reviews(folder / "data", n_train=90, n_test=31))}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Where a client keeps the state of its soft labels."""
    monkeypatch.chdir(tmp_path)


def config(folders, family="roberta", **changes) -> LPFLConfig:
    options = {
        "model_name": folders[family],
        "dataset": folders["data"],
        "k_shot": 9,
        "unlabelled": 30,
        "lora_rank": 2,
        "local_epochs": 1,
        "local_steps": 2,
        "dtype": "float32",
    }
    return LPFLConfig(**{**options, **changes})


def opened(client_config: LPFLConfig, name: str):
    """A client, and what it reports when it is initialized."""
    client = open_client(client_config, ClientContext(name, CLIENTS, Path("states") / name))
    return client, client.initialize()


def fit(client, arrays, round_number: int):
    return client.fit(FitRequest(round_number, arrays, {}, evaluate=False))


def initialized(client_config: LPFLConfig):
    return [opened(client_config, name)[1] for name in CLIENTS]


@pytest.mark.parametrize("family", FAMILIES)
def test_clients_share_the_data_out_and_agree_on_all_the_rest(folders, family):
    got = initialized(config(folders, family, eval_clients="site-3,site-1"))
    assert sum(a.n_train for a in got) == 18
    assert sum(a.evaluation.n_validation for a in got) == 18
    tests = [a.evaluation.test for a in got]
    assert [None if test is None else test[1] for test in tests] == [15, None, 16]  # 31 test texts, site-3 named first
    for a in got:  # a new adapter leaves the model as it is
        np.testing.assert_array_equal(a.zero_shot, a.evaluation.test)
    assert all(a.settings == got[0].settings for a in got)
    settings = got[0].settings
    assert json.loads(json.dumps(settings)) == settings  # plain values: they travel, and go into the artifact
    assert settings["method"] == "LP-FL"
    assert settings["model"]["kind"] == {"roberta": "masked", "llama": "causal"}[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_initial_adapter_is_the_same_at_all_clients_and_adds_nothing(folders, family):
    first, *others = initialized(config(folders, family))
    layers = {name.split(".lora_")[0] for name in first.arrays}
    # query and value in both layers: PEFT's choice for both families
    assert sorted(layer.rsplit(".", 1)[1] for layer in layers) == sorted(
        {"roberta": ["query", "value"], "llama": ["q_proj", "v_proj"]}[family] * 2
    )
    for layer in layers:
        a, b = first.arrays[f"{layer}.lora_A.weight"], first.arrays[f"{layer}.lora_B.weight"]
        assert (a.dtype, b.dtype) == (np.float32, np.float32)
        assert a.shape == (2, 32)
        assert b.shape == (16 if family == "llama" and layer.endswith("v_proj") else 32, 2)
        assert np.all(a != 0)
        assert np.all(b == 0)
    assert len(first.arrays) == 2 * len(layers)
    for other in others:
        assert other.arrays.keys() == first.arrays.keys()
        for name, values in first.arrays.items():
            np.testing.assert_array_equal(other.arrays[name], values)
    _, another = opened(config(folders, family, seed=43), "site-1")
    assert all(
        np.array_equal(another.arrays[name], values) == (".lora_B." in name) for name, values in first.arrays.items()
    )


@pytest.mark.parametrize(
    ("changes", "initial", "parameters"),
    [({}, "AB", "AB"), ({"subspace_dim": 5}, "AB", "theta"), ({"tuning": "full"}, "", "model")],
)
def test_settings_say_what_is_there_at_the_start_and_what_travels(folders, changes, initial, parameters):
    start = opened(config(folders, **changes), "site-1")[1]
    settings = start.settings
    assert settings["initial"] == {name: list(values.shape) for name, values in start.arrays.items()}
    assert {name.split(".lora_")[1][0] for name in start.arrays} == set(initial)
    if parameters == "model":
        assert settings["adapter"] == {}
        assert not [name for name in settings["parameters"] if "lora" in name]
        assert sum(int(np.prod(shape)) for shape in settings["parameters"].values()) > 20_000
    else:
        told = {"theta": [5]} if parameters == "theta" else settings["initial"]
        assert settings["parameters"] == told
        assert settings["adapter"]["r"] == 2


@pytest.mark.parametrize("changes", [{}, {"tuning": "full"}])
def test_settings_name_no_path_but_the_model_s(folders, tmp_path, changes):
    own = tmp_path / "own.csv"
    own.write_text((Path(folders["data"]) / "train.csv").read_text(encoding="utf-8"), encoding="utf-8")
    paths = {"dataset": "", "data_path": str(own), "unlabelled_path": str(own)}
    settings = opened(config(folders, **paths, **changes), "site-1")[1].settings
    told = json.dumps(settings)
    assert "own.csv" not in told
    assert str(tmp_path) not in told
    assert settings["model"]["name"] == folders["roberta"]
    assert folders["roberta"] not in json.dumps({**settings, "model": None})  # which may differ from client to client


def test_a_client_s_own_files_are_used_whole_and_its_rest_is_its_test_data(folders, tmp_path):
    rows = (Path(folders["data"]) / "train.csv").read_text(encoding="utf-8").splitlines()
    pool = tmp_path / "pool.csv"
    pool.write_text("\n".join(["sentence", *(row.rsplit(",", 1)[0] for row in rows[1:41])]) + "\n", encoding="utf-8")
    own = {"dataset": "", "data_path": f"{folders['data']}/train.csv", "k_shot": 10}
    soft = {"soft_portion": 0.5, "soft_select": "order"}
    for changes, n_test, n_soft in (
        ({"unlabelled": 20}, 30, 10),  # of the 90 rows 40 are labelled and 20 lose their labels
        ({"unlabelled_path": str(pool)}, 50, 20),
    ):
        client, start = opened(config(folders, **{**own, "unlabelled": 0, **soft, **changes}), "site-1")
        assert (start.n_train, start.evaluation.n_validation) == (20, 20)
        assert start.evaluation.test[1] == n_test
        trained = fit(client, start.arrays, 2)
        assert (trained.numbers["labelled"], trained.numbers["soft_labelled"]) == (20, n_soft)
        # nobody knows the labels of a real pool
        assert ("soft_labels_correct" not in trained.numbers) == ("unlabelled_path" in changes)


@pytest.mark.parametrize("iid", [1, 0])
def test_the_unlabelled_texts_are_shared_out_too(folders, iid):
    client_config = config(folders, soft_portion=1.0, iid=iid, alpha_dir=5.0)
    found = [opened(client_config, name) for name in CLIENTS]
    trained = [fit(client, start.arrays, 2) for client, start in found]
    assert [t.numbers["labelled"] for t in trained] == [start.n_train for _, start in found]
    assert sum(t.numbers["soft_labelled"] for t in trained) == 30
    assert all(
        0 <= t.numbers["soft_labels_correct"] <= t.numbers["soft_labelled"]
        for t in trained
        if t.numbers["soft_labelled"]
    )


def test_soft_labels_off_learns_from_the_same_labelled_texts_alone(folders):
    client, start = opened(config(folders, soft_labels="off"), "site-1")
    trained = fit(client, start.arrays, 2)
    assert {**trained.numbers, "loss": 0} == {"labelled": start.n_train, "soft_labelled": 0, "loss": 0}


# ---- the server's tasks ----


def test_a_client_keeps_no_tokenizer_once_its_texts_are_encoded(folders, monkeypatch):
    """That of a large vocabulary takes a tenth of what a client may take."""
    loaded, load = [], tuned.load_pretrained

    def watched(*how):
        pretrained = load(*how)
        loaded.append(weakref.ref(pretrained.tokenizer))
        return pretrained

    monkeypatch.setattr(tuned, "load_pretrained", watched)
    client, _ = opened(config(folders), "site-1")
    gc.collect()
    assert [reference() for reference in loaded] == [None]
    assert client.tuned.label_model.example_forwards > 0


COMMON = codec.task(CLIENTS, "", 0, None)


class Started:
    """A client's process, behind messages."""

    def __init__(self, client_config: LPFLConfig):
        self._worker = Worker(find_method("lpfl"), client_config, "site-1", Path("states"), Path("runs"))

    def initialize(self):
        reply = self._worker(codec.INITIALIZE, codec.initialize_message(COMMON, 3))
        return codec.read_initialize_reply(reply, find_method("lpfl"))

    def fit(self, arrays, round_number: int, counts=None):
        request = FitRequest(round_number, arrays, {}, evaluate=counts is not None)
        return codec.read_fit_reply(self._worker(codec.FIT, codec.fit_message(COMMON, request)), counts)

    def evaluate(self, arrays, counts):
        reply = self._worker(codec.EVALUATE, codec.evaluate_message(COMMON, 2, arrays))
        return codec.read_evaluate_reply(reply, counts)


def trained_part(start) -> dict[str, np.ndarray]:
    numbers = np.zeros(start.settings["options"]["subspace_dim"], np.float16)  # that stand for B
    there = {**start.arrays, "theta": numbers}
    return {name: values for name, values in there.items() if name in start.settings["parameters"]}


@pytest.mark.parametrize(
    ("family", "changes"), [("roberta", {}), ("llama", {"subspace_dim": 5}), ("roberta", {"tuning": "full"})]
)
def test_tasks_are_handled_and_only_what_is_trained_is_sent(folders, family, changes):
    process = Started(config(folders, family, **changes))
    start = process.initialize()
    trained = process.fit(trained_part(start), 1)
    assert trained.arrays.keys() == start.settings["parameters"].keys()
    assert any(not np.array_equal(values, start.arrays.get(name)) for name, values in trained.arrays.items())
    assert (trained.numbers["labelled"], trained.numbers["soft_labelled"]) == (start.n_train, 0)
    assert np.isfinite(trained.numbers["loss"])

    task = start.settings["task"]
    again = process.fit(trained.arrays, 2, task)
    assert again.evaluation.n_validation == start.evaluation.n_validation
    assert again.numbers["soft_labelled"] > 0

    evaluated = process.evaluate(trained.arrays, task).evaluation
    np.testing.assert_array_equal(evaluated.test, again.evaluation.test)
    np.testing.assert_array_equal(evaluated.validation, again.evaluation.validation)
    assert evaluated.validation_loss_sum == again.evaluation.validation_loss_sum


@pytest.mark.parametrize("changes", [{}, {"subspace_dim": 5}, {"tuning": "full"}])
def test_a_process_that_is_started_anew_works_as_the_first_one_would(folders, changes):
    """As the simulator does with fewer threads than clients."""
    first = Started(config(folders, **changes))
    arrays = trained_part(first.initialize())
    for round_number in (1, 2):
        arrays = first.fit(arrays, round_number).arrays
    expected = first.fit(arrays, 3)
    for file in Path("states").rglob("*_00003.safetensors"):  # as it was when the second process takes over
        file.unlink()
    got = Started(config(folders, **changes)).fit(arrays, 3)
    assert got.numbers == expected.numbers
    for name, values in expected.arrays.items():
        np.testing.assert_array_equal(got.arrays[name], values)


def test_a_new_job_in_the_same_folder_begins_with_no_soft_labels(folders):
    first = Started(config(folders))
    first.fit(trained_part(first.initialize()), 2)
    assert [file.name for file in Path("states").rglob("*.safetensors")] == ["soft_labels_00002.safetensors"]
    Started(config(folders)).initialize()
    assert not list(Path("states").rglob("*.safetensors"))


# ---- mistakes ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_name": "sts2"}, "unknown task 'sts2'; did you mean 'sst2'"),
        ({"k_shot": 100}, "--k_shot 100: .* use at most 22"),
        ({"unlabelled": 55}, r"--unlabelled 55: besides training and validation examples .* has 54 texts"),
        ({"unlabelled_path": "./nowhere.csv"}, r"nowhere\.csv does not exist"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"model_name": "./nowhere"}, "--model_name ./nowhere: there is no such folder"),
        ({"dataset": "./nowhere"}, "nowhere does not exist"),
        ({"eval_clients": "nobody"}, "--eval_clients nobody: none of these"),
        (
            {"target_modules": "q_proj"},
            "--target_modules q_proj: no layer of this model has that name; there are dense, key, query, value$",
        ),
        ({"target_modules": "query,querry"}, "--target_modules querry: no layer .*there are dense, key, query, value$"),
        ({"target_modules": "decoder"}, "--target_modules decoder: no layer"),  # the head gets none
        ({"target_modules": " , "}, "--target_modules ' , ' names nothing; there are dense, key, query, value, auto"),
    ],
)
def test_mistakes_are_answered_with_one_sentence(folders, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        opened(config(folders, **changes), "site-1")
    assert "\n" not in str(caught.value)


def test_layers_of_a_causal_model_are_named(folders):
    with pytest.raises(UserError) as caught:
        opened(config(folders, "llama", target_modules="query"), "site-1")
    assert str(caught.value) == (
        "--target_modules query: no layer of this model has that name; "
        "there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    )


def test_missing_column_of_the_unlabelled_file(folders, tmp_path):
    (tmp_path / "pool.csv").write_text("text,label\nfine,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"pool\.csv has no column 'sentence'; its columns are .'text', 'label'."):
        opened(config(folders, unlabelled_path="pool.csv"), "site-1")
