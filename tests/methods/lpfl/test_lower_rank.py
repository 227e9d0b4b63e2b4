"""Adapters of several ranks: their mean, what a client makes of the job's, and a whole job."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaretune.aggregation.registry import RULES
from flaretune.engine.results import read_summary
from flaretune.methods.base import ClientContext
from flaretune.methods.lpfl.artifact import load_adapter
from flaretune.methods.lpfl.lower_rank import product_average, truncated
from tests.engine.made_up_results import LPFL, settings_of

A, B = "layers.0.q_proj.lora_A.weight", "layers.0.q_proj.lora_B.weight"


def drawn(seed: int, out: int, rank: int, into: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {B: (out, rank), A: (rank, into)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def product(arrays) -> np.ndarray:
    return arrays[B].astype(np.float64) @ arrays[A].astype(np.float64)


def closest(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of a rank, of the whole matrix (Eckart and Young)."""
    u, singular, v = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * singular[:rank]) @ v[:rank]


sizes = st.integers(1, 9)


@given(st.integers(0, 99), sizes, sizes, sizes, sizes)
def test_what_is_cut_down_is_the_best_approximation(seed, out, into, rank, wanted):
    arrays = drawn(seed, out, rank, into)
    b, a = truncated(arrays[B], arrays[A], wanted)
    assert (b.shape, a.shape, b.dtype, a.dtype) == ((out, wanted), (wanted, into), np.float32, np.float32)
    np.testing.assert_allclose(product({B: b, A: a}), closest(product(arrays), wanted), rtol=1e-4, atol=1e-4)


@given(st.integers(0, 99), sizes, sizes, st.lists(sizes, min_size=1, max_size=4))
def test_the_mean_is_that_of_products_as_close_as_its_rank_allows(seed, out, into, ranks):
    start = drawn(seed, out, ranks[0], into)
    updates = [drawn(seed + i, out, rank, into) for i, rank in enumerate(ranks, 1)]
    weights = np.arange(1, len(ranks) + 1)
    changes = [product(u) - closest(product(start), rank) for u, rank in zip(updates, ranks, strict=True)]
    mean = product(start) + sum(w * change for w, change in zip(weights, changes, strict=True)) / weights.sum()
    found, is_limited = product_average(RULES["mean"], start, updates, weights)
    np.testing.assert_allclose(product(found), closest(mean, ranks[0]), rtol=1e-4, atol=1e-4)
    assert not is_limited.any()


def test_an_update_far_beyond_the_others_is_clipped_in_its_product():
    start = drawn(0, 6, 4, 7)
    updates = [drawn(i, 6, rank, 7) for i, rank in enumerate((1, 2, 4), 1)]
    updates[1][B] *= 20
    changes = [product(u) - closest(product(start), rank) for u, rank in zip(updates, (1, 2, 4), strict=True)]
    lengths = [np.linalg.norm(change) for change in changes]
    median = sorted(lengths)[1]
    changes[1] *= median / lengths[1]  # beyond twice the median of all
    mean = product(start) + (5 * changes[0] + 8 * changes[1] + 6 * changes[2]) / 19
    found, is_limited = product_average(RULES["clipped"], start, updates, [5, 8, 6])
    np.testing.assert_allclose(product(found), closest(mean, 4), rtol=1e-4, atol=1e-4)
    assert is_limited.tolist() == [False, True, False]


def test_a_product_of_zero_leaves_rows_that_can_be_trained():
    arrays = drawn(3, 6, 4, 7)
    b, a = truncated(0 * arrays[B], arrays[A], 2)
    assert not b.any()
    assert np.linalg.matrix_rank(a) == 2
    assert np.linalg.matrix_rank(np.vstack([a, arrays[A]])) == 4  # of the rows that were there


def test_ranks_that_are_fewer_in_all_leave_rows_that_can_be_trained():
    start = drawn(4, 6, 4, 7)
    start[B] *= 0
    found, _ = product_average(RULES["mean"], start, [drawn(5, 6, 1, 7), drawn(6, 6, 1, 7)], [3, 5])
    assert np.linalg.matrix_rank(found[B]) == 2
    assert np.linalg.matrix_rank(found[A]) == 4


