"""The script of FedBPT's sites: what it sets up, and a sentence and exit status 1 for what a user can correct."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flaretune.flare.fedbpt_client import set_up

from flaretune.config.client_flags import parse_site_flags
from flaretune.config.options import to_argv
from flaretune.errors import UserError
from flaretune.flare import fedbpt_client
from flaretune.methods.fedbpt.config import FedBPTConfig
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model
from tests.tasks_for_tests import review_task

SCRIPT = Path(__file__).parents[2] / "src" / "fedbpt_train.py"
SITES = ["site-1", "site-2", "site-3"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    return {
        "model_name": str(save_tiny_model("roberta", folder / "roberta")),
        "dataset": str(write_reviews(folder / "data", n_train=90, n_test=31)),
    }


def config(folders, **changes) -> FedBPTConfig:
    options = {**folders, "n_prompt_tokens": 3, "intrinsic_dim": 10, "k_shot": 9, "dtype": "float32", **changes}
    return FedBPTConfig(**options)


def test_sites_get_disjoint_shares_of_the_few_shot_sets_and_the_test_set(folders):
    answers = [set_up(config(folders, eval_clients="site-3,site-1"), name, SITES)[1] for name in SITES]
    assert sum(a.n_train for a in answers) == 18
    assert sum(a.evaluation.n_validation for a in answers) == 18
    sizes = [None if a.evaluation.test is None else a.evaluation.test[1] for a in answers]
    assert sizes == [15, None, 16]  # 31 test texts, site-3 named first
    assert [a.zero_shot is None for a in answers] == [False, True, False]
    assert all(a.settings == answers[0].settings for a in answers)
    json.dumps(answers[0].settings)  # plain values: they travel, and go into the artifact


def test_settings_name_no_path_but_the_model_s(folders):
    told = json.dumps(set_up(config(folders), "site-1", SITES)[1].settings)
    assert folders["dataset"] not in told
    assert folders["model_name"] in told


def test_a_site_s_own_file_is_used_whole_and_its_rest_is_its_test_data(folders, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text((Path(folders["dataset"]) / "train.csv").read_text(encoding="utf-8"), encoding="utf-8")
    _, answer = set_up(config(folders, dataset="", data_path=str(own), k_shot=10), "site-1", SITES)
    assert (answer.n_train, answer.evaluation.n_validation, answer.evaluation.test[1]) == (20, 20, 50)


def test_perturbation_is_drawn_anew_each_round_and_the_same_for_equal_seeds(folders):
    def fitness(round_number):
        site, _ = set_up(config(folders, perturb=1), "site-1", SITES)
        return site._objective(round_number)(np.ones((1, 10)))[0]

    assert fitness(1) == fitness(1)
    assert fitness(1) != fitness(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_name": "sts2"}, "unknown task 'sts2'; did you mean 'sst2'"),
        ({"k_shot": 100}, "k = 100 .* the largest k that fits is 22"),
        ({"iid": 0, "alpha_dir": 0.001, "k_shot": 2}, "alpha"),
        ({"n_prompt_tokens": 500}, "n = 500"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"model_name": "./nowhere"}, "--model_name ./nowhere: there is no such folder"),
        ({"dataset": "./nowhere"}, "nowhere does not exist"),
        ({"init_prompt": ""}, "--init_prompt ''"),
        ({"eval_clients": "nobody"}, "--eval_clients nobody: none of these"),
    ],
)
def test_mistakes_are_answered_with_one_sentence(folders, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        set_up(config(folders, **changes), "site-1", SITES)
    assert "\n" not in str(caught.value)


def test_missing_column_and_long_label_word(folders, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text("text,label\nfine,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"train.csv has no column 'sentence'; its columns are .'text', 'label'."):
        set_up(config(folders, dataset=str(data)), "site-1", SITES)

    task = tmp_path / "task.toml"
    sst2 = (SCRIPT.parent / "flaretune" / "tasks" / "sst2.toml").read_text(encoding="utf-8")
    task.write_text(sst2.replace('"great"', '"wonderfully great"'), encoding="utf-8")
    with pytest.raises(UserError, match="wonderfully great"):
        set_up(config(folders, task_file=str(task)), "site-1", SITES)


def test_llama_causal_0_is_refused_for_llama_and_means_nothing_to_others(folders, tmp_path):
    assert set_up(config(folders, llama_causal=0), "site-1", SITES)[1].n_train > 0
    llama = str(save_tiny_model("llama", tmp_path / "llama"))
    with pytest.raises(UserError, match="--llama_causal 0: LLaMA answers as a causal"):
        set_up(config(folders, model_name=llama, llama_causal=0), "site-1", SITES)


@pytest.mark.parametrize("reference", ["", "${secret:file:PLACE}", "${secret:MY_TOKEN}"])
def test_the_service_s_token_is_read_at_the_site(reference, tmp_path, monkeypatch):
    """By NVFlare's secret references; neither the job nor what is agreed on holds it."""
    (tmp_path / "token").write_text("s3cret\n", encoding="utf-8")
    monkeypatch.setenv("FLARETUNE_LM_TOKEN" if not reference else "MY_TOKEN", "s3cret")
    place = reference.replace("PLACE", str(tmp_path / "token"))
    (tmp_path / "flaretune.toml").write_text(
        f'lm = "http://127.0.0.1:1"\nlm_timeout = 7\nlm_token = "{place}"\n', encoding="utf-8"
    )
    got, sentences = parse_site_flags(FedBPTConfig, [], tmp_path / "flaretune.toml")
    asked = []
    monkeypatch.setattr(fedbpt_client, "open_remote_model", lambda url, token, *_, **more: asked.append((token, more)))
    fedbpt_client._open_model(got, review_task())
    assert asked == [("s3cret", {"answer_seconds": 7})]
    assert "lm_token" in FedBPTConfig.local_options
    assert "s3cret" not in " ".join([*sentences, *to_argv(got)])


def test_a_token_in_the_clear_is_refused_and_not_repeated(monkeypatch):
    with pytest.raises(UserError, match="--lm_token: must be a secret reference") as refused:
        FedBPTConfig(lm="http://127.0.0.1:1", lm_token="s3cret")
    assert "s3cret" not in str(refused.value)
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(UserError, match=r"--lm_token: .*'NOT_THERE' is not set on this site"):
        fedbpt_client._open_model(FedBPTConfig(lm="http://127.0.0.1:1", lm_token="${secret:NOT_THERE}"), review_task())


@pytest.mark.parametrize(
    ("flags", "status", "sentence"),
    [
        (["--intrinsic_dim", "0"], 1, "--intrinsic_dim 0: must be at least 1"),
        (["--inference_framework", "ort"], 1, "--inference_framework ort: ONNX runtime is not supported"),
        (["--intrinsic_dims", "5"], 2, "unrecognized arguments: --intrinsic_dims"),
    ],
)
def test_script_ends_at_once_with_a_sentence_and_a_failing_status(flags, status, sentence):
    run = subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, timeout=60)
    assert run.returncode == status
    assert sentence in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
