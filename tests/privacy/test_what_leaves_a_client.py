"""Messages of real clients against docs/operations/privacy.md, and a search of them for what must not be there."""

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.methods.registry import find_method
from tests.engine.in_process import run_job
from tests.engine.small_jobs import DIM, METHODS, learned, small_config
from tests.privacy.clients_with_secrets import as_bytes, fields_of, secrets_in, write_secret_reviews
from tests.privacy.table import rows

N_COUNTS = 2
# Of the method that has its own test, methods/verbalizer/test_what_leaves.py.
VERBALIZER = {"settings.verbalizer", "settings.candidates", "neutral"}
VERBALIZER |= {"counts", "sums", "squares", "cross", "gram", "losses", "n"}
LPFL = {"settings.rank", "theta"}  # of methods/lpfl/test_lower_rank.py and test_subspace.py
KINDS = {"whole number": int, "number": float, "text": str, "table": dict}
SHAPES = {"(c)": (N_COUNTS,), "(d)": (DIM,), "(k)": (2,), "(1)": (1,), "(2)": (2,)}


def replies_of(method, files, model, folder, rounds=2, **options):
    """(client, task, reply) of a job with a client for each file."""
    options = {"eval_clients": "north", **options}
    configs = {name: small_config(method, model, data_path=str(file), **options) for name, file in files.items()}
    told = run_job(find_method(method), configs, folder, num_rounds=rounds)
    assert (told.failure, told.client_failures) == ("", {})
    return [(client, task, reply) for client, task, _, reply in told.replies]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    return {name: write_secret_reviews(folder, 90, seed) for seed, name in enumerate(("north", "south"), start=5)}


@pytest.fixture(scope="module")
def replies(files, roberta, tmp_path_factory):
    """(method, with noise, client, task, reply) of four jobs."""
    folder, found = tmp_path_factory.mktemp("jobs"), []
    for method in METHODS:
        for noise in (0.0, 2.0):
            prior = {} if noise else {"calibrate": "batch"}
            job = replies_of(method, files, roberta, folder / f"{method}{noise}", dp_noise=noise, **prior)
            found += [(method, noise > 0, *entry) for entry in job]
    return found


def test_a_reply_has_the_fields_of_the_table_and_no_others(replies):
    seen = set()
    for _, noised, _, task, reply in replies:
        known = {r.field: r for r in rows() if r.message in ("all", "evaluation", task)}
        for name, value in fields_of(reply).items():
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
                    assert type(item) is KINDS[row.kind], name
        assert ("releases" in fields_of(reply)) <= noised
    assert {r.field for r in rows() if r not in seen} == VERBALIZER | LPFL


def test_adapters_have_the_names_and_shapes_that_were_told(replies):
    told = {m: reply.fields["settings"] for m, _, _, task, reply in replies if task == codec.INITIALIZE}["lpfl"]
    for method, _, _, task, reply in replies:
        calibrates = task == codec.FIT and "n_texts" in reply.fields
        if method == "lpfl" and task != codec.EVALUATE and not calibrates:
            shapes = told["initial" if task == codec.INITIALIZE else "parameters"]
            assert {name: list(a.shape) for name, a in learned(reply).items()} == shapes


def test_no_text_token_label_or_path_is_in_what_is_sent(replies, files, roberta):
    sent = {client: b"".join(as_bytes(m) for _, _, c, _, m in replies if c == client) for client in files}
    for client, file in files.items():
        secrets = secrets_in(file, str(roberta))
        assert len(secrets) > 300
        assert [what for what, value in secrets.items() if value in sent[client]] == []
        assert str(file).encode() not in sent[client]
    assert b"sigma_square_sum" in sent["north"]  # this would be found


def test_options_that_are_told_are_none_of_the_client_s_own(replies):
    for _, _, _, task, reply in replies:
        if task == codec.INITIALIZE:
            settings = reply.fields["settings"]
            assert not {"data_path", "unlabelled_path", "dataset", "state_dir", "device"} & set(settings["options"])
            assert "source" not in settings["task"]
            assert set(settings["model"]) == {"name", "kind", "hidden_size"}


@pytest.mark.parametrize("method", METHODS)
def test_sizes_do_not_depend_on_how_many_texts_there_are(method, roberta, tmp_path):
    def sizes(n):
        files = {"north": write_secret_reviews(tmp_path / str(n), n, 9)}
        return [len(as_bytes(reply)) for _, _, reply in replies_of(method, files, roberta, tmp_path / f"job{n}", 1)]

    few, many = sizes(60), sizes(360)
    # a whole number takes one to five bytes, and a few hundred texts more take some ten thousand
    assert all(abs(a - b) <= 12 for a, b in zip(few, many, strict=True))