OWN = {"site-1": {"client_rank": 2}, "site-2": {"client_rank": 4}}  # of 8, site-3's
UNEQUAL = {"lora_rank": 8, "lora_alpha": 8.0, "client_options": OWN}


def uploads(told, round_number: int) -> dict[str, tuple[dict[str, np.ndarray], int]]:
    """What each client sent after a round, and how many texts it was made with."""
    found = {}
    for client, task, number, reply in told.replies:
        if (task, number) == ("fit", round_number):
            numbers = reply.fields["numbers"]
            found[client] = reply.arrays, numbers["labelled"] + numbers["soft_labelled"]
    return found


def pairs(arrays) -> list[tuple[str, str]]:
    return [(name.replace(".lora_A.", ".lora_B."), name) for name in arrays if ".lora_A." in name]


def test_clients_of_ranks_2_4_and_8_make_one_adapter_of_rank_8(lpfl_job):
    told, folder = lpfl_job(rounds=3, **UNEQUAL)
    assert (told.failure, told.client_failures) == ("", {})
    sent = uploads(told, 3)
    ranks = {client: {len(a[name]) for _, name in pairs(a)} for client, (a, _) in sent.items()}
    assert ranks == {"site-1": {2}, "site-2": {4}, "site-3": {8}}
    ranks = {c: reply.fields["settings"].get("rank") for c, task, _, reply in told.replies if task == "initialize"}
    assert ranks == {"site-1": 2, "site-2": 4, "site-3": None}
    last = load_adapter(folder / "last_adapter")
    assert last.adapter_config["r"] == 8
    total = sum(n for _, n in sent.values())
    [start] = [message.arrays for task, number, message in told.tasks if (task, number) == ("fit", 3)]
    for name_b, name_a in pairs(last.arrays):
        began = start[name_b].astype(np.float64) @ start[name_a]
        mean = began + sum(
            n / total * (arrays[name_b].astype(np.float64) @ arrays[name_a] - closest(began, len(arrays[name_a])))
            for arrays, n in sent.values()
        )
        assert last.arrays[name_a].shape[0] == 8
        np.testing.assert_allclose(
            last.arrays[name_b] @ last.arrays[name_a], closest(mean, 8), rtol=1e-3, atol=1e-3 * np.abs(mean).max()
        )
    assert [record["round"] for record in read_summary(folder)["rounds"]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_resumed_run_of_several_ranks_ends_as_one_that_was_never_stopped(lpfl_job, tmp_path):
    _, whole = lpfl_job("whole", rounds=3, **UNEQUAL)
    lpfl_job("first", rounds=2, checkpoint=tmp_path / "kept", **UNEQUAL)
    told, second = lpfl_job("second", rounds=3, checkpoint=tmp_path / "kept", **UNEQUAL)
    assert (told.failure, len(uploads(told, 3))) == ("", 3)
    expected = load_adapter(whole / "last_adapter").arrays
    for name, values in load_adapter(second / "last_adapter").arrays.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-7)


def test_noise_is_on_the_change_of_what_a_client_has_cut_down(lpfl_job):
    """With hardly any, and no change too long, the same arrays leave the client."""
    (plain, _), (noised, _) = (
        lpfl_job(name, rounds=1, **UNEQUAL, **privacy)
        for name, privacy in (("plain", {}), ("noised", {"dp_noise": 1e-9, "dp_clip": 100.0}))
    )
    (expected, _), (found, _) = (uploads(told, 1)["site-1"] for told in (plain, noised))
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)


def test_a_rule_that_compares_number_by_number_wants_one_rank(lpfl_job):
    told, folder = lpfl_job(aggregation="median", **UNEQUAL)
    assert told.failure.startswith("--aggregation median: site-1 has --client_rank 2, and adapters of several ranks")
    assert not folder.exists()


