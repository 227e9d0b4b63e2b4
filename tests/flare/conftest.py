import pytest
from flaretune.flare.lpfl_client import LPFLTasks
from flaretune.flare.lpfl_controller import LPFLController
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import common_decomposers

from flaretune.methods.lpfl.config import LPFLConfig
from tests.flare.federation import federate
from tests.jobs_for_tests import command_in, environment_in
from tests.learnable import write_reviews

SITES = ["site-1", "site-2", "site-3"]


@pytest.fixture
def as_in_a_job(monkeypatch):
    """NVFlare's serialiser as the templates of the jobs set it up."""
    flare_decomposers.register()
    common_decomposers.register()
    monkeypatch.setenv("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")


@pytest.fixture(scope="session")
def folders(tiny, tmp_path_factory):
    """Folders of three tiny models and of data that can be learned: only to be read."""
    models = {family: str(tiny(family)) for family in ("roberta", "llama", "gpt2")}
    return {**models, "data": str(write_reviews(tmp_path_factory.mktemp("jobs") / "data", n_train=900, n_test=40))}


@pytest.fixture
def environment(tmp_path):
    """Of processes that a test starts; see `environment_in`."""
    return environment_in(tmp_path)


@pytest.fixture
def run(tmp_path):
    """Run a command in the repository; see `command_in`."""
    return command_in(tmp_path)


@pytest.fixture(scope="session")
def few_reviews(tmp_path_factory):
    """Folder of 150 training and 30 test texts."""
    return str(write_reviews(tmp_path_factory.mktemp("few"), n_train=150, n_test=30))


@pytest.fixture
def lpfl_job(roberta, few_reviews, tmp_path, monkeypatch, as_in_a_job):
    """Run a job of LP-FL in this process; returns what was said, and the folder of its results."""
    (tmp_path / "workspace" / "job" / "app").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "workspace" / "job" / "app")

    def run(
        name="results", *, rounds=2, change=None, init_adapter="", min_clients=1, site_options=None, checkpoint="",
        **options,
    ):  # fmt: skip
        common = {
            "model_name": str(roberta),
            "dataset": few_reviews,
            "k_shot": 9,
            "unlabelled": 36,
            "lora_rank": 2,
            "local_epochs": 1,
            "local_steps": 2,
            "dtype": "float32",
            "eval_clients": "all",
            **options,
        }
        sites = {site: LPFLTasks(LPFLConfig(**{**common, **(site_options or {}).get(site, {})})) for site in SITES}
        server = {"init_adapter": str(init_adapter), "checkpoint": str(checkpoint)}
        controller = LPFLController(num_rounds=rounds, min_clients=min_clients, **server)
        return federate(controller, sites, tmp_path / name, monkeypatch, change), tmp_path / name

    return run
