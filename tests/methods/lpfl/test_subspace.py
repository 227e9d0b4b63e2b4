"""B through a few shared numbers: how it is made of them, how they are trained, and a whole job."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flaretune.engine import codec
from flaretune.engine.results import read_summary
from flaretune.methods.exchanged import FitResult
from flaretune.methods.lpfl.artifact import load_adapter
from flaretune.methods.lpfl.config import LPFLServerConfig
from flaretune.methods.lpfl.subspace import Subspace, SubspaceParameters
from tests.engine.made_up_results import COUNTERS, LPFL, SHAPES, A, B, an_initialize_result

TWO_LAYERS = {"0.lora_A.w": (2, 3), "0.lora_B.w": (4, 2), "1.lora_A.w": (2, 4), "1.lora_B.w": (3, 2)}  # 14 in B


def flat(adapter) -> np.ndarray:
    return np.concatenate([adapter["0.lora_B.w"].ravel(), adapter["1.lora_B.w"].ravel()])


def matrix(dim: int, seed: int) -> np.ndarray:
    """P, column by column."""
    subspace = Subspace(TWO_LAYERS, dim, seed)
    return np.stack([flat(subspace.adapter(row)) for row in np.eye(dim, dtype=np.float32)], axis=1)


@given(st.integers(1, 14), st.integers(0, 99))
def test_every_entry_is_one_number_or_its_negative_and_numbers_share_entries_alike(dim, seed):
    p = matrix(dim, seed)
    assert sorted(set(np.abs(p).sum(axis=1))) == [1]  # one entry in each row, 1 or -1
    counts = np.abs(p).sum(axis=0)
    assert set(counts) <= {14 // dim, -(-14 // dim)}
    theta = np.arange(1, dim + 1, dtype=np.float32) / 3
    adapter = Subspace(TWO_LAYERS, dim, seed).adapter(theta)
    assert {name: (values.shape, values.dtype) for name, values in adapter.items()} == {
        name: (shape, np.float32) for name, shape in TWO_LAYERS.items() if "lora_B" in name
    }
    np.testing.assert_array_equal(flat(adapter), p @ theta)
    np.testing.assert_array_equal(Subspace(TWO_LAYERS, dim, seed).theta(adapter), theta)


def test_it_is_the_same_on_every_machine_and_another_with_another_seed():
    """Clients and server draw it each for itself: these numbers must never change."""
    b = flat(Subspace(TWO_LAYERS, 5, 7).adapter(np.arange(1.0, 6.0)))
    np.testing.assert_array_equal(b, [-4, -1, 1, -3, 3, -4, -5, -2, -2, -5, -2, 4, 3, -1])
    assert not np.array_equal(matrix(5, 7), matrix(5, 8))


def test_what_was_not_made_of_it_has_no_numbers_in_it():
    adapter = Subspace(TWO_LAYERS, 5, 7).adapter(np.ones(5))
    with pytest.raises(ValueError, match="it was not trained with this --subspace_dim, seed and layers"):
        Subspace(TWO_LAYERS, 5, 8).theta(adapter)


class TwoLayers:
    """`LoraParameters` of two layers."""

    def __init__(self):
        self.tensors = {n: torch.nn.Parameter(torch.ones(s)) for n, s in TWO_LAYERS.items()}

    def by_name(self):
        return self.tensors


def test_a_step_goes_along_the_gradient_of_the_numbers():
    dim, rng = 5, np.random.default_rng(3)
    layers, p = TwoLayers(), matrix(dim, 7)
    parameters = SubspaceParameters(layers, Subspace(TWO_LAYERS, dim, 7))
    begun = rng.normal(size=dim).astype(np.float16)
    parameters.load({"theta": begun})
    gradient = {name: rng.normal(size=shape).astype(np.float32) for name, shape in TWO_LAYERS.items()}
    optimiser = torch.optim.SGD(parameters.trained(), lr=0.5)
    both = "0.lora_B.w", "1.lora_B.w"
    for reached in (both, both, both[1:]):  # gradients of the step before are gone; the last has reached one layer
        for name in reached:
            (layers.tensors[name] * torch.from_numpy(gradient[name])).sum().backward()
        parameters.step(optimiser)
    last = {**gradient, "0.lora_B.w": np.zeros((4, 2), np.float32)}
    expected = begun - 0.5 * p.T @ (2 * flat(gradient) + flat(last))
    np.testing.assert_allclose(parameters.arrays()["theta"], expected, rtol=2**-10)  # float16
    found = {name: tensor.detach().numpy() for name, tensor in layers.tensors.items()}
    np.testing.assert_allclose(flat(found), p @ expected, rtol=1e-5)
    assert (found["0.lora_A.w"] == 1).all()


def test_a_job_sends_the_numbers_alone_and_saves_the_adapter_that_they_make(lpfl_job):
    told, folder = lpfl_job(subspace_dim=7)
    assert (told.failure, told.client_failures) == ("", {})
    replies = [(c, n, m) for c, task, n, m in told.replies if task == codec.FIT]
    for arrays in (*(m.arrays for _, _, m in replies), *(m.arrays for task, _, m in told.tasks if task == codec.FIT)):
        assert (arrays["theta"].shape, arrays["theta"].dtype) == ((7,), np.float16)  # two bytes a number
        assert not [name for name in arrays if "lora" in name]
    last_round = [m for _, n, m in replies if n == 2]
    texts = [m.fields["numbers"]["labelled"] + m.fields["numbers"]["soft_labelled"] for m in last_round]
    mean = np.average([m.arrays["theta"] for m in last_round], axis=0, weights=texts)
    assert np.all(mean != 0)
    [theta] = [m.arrays["theta"] for task, _, m in told.tasks if task == codec.EVALUATE]
    np.testing.assert_allclose(theta, mean, rtol=2**-10)
    initialized = next(m.arrays for _, task, _, m in told.replies if task == codec.INITIALIZE)
    last = load_adapter(folder / "last_adapter").arrays
    p = Subspace({name: values.shape for name, values in last.items()}, 7, 42)
    for name, values in p.adapter(theta.astype(np.float32)).items():
        np.testing.assert_array_equal(last[name], values)
    for name in set(last) - set(p.shapes):
        np.testing.assert_array_equal(last[name], initialized[name])
    assert read_summary(folder)["trained_parameters"] == 7


def test_noise_is_on_the_numbers(lpfl_job):
    told, _ = lpfl_job(rounds=1, subspace_dim=7, dp_noise=0.5, dp_clip=1e-3)
    assert (told.failure, told.client_failures) == ("", {})
    sent = [m.arrays["theta"] for _, task, _, m in told.replies if task == codec.FIT]
    assert [values.dtype for values in sent] == [np.float16] * 3
    deviation = np.std(sent)  # of 21 numbers, with noise of standard deviation 0.5 · 2 · 0.001, and a little change
    assert 4e-4 < deviation < 2e-3


def test_a_step_that_failed_costs_a_client_one_round(lpfl_job, monkeypatch):
    """Its gradients, which are not finite, are none of the next round's."""
    backward, calls = torch.Tensor.backward, []

    def first_is_lost(loss, *args, **kwargs):
        calls.append(loss)
        backward(loss * float("nan") if len(calls) == 1 else loss, *args, **kwargs)
        if len(calls) == 1:
            raise FloatingPointError("lost")

    monkeypatch.setattr(torch.Tensor, "backward", first_is_lost)
    told, folder = lpfl_job(rounds=2, subspace_dim=7, min_clients=2)
    assert told.failure == ""
    assert [len(record["clients"]) for record in read_summary(folder)["rounds"]] == [3, 2, 3]


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"learning_rate": 1e5}, "a lower --learning_rate may help"),
        ({"dp_noise": 1.0, "dp_clip": 1e5}, "lower ones than --dp_clip 100000 and --dp_noise 1 may help"),
    ],
)
def test_numbers_that_no_message_holds_are_not_sent(lpfl_job, options, advice):
    told, _ = lpfl_job(rounds=1, subspace_dim=7, **options)
    sentence = "its numbers are beyond 65504, the most that float16 holds; "
    assert all(sentence + advice in why for why in told.client_failures.values())
    assert len(told.client_failures) == 3