def test_an_adapter_of_a_rank_that_no_client_has_told_is_not_used(lpfl_job, caplog):
    def other_rank(client, task, round_number, reply):
        if (client, task, round_number) == ("site-1", "fit", 2):
            for name_b, name_a in pairs(reply.arrays):
                reply.arrays |= {name_b: reply.arrays[name_b][:, :1], name_a: reply.arrays[name_a][:1]}
        return reply

    told, folder = lpfl_job(change=other_rank, min_clients=2, **UNEQUAL)
    assert told.failure == ""
    assert [r["clients"] for r in read_summary(folder)["rounds"]][2] == ["site-2", "site-3"]
    assert "its adapter has the rank 1, and the clients of this job have 2, 4, 8" in caplog.text


def test_a_product_that_float32_cannot_hold_is_not_used(lpfl_job, caplog):
    def large(client, task, round_number, reply):
        if (client, task, round_number) == ("site-1", "fit", 2):
            for name in (name for pair in pairs(reply.arrays) for name in pair):
                reply.arrays[name] = np.full_like(reply.arrays[name], 1e30)
        return reply

    told, folder = lpfl_job(change=large, min_clients=2, **UNEQUAL)
    assert told.failure == ""
    assert [r["clients"] for r in read_summary(folder)["rounds"]][2] == ["site-2", "site-3"]
    assert "have a product that is not finite in float32" in caplog.text


@pytest.mark.parametrize(
    ("damaged", "sentence"),
    [
        ({"rank": 0}, "'rank' is 0, expected a whole number of at least 1 below the job's 2"),
        ({"rank": 2}, "'rank' is 2, expected"),
        ({"rank": "1"}, "'rank' is '1', expected"),
        ({"rank": True}, "'rank' is True, expected"),
        ({"rank": 1, "parameters": {A: [2, 5]}}, "lora_A.weight has the shape .2, 5., which is no factor of a product"),
        ({"rank": 1, "parameters": {A: [2, 5], B: [4, 3]}}, "lora_B.weight has the shape .4, 3., which is no factor"),
        ({"rank": 1, "parameters": {A: [2, 5, 1], B: [4, 2]}}, "lora_A.weight has the shape .2, 5, 1., which is no"),
        ({"rank": 1, "parameters": {"embedding": [2, 2]}}, "embedding has the shape .2, 2., which is no factor"),
    ],
)
def test_ranks_and_factors_that_cannot_be_are_refused(damaged, sentence):
    shapes = {A: [2, 5], B: [4, 2]}
    settings = {**settings_of(LPFL, lora_rank=2), "initial": shapes, "parameters": shapes}
    LPFL.check_settings({**settings, "rank": 1})
    with pytest.raises(ValueError, match=sentence):
        LPFL.check_settings({**settings, **damaged})


def test_a_client_scales_its_adapter_as_the_job_does(folders, tmp_path):
    """What has no more than its rank loses nothing: both evaluate it alike."""

    def client(name, **own):
        options = {"lora_rank": 8, "soft_labels": "off", "k_shot": 9, "dtype": "float32", **own}
        config = LPFL.client_config(model_name=folders["roberta"], dataset=folders["data"], **options)
        return LPFL.client(config, ClientContext("site-1", ["site-1"], tmp_path / name))

    whole, lower = client("whole"), client("lower", client_rank=3)
    start, rng = whole.initialize(), np.random.default_rng(8)
    assert {**lower.initialize().settings, "rank": None} == {**start.settings, "rank": None}
    arrays = dict(start.arrays)
    for name_b, _ in pairs(arrays):
        arrays[name_b] = rng.normal(size=arrays[name_b].shape).astype(np.float32) / 5
        arrays[name_b][:, 3:] = 0
    found, expected = (c.evaluate(arrays).evaluation.validation_loss_sum for c in (lower, whole))
    assert found == pytest.approx(expected, rel=1e-4)
    assert abs(expected - start.evaluation.validation_loss_sum) > 0.01 * expected
