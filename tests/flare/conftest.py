import pytest
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import common_decomposers

from tests.jobs_for_tests import command_in, environment_in


@pytest.fixture
def as_in_a_job(monkeypatch):
    """NVFlare's serialiser as the templates of the jobs set it up."""
    flare_decomposers.register()
    common_decomposers.register()
    monkeypatch.setenv("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")


@pytest.fixture(scope="session")
def folders(tiny, tmp_path_factory):
    """Folders of three tiny models and of data that can be learned: only to be read."""
    from tests.learnable import write_reviews  # here, so that tests without a model start without torch

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