def test_numbers_that_the_next_message_would_not_hold_are_refused(start):
    numbers = {"labelled": 8, "soft_labelled": 0, "loss": 0.5}
    strategy = start()
    for theta in (np.array([1, -65504, 3], np.float32), np.array([1, 2, 3], np.float16)):
        found = strategy.check(FitResult({"theta": theta}, numbers, COUNTERS), "").arrays["theta"]
        assert (found.tolist(), found.dtype) == (theta.tolist(), np.float32)
    with pytest.raises(ValueError, match="array 'theta' holds values that are not finite in float16"):
        strategy.check(FitResult({"theta": np.array([1, -65521, 3], np.float32)}, numbers, COUNTERS), "")


def test_more_numbers_than_b_has_entries_are_refused(lpfl_job):
    told, _ = lpfl_job(subspace_dim=10**6, rounds=1)
    assert "--subspace_dim 1000000: B of all layers has 128 entries; give at most that" in str(told.client_failures)


def test_a_job_that_begins_with_another_s_adapter_has_its_numbers(lpfl_job):
    _, first = lpfl_job("first", subspace_dim=7)
    told, second = lpfl_job("second", rounds=1, subspace_dim=7, init_adapter=first / "last_adapter")
    assert told.failure == ""
    begun, ended = read_summary(second)["rounds"][0], read_summary(first)["rounds"][-1]
    assert begun["validation_loss"] == ended["validation_loss"]
    told, _ = lpfl_job("third", rounds=1, subspace_dim=8, init_adapter=first / "last_adapter")
    assert told.failure.startswith(f"--init_adapter: {first / 'last_adapter'} does not fit this job: it was not")


SUBSPACE = {"parameters": {"theta": [3]}}


@pytest.fixture
def start(tmp_path):
    def started(dim=3, change=SUBSPACE):
        result = an_initialize_result(LPFL, subspace_dim=dim)
        result.settings.update(change)
        LPFL.check_settings(result.settings)
        strategy = LPFL.strategy(LPFLServerConfig())
        strategy.start({"site-1": result}, None, tmp_path)
        return strategy

    return started


def test_a_job_starts_from_zeros(start):
    arrays, _ = start().configure(1, "")
    assert {name: values.tolist() for name, values in arrays.items()} == {"theta": [0, 0, 0]}


@pytest.mark.parametrize(
    ("dim", "change", "message"),
    [
        (3, {"parameters": {"theta": [4]}}, "with --subspace_dim 3, 'theta' alone is trained, with as many numbers"),
        (3, {"parameters": {B: list(SHAPES[B])}}, "with --subspace_dim 3, 'theta' alone is trained"),
        (9, {"parameters": {"theta": [9]}}, "--subspace_dim 9: B of all layers has 8 entries; give at most that"),
        (3, {**SUBSPACE, "initial": {A: [2, 5]}}, "--subspace_dim 3: B of all layers has 0 entries"),
        (0, {"parameters": {B: list(SHAPES[B])}}, "without --subspace_dim the whole adapter is trained, and"),
    ],
)
def test_settings_that_cannot_be_are_refused(start, dim, change, message):
    with pytest.raises(ValueError, match=message):
        start(dim, change)
