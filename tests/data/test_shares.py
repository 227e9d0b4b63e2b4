from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flaretune.data.load import Examples, Unlabelled
from flaretune.data.partition import dirichlet_proportions
from flaretune.data.shares import ClientData, Split, own_data, share_of_common_set
from flaretune.errors import UserError
from flaretune.seeding import derive_seed
from tests.tasks_for_tests import review_task

SPLIT = Split(k_shot=4, n_shares=3, iid=True, alpha=0.7, seed=5, unlabelled=20)


def write(file: Path, n_rows: int) -> Path:
    """Row i is "text i", of class 1 where i is divisible by 3."""
    file.write_text("sentence,label\n" + "".join(f"text {i},{int(i % 3 == 0)}\n" for i in range(n_rows)))
    return file


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "train.csv", 60)
    write(tmp_path / "validation.csv", 9)
    return tmp_path


def rows_of(part: Examples | Unlabelled) -> list[int]:
    return [int(text["sentence"].removeprefix("text ")) for text in part.texts]


def share(folder: Path, split: Split, number: int) -> ClientData:
    return share_of_common_set(review_task(), str(folder), split, number, (number, split.n_shares))


def own(path: Path, k_shot: int = 4, with_test: bool = True, unlabelled: int = 0) -> ClientData:
    return own_data(review_task(), str(path), k_shot, seed=5, with_test=with_test, unlabelled=unlabelled)


# The numbers were written down before there were unlabelled texts: jobs of that time draw the same today.
@pytest.mark.parametrize("unlabelled", [0, 20])
@pytest.mark.parametrize(
    ("iid", "number", "train", "validation", "test"),
    [
        (True, 0, [30, 31, 37], [12, 19, 50], [0, 3, 6]),
        (True, 1, [27, 48, 59], [21, 39, 41], [1, 4, 7]),
        (True, 2, [54, 58], [0, 38], [2, 5, 8]),
        (False, 0, [30, 54], [21, 39], [0, 3, 6]),
        (False, 1, [31, 37, 58, 59], [19, 38, 41, 50], [1, 4, 7]),
        (False, 2, [27, 48], [0, 12], [2, 5, 8]),
    ],
)
def test_unlabelled_texts_do_not_change_the_shares_of_examples(
    folder, unlabelled, iid, number, train, validation, test
):
    data = share(folder, replace(SPLIT, iid=iid, unlabelled=unlabelled), number)
    assert (rows_of(data.train), rows_of(data.validation), rows_of(data.test)) == (train, validation, test)


@pytest.mark.parametrize("unlabelled", [0, 7])
def test_unlabelled_texts_do_not_change_a_client_s_own_examples(tmp_path, unlabelled):
    data = own(write(tmp_path / "one.csv", 24), k_shot=3, unlabelled=unlabelled)
    assert rows_of(data.train) == [0, 5, 6, 10, 17, 21]
    assert rows_of(data.validation) == [2, 8, 9, 12, 18, 19]


def test_without_unlabelled_texts_all_the_rest_of_an_own_file_is_test_data(tmp_path):
    data = own(write(tmp_path / "one.csv", 24), k_shot=3)
    assert rows_of(data.test) == [1, 3, 4, 7, 11, 13, 14, 15, 16, 20, 22, 23]
    assert len(data.unlabelled) == 0


def test_the_pool_is_empty_unless_given():
    nothing = Examples((), np.empty(0, dtype=np.int64))
    data = ClientData(nothing, nothing, None)
    assert (len(data.unlabelled), data.unlabelled.truth) == (0, None)
    assert Split(4, 3, True, 0.7, 5).unlabelled == 0


@pytest.mark.parametrize("iid", [True, False])
@pytest.mark.parametrize("n_unlabelled", [1, 2, 20, 44])
def test_shared_out_texts_are_all_different_and_their_truth_is_that_of_the_data(folder, iid, n_unlabelled):
    clients = [share(folder, replace(SPLIT, iid=iid, unlabelled=n_unlabelled), number) for number in range(3)]
    pools = [rows_of(client.unlabelled) for client in clients]
    examples = [row for client in clients for row in rows_of(client.train) + rows_of(client.validation)]
    together = [row for pool in pools for row in pool]
    assert len(together) == len(set(together)) == n_unlabelled
    assert not set(together) & set(examples)
    assert len(examples) == 16
    for client in clients:
        assert client.unlabelled.truth.dtype == np.int64
        assert client.unlabelled.truth.tolist() == [int(row % 3 == 0) for row in rows_of(client.unlabelled)]


def class_counts(folder: Path, split: Split) -> np.ndarray:
    """Texts of each class in each client's pool, shape (n_shares, 2)."""
    pools = [share(folder, split, number).unlabelled for number in range(split.n_shares)]
    return np.array([np.bincount(pool.truth, minlength=2) for pool in pools])


