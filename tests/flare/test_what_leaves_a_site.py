"""Messages of real sites against docs/operations/privacy.md, and a search of their bytes for what must not be there."""

import numpy as np
import pytest
from flaretune.flare.fedbpt_client import FedBPTTasks
from flaretune.flare.fedbpt_controller import FedBPTController
from flaretune.flare.lpfl_client import LPFLTasks
from flaretune.flare.lpfl_controller import LPFLController
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import common_decomposers

from flaretune.flare import fedbpt_messages, lpfl_messages, messages
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.config import LPFLConfig
from tests.flare.federation import federate
from tests.flare.sending import serialised
from tests.flare.sites_with_secrets import fields_of, secrets_in, write_secret_reviews
from tests.models_for_tests import save_tiny_model
from tests.privacy.table import rows

DIM, N_COUNTS = 6, 2
SMALL = {
    "FedBPT": {"n_prompt_tokens": 3, "intrinsic_dim": DIM, "local_iter": 2},
    "LP-FL": {"lora_rank": 2, "local_epochs": 1, "local_steps": 2, "unlabelled": 12},
}
METHODS = list(SMALL)
ANSWERS = {messages.SETUP: "setup", fedbpt_messages.SEARCH: "search", lpfl_messages.TRAIN: "train"}
KINDS = {"whole number": int, "number": float, "text": str, "table": dict}
SHAPES = {"(c)": (N_COUNTS,), "(d)": (DIM,), "(k)": (2,), "(1)": (1,), "(2)": (2,)}


def run_job(method, files, model, folder, monkeypatch, rounds=2, **options):
    """A job of a site for each file; what its sites have answered."""
    monkeypatch.setenv("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")
    flare_decomposers.register()
    common_decomposers.register()
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)  # where sites keep their state
    common = {"model_name": model, "k_shot": 8, "dtype": "float32", "eval_clients": "north", **SMALL[method], **options}
    config, tasks = {"FedBPT": (FedBPTConfig, FedBPTTasks), "LP-FL": (LPFLConfig, LPFLTasks)}[method]
    sites = {name: tasks(config(**{"data_path": str(file), **common})) for name, file in files.items()}
    controller = {"FedBPT": FedBPTController, "LP-FL": LPFLController}[method](num_rounds=rounds)
    told = federate(controller, sites, folder / "results", monkeypatch)
    assert told.panics == []
    return told.answers


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    return {name: write_secret_reviews(folder, 90, seed) for seed, name in enumerate(("north", "south"), start=5)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model("roberta", tmp_path_factory.mktemp("model") / "roberta"))


@pytest.fixture(scope="module")
def answers(files, model, tmp_path_factory):
    """(method, with noise, site, task, message) of four jobs."""
    folder, found = tmp_path_factory.mktemp("jobs"), []
    with pytest.MonkeyPatch.context() as monkeypatch:
        for method in METHODS:
            for noise in (0.0, 2.0):
                prior = {} if noise else {"calibrate": "batch"}
                job = run_job(method, files, model, folder / f"{method}{noise}", monkeypatch, dp_noise=noise, **prior)
                found += [(method, noise > 0, site, task, message) for site, task, _, message in job]
    return found


def test_an_answer_has_the_fields_of_the_table_and_no_others(answers):
    seen = set()
    for _, noised, _, task, message in answers:
        known = {r.field: r for r in rows() if r.answer in ("all", "evaluation", ANSWERS.get(task))}
        for name, value in fields_of(message).items():
            row = known[name]
            seen.add(row)
            assert not (noised and row.with_noise == "not sent")
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, np.ndarray):
                    dtype, shape = row.kind.split(" ", 1)
                    assert item.dtype == dtype
                    assert item.shape == SHAPES.get(shape, item.shape)
                    assert shape in {*SHAPES, "(any)"}
                else:
                    assert type(item) is KINDS[row.kind]
        assert set(message.meta) == {"flaretune", "client_name"}  # the second is NVFlare's
        assert message.metrics is None
        assert ("releases" in fields_of(message)) <= noised
    assert [r.field for r in rows() if r not in seen] == []


def test_adapters_have_the_names_and_shapes_that_were_told(answers):
    told = {m: a.meta["flaretune"]["settings"] for m, _, _, task, a in answers if task == messages.SETUP}["LP-FL"]
    for method, _, _, task, message in answers:
        if method == "LP-FL" and task != messages.EVALUATE:
            shapes = told["initial" if task == messages.SETUP else "parameters"]
            arrays = {name: list(a.shape) for name, a in message.params.items() if ".lora_" in name}
            assert arrays == shapes


def test_no_text_token_label_or_path_is_in_what_is_sent(answers, files, model):
    sent = {site: b"".join(serialised(m) for _, _, s, _, m in answers if s == site) for site in files}
    for site, file in files.items():
        secrets = secrets_in(file, model)
        assert len(secrets) > 300
        assert [what for what, value in secrets.items() if value in sent[site]] == []
        assert str(file).encode() not in sent[site]
    assert b"sigma_square_sum" in sent["north"]  # this would be found


def test_options_that_are_told_are_none_of_the_site_s_own(answers):
    for _, _, _, task, message in answers:
        if task == messages.SETUP:
            settings = message.meta["flaretune"]["settings"]
            assert not {"data_path", "unlabelled_path", "dataset", "state_dir", "device"} & set(settings["options"])
            assert "source" not in settings["task"]
            assert set(settings["model"]) == {"name", "kind", "hidden_size"}


@pytest.mark.parametrize("method", METHODS)
def test_sizes_do_not_depend_on_how_many_texts_there_are(method, model, tmp_path, monkeypatch):
    def sizes(n):
        files = {"north": write_secret_reviews(tmp_path / str(n), n, 9)}
        job = run_job(method, files, model, tmp_path / f"job{n}", monkeypatch, rounds=1)
        return [len(serialised(message)) for _, _, _, message in job]

    few, many = sizes(60), sizes(900)
    # a whole number takes one to five bytes, and a few hundred texts more take some ten thousand
    assert all(abs(a - b) <= 12 for a, b in zip(few, many, strict=True))
