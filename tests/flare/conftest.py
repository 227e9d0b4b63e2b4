import pytest
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import common_decomposers


@pytest.fixture
def as_in_a_job(monkeypatch):
    """NVFlare's serialiser as the templates of the jobs set it up."""
    flare_decomposers.register()
    common_decomposers.register()
    monkeypatch.setenv("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")