def test_iid_pools_have_the_same_label_mix(folder):
    counts = class_counts(folder, SPLIT)
    assert counts.sum() == 20
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_skewed_pools_follow_the_proportions_of_the_training_examples(folder):
    split = replace(SPLIT, iid=False, unlabelled=44)
    counts = class_counts(folder, split)
    proportions = dirichlet_proportions(2, 3, split.alpha, derive_seed(split.seed, "proportions"))
    assert np.abs(counts - (proportions * counts.sum(axis=0)[:, None]).T).max() <= 1
    assert np.ptp(counts, axis=0).max() > 4


def test_a_larger_pool_contains_the_smaller_and_another_seed_draws_another(folder):
    def drawn(**changes) -> set[int]:
        split = replace(SPLIT, **changes)
        return {row for number in range(3) for row in rows_of(share(folder, split, number).unlabelled)}

    assert drawn(unlabelled=10) < drawn(unlabelled=11) < drawn(unlabelled=44)
    assert drawn(unlabelled=10) != drawn(unlabelled=10, seed=6)


def test_the_draw_has_a_seed_of_its_own(folder):
    clients = [share(folder, SPLIT, number) for number in range(3)]
    examples = {row for client in clients for row in rows_of(client.train) + rows_of(client.validation)}
    rest = [row for row in range(60) if row not in examples]
    expected = np.random.default_rng(derive_seed(5, "unlabelled")).permutation(rest)[:20]
    assert sorted(row for client in clients for row in rows_of(client.unlabelled)) == sorted(expected.tolist())


def test_equal_seeds_equal_shares_and_the_test_part_has_no_say(folder):
    first, again = (share(folder, SPLIT, 1) for _ in range(2))
    without_test = share_of_common_set(review_task(), str(folder), SPLIT, 1, None)
    assert rows_of(first.unlabelled) == rows_of(again.unlabelled) == rows_of(without_test.unlabelled)


def test_more_clients_than_texts_leave_pools_empty(folder):
    sizes = [len(share(folder, replace(SPLIT, unlabelled=2), number).unlabelled) for number in range(3)]
    assert sorted(sizes) == [0, 1, 1]


def test_own_file_gives_texts_and_tests_on_what_is_left(tmp_path):
    data = own(write(tmp_path / "one.csv", 24), k_shot=3, unlabelled=7)
    parts = [rows_of(part) for part in (data.train, data.validation, data.unlabelled, data.test)]
    assert [len(part) for part in parts] == [6, 6, 7, 5]
    assert sorted(row for part in parts for row in part) == list(range(24))
    assert data.unlabelled.truth.tolist() == [int(row % 3 == 0) for row in parts[2]]
    again = own(tmp_path / "one.csv", k_shot=3, with_test=False, unlabelled=7)
    assert rows_of(again.unlabelled) == parts[2]
    assert again.test is None


def test_own_folder_keeps_its_test_file_whole(folder):
    data = own(folder, unlabelled=44)
    assert rows_of(data.test) == list(range(9))
    assert sorted(rows_of(data.train) + rows_of(data.validation) + rows_of(data.unlabelled)) == list(range(60))


@pytest.mark.parametrize(
    ("n_rows", "k_shot", "unlabelled", "message"),
    [
        (24, 3, 12, "--k_shot 3 and --unlabelled 12 take all 24 rows and leave none to test on; use a smaller --unla"),
        (24, 3, 13, r"--unlabelled 13: .*one\.csv has 12 texts; use at most that many"),
        (24, 3, -1, "--unlabelled -1: must be at least 0"),
        (4, 1, 0, "--k_shot 1 takes all 4 rows and leaves none to test on; use a smaller --k_shot"),
        (4, 1, 1, "--unlabelled 1: .* has 0 texts"),
    ],
)
def test_own_files_that_are_too_small(tmp_path, n_rows, k_shot, unlabelled, message):
    with pytest.raises(UserError, match=message) as caught:
        own(write(tmp_path / "one.csv", n_rows), k_shot, unlabelled=unlabelled)
    assert "\n" not in str(caught.value)


def test_a_common_set_that_is_too_small_says_how_many_texts_there_are(folder):
    with pytest.raises(UserError, match=r"--unlabelled 45: .* the training split of .* has 44 texts; use at most"):
        share(folder, replace(SPLIT, unlabelled=45), 0)


def test_hidden_labels_fit_the_texts():
    with pytest.raises(ValueError, match=r"2 texts need hidden labels of shape \(2,\)"):
        Unlabelled(({"s": "a"}, {"s": "b"}), np.array([1]))
