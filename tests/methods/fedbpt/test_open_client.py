"""Clients of FedBPT with real models: what they open, and a sentence for what a user can correct."""

import json
from pathlib import Path

import numpy as np
import pytest

from flaretune.config.client_flags import read_client_config
from flaretune.config.flags import to_argv
from flaretune.errors import UserError
from flaretune.methods.base import ClientContext
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.fedbpt import open as fedbpt_open
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.distribution import Distribution, pack
from flaretune.methods.fedbpt.open import open_client
from tests.commands_for_tests import SRC
from tests.learnable import write_reviews

pytestmark = pytest.mark.usefixtures("models_read_once")

CLIENTS = ["site-1", "site-2", "site-3"]


@pytest.fixture(scope="module")
def folders(roberta, tmp_path_factory):
    data = write_reviews(tmp_path_factory.mktemp("client") / "data", n_train=90, n_test=31)
    return {"model_name": str(roberta), "dataset": str(data)}


def config(folders, **changes) -> FedBPTConfig:
    options = {**folders, "n_prompt_tokens": 3, "intrinsic_dim": 10, "k_shot": 9, "dtype": "float32", **changes}
    return FedBPTConfig(**options)


def opened(client_config: FedBPTConfig, name: str = "site-1"):
    return open_client(client_config, ClientContext(name, CLIENTS, Path("states") / name))


def initialized(client_config: FedBPTConfig, name: str = "site-1"):
    return opened(client_config, name).initialize()


def test_clients_get_disjoint_shares_of_the_few_shot_sets_and_the_test_set(folders):
    results = [initialized(config(folders, eval_clients="site-3,site-1"), name) for name in CLIENTS]
    assert sum(r.n_train for r in results) == 18
    assert sum(r.evaluation.n_validation for r in results) == 18
    sizes = [None if r.evaluation.test is None else r.evaluation.test[1] for r in results]
    assert sizes == [15, None, 16]  # 31 test texts, site-3 named first
    assert [r.zero_shot is None for r in results] == [False, True, False]
    assert all(r.settings == results[0].settings for r in results)
    json.dumps(results[0].settings)  # plain values: they travel, and go into the artifact


def test_settings_name_no_path_but_the_model_s(folders):
    told = json.dumps(initialized(config(folders)).settings)
    assert folders["dataset"] not in told
    assert folders["model_name"] in told


def test_a_client_s_own_file_is_used_whole_and_its_rest_is_its_test_data(folders, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text((Path(folders["dataset"]) / "train.csv").read_text(encoding="utf-8"), encoding="utf-8")
    result = initialized(config(folders, dataset="", data_path=str(own), k_shot=10))
    assert (result.n_train, result.evaluation.n_validation, result.evaluation.test[1]) == (20, 20, 50)


def test_perturbation_is_drawn_anew_each_round_and_the_same_for_equal_seeds(folders):
    def fitness(round_number):
        """Of where a search ends that has not moved: at the start, but for a thousandth."""
        client = opened(config(folders, perturb=1, local_iter=1, local_popsize=2))
        start = pack(Distribution(np.ones(10), 1e-12), "identity")
        return client.fit(FitRequest(round_number, start, {}, evaluate=False)).arrays["fitness"][0]

    first = fitness(1)
    assert first == fitness(1)
    assert abs(first - fitness(2)) > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_name": "sts2"}, "unknown task 'sts2'; did you mean 'sst2'"),
        ({"k_shot": 100}, "--k_shot 100: .* use at most 22"),
        ({"iid": 0, "alpha_dir": 0.001, "k_shot": 2}, "alpha"),
        ({"n_prompt_tokens": 500}, "n = 500"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"model_name": "./nowhere"}, "--model_name ./nowhere: there is no such folder"),
        ({"dataset": "./nowhere"}, "nowhere does not exist"),
        ({"init_prompt": ""}, "--init_prompt ''"),
        ({"eval_clients": "nobody"}, "--eval_clients nobody: none of these"),
    ],
)
def test_mistakes_are_named_in_one_sentence(folders, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        initialized(config(folders, **changes))
    assert "\n" not in str(caught.value)


def test_missing_column_and_long_label_word(folders, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text("text,label\nfine,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"train.csv has no column 'sentence'; its columns are .'text', 'label'."):
        opened(config(folders, dataset=str(data)))

    task = tmp_path / "task.toml"
    sst2 = (SRC / "flaretune" / "tasks" / "builtin" / "sst2.toml").read_text(encoding="utf-8")
    task.write_text(sst2.replace('"great"', '"wonderfully great"'), encoding="utf-8")
    with pytest.raises(UserError, match="wonderfully great"):
        opened(config(folders, task_file=str(task)))


@pytest.mark.parametrize("reference", ["", "${secret:file:PLACE}", "${secret:MY_TOKEN}"])
def test_the_model_server_s_token_is_read_at_the_client(reference, folders, tmp_path, monkeypatch):
    """By NVFlare's secret references; neither the job nor what is agreed on holds it."""
    (tmp_path / "token").write_text("s3cret\n", encoding="utf-8")
    monkeypatch.setenv("FLARETUNE_MODEL_SERVER_TOKEN" if not reference else "MY_TOKEN", "s3cret")
    place = reference.replace("PLACE", str(tmp_path / "token"))
    (tmp_path / "flaretune.toml").write_text(
        'model_server = "http://127.0.0.1:1"\nmodel_server_timeout = 7\n'
        f'model_server_token = "{place}"\ndataset = "{folders["dataset"]}"\n',
        encoding="utf-8",
    )
    got, sentences = read_client_config(FedBPTConfig, ["--k_shot", "9"], tmp_path / "flaretune.toml")
    asked = []

    def connect(_url, token, *_, **more):
        asked.append((token, more))
        raise ConnectionRefusedError

    monkeypatch.setattr(fedbpt_open, "open_remote_model", connect)
    with pytest.raises(ConnectionRefusedError):
        opened(got)
    assert asked == [("s3cret", {"quantize": "none", "patience": 7, "answer_seconds": 7})]
    assert "model_server_token" in FedBPTConfig.client_options
    assert "s3cret" not in " ".join([*sentences, *to_argv(got)])


def test_a_token_in_the_clear_is_refused_and_not_repeated(folders, monkeypatch):
    server = {"model_server": "http://127.0.0.1:1"}
    with pytest.raises(UserError, match="--model_server_token: must be a secret reference") as refused:
        config(folders, **server, model_server_token="s3cret")
    assert "s3cret" not in str(refused.value)
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(UserError, match=r"--model_server_token: .*'NOT_THERE' is not set"):
        opened(config(folders, **server, model_server_token="${secret:NOT_THERE}"))
