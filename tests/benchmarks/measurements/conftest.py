import pytest
import torch
from measurements import timing


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny models gain nothing by more, and lose much beside other tests: threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def small_products():
    """The real ones take a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(timing.PRODUCTS, "cpu", (64, 3))
        yield
