"""What a client may tell the server, and a server its clients: every reader of messages, with what does not belong."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from flaretune.config.options import defaults
from flaretune.engine import codec
from flaretune.engine.worker import Worker
from flaretune.errors import UserError
from flaretune.methods.exchanged import CalibrateResult, EvaluateResult, FitRequest, FitResult, InitializeResult
from flaretune.methods.fedbpt.distribution import Distribution, pack, unpack
from flaretune.methods.message import Message
from flaretune.model_server.protocol import Query, named, query_message, read_logits, read_query
from flaretune.tasks.calibration import LogProbSums
from flaretune.tasks.metrics.registry import METRICS
from tests.engine.made_up_results import (
    COUNTERS,
    EVALUATION,
    FEDBPT,
    LPFL,
    adapter_arrays,
    an_initialize_result,
    settings_of,
)
from tests.flare.light_client import LightFedBPT
from tests.fuzz.guard import fuzz
from tests.fuzz.mutate import as_values, changed, strange_array

pytestmark = pytest.mark.slow

TASK = settings_of(FEDBPT)["task"]
COMMON = codec.task(["a", "b"], "0f", 1, np.array([0.25, 0.75]))
POINT = pack(Distribution(np.zeros(5), 1.0, np.ones(5)), "diagonal")
FOUND = {"mean": np.zeros(5, np.float32), "fitness": np.array([0.5]), "sigma_square_sum": np.array([8.0])}
TRAINED = {"labelled": 8, "soft_labelled": 4, "soft_labels_correct": 3, "loss": 0.5}
INITIALIZE = codec.initialize_message(COMMON, 3)
FIT_FEDBPT = codec.fit_message(COMMON, FitRequest(2, POINT, {"norm_limit": 3.0}, evaluate=True))


def checked(method, folder, **options):
    """A reader of fit replies that a strategy looks at too, as the engine does."""
    strategy = method.strategy(method.server_config())
    strategy.start({"a": an_initialize_result(method, **options)}, None, folder)
    return lambda received: strategy.check(codec.read_fit_reply(received, TASK), "")


def read_distribution(received):
    request = codec.read_fit_request(received)
    unpack(request.arrays)
    return request


# By name: a good message, and what makes its reader in a folder.
READERS = {
    "prior": (INITIALIZE, lambda _: codec.read_prior),
    "clients": (INITIALIZE, lambda _: codec.read_clients),
    "run": (INITIALIZE, lambda _: codec.read_run),
    "rounds": (INITIALIZE, lambda _: codec.read_num_rounds),
    "initialize reply": (
        codec.initialize_reply(replace(an_initialize_result(), log_probs=LogProbSums(np.array([-6.0, -9.0]), 8))),
        lambda _: lambda received: codec.read_initialize_reply(received, FEDBPT),
    ),
    "LP-FL initialize reply": (
        codec.initialize_reply(an_initialize_result(LPFL)),
        lambda _: lambda received: codec.read_initialize_reply(received, LPFL),
    ),
    "evaluate reply": (
        codec.evaluate_reply(EvaluateResult(EVALUATION, COUNTERS)),
        lambda _: lambda received: codec.read_evaluate_reply(received, TASK),
    ),
    "FedBPT fit reply": (
        codec.fit_reply(FitResult(FOUND, {"n_train": 32}, COUNTERS, EVALUATION)),
        lambda folder: checked(FEDBPT, folder, intrinsic_dim=5),
    ),
    "LP-FL fit reply": (
        codec.fit_reply(FitResult(adapter_arrays(), TRAINED, COUNTERS, EVALUATION)),
        lambda folder: checked(LPFL, folder),
    ),
    "FedBPT fit task": (FIT_FEDBPT, lambda _: read_distribution),
    "LP-FL fit task": (
        codec.fit_message(COMMON, FitRequest(2, adapter_arrays(), {}, evaluate=True)),
        lambda _: codec.read_fit_request,
    ),
    "FedBPT evaluate task": (
        codec.evaluate_message(COMMON, 2, {"mean": np.zeros(5)}),
        lambda _: codec.read_evaluate_request,
    ),
    "LP-FL evaluate task": (codec.evaluate_message(COMMON, 2, adapter_arrays()), lambda _: codec.read_evaluate_request),
    "calibrate reply": (
        codec.calibrate_reply(CalibrateResult(LogProbSums(np.array([-6.0, -9.0]), 8), COUNTERS)),
        lambda _: lambda received: codec.read_calibrate_reply(received, TASK),
    ),
}


def change(good: Message, rng: np.random.Generator) -> Message:
    """With one to three fields or arrays that do not belong."""
    arrays, fields = dict(good.arrays), {"flaretune": copy.deepcopy(good.fields)}
    for _ in range(int(rng.integers(1, 4))):
        if arrays and rng.random() < 0.5:
            name = list(arrays)[int(rng.integers(len(arrays)))]
            what = rng.random()
            if what < 0.7:
                arrays[name] = strange_array(rng)
            elif what < 0.85:
                del arrays[name]
            else:
                arrays["extra"] = arrays[name]
        else:
            fields = changed(fields, rng)
    said = as_values(fields)  # as NVFlare's `FLModel.meta` has it
    said = said.get("flaretune") if isinstance(said, dict) else said
    return Message({k: as_values(v) for k, v in arrays.items()}, said)


@pytest.mark.parametrize("name", READERS)
def test_readers_of_messages(name, tmp_path):
    good, reader = READERS[name]
    read = reader(tmp_path)
    read(good)
    seed = 30 + list(READERS).index(name)
    _, refused = fuzz("message", seed, lambda rng: change(good, rng), read, sound, ValueError, share=len(READERS))
    assert refused > 30


@pytest.mark.parametrize(
    ("task", "good"),
    [
        (codec.INITIALIZE, INITIALIZE),
        (codec.FIT, FIT_FEDBPT),
        (codec.EVALUATE, codec.evaluate_message(COMMON, 2, {"mean": np.zeros(5)})),
    ],
    ids=codec.TASKS,
)
def test_a_client_says_one_sentence_of_a_task_that_it_makes_nothing_of(task, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = FEDBPT.client_config(intrinsic_dim=5, local_iter=1)
    worker = Worker(LightFedBPT(), config, "a", tmp_path / "states", tmp_path / "runs")
    worker(task, good)
    sentences = []

    def load(received):
        try:
            return worker(task, received)
        except UserError as error:
            sentences.append(str(error))
            raise

    def check(reply):
        assert set(reply.fields) >= {"schema", "queries", "seconds"}

    seed = 70 + codec.TASKS.index(task)
    _, refused = fuzz(
        "task of the server", seed, lambda rng: change(good, rng), load, check, (UserError, FloatingPointError), share=3
    )
    assert refused > 30
    assert [sentence for sentence in sentences if "\n" in sentence] == []


@pytest.mark.parametrize("method", [FEDBPT, LPFL], ids=["fedbpt", "lpfl"])
def test_settings_of_a_client(method):
    """What has passed can be used as the engine does: as options, a task, and a model."""
    config = method.client_config
    good = codec.initialize_reply(an_initialize_result(method))
    options = {name: value for name, value in defaults(config).items() if name not in config.client_options}

    def make(rng):
        told = as_values(changed(good.fields["settings"], rng))
        return Message(good.arrays, {**good.fields, "settings": told})

    def check(found):
        told = found.settings
        assert set(told["options"]) == set(options)
        for name, value in told["options"].items():
            wanted = type(options[name])
            assert type(value) in ((int, float) if wanted is float else (wanted,))
            assert wanted is not float or np.isfinite(float(value))
        assert told["task"]["metric"] in METRICS
        assert isinstance(told["model"]["kind"], str)

    loaded, refused = fuzz(
        "settings of a client",
        60,
        make,
        lambda received: codec.read_initialize_reply(received, method),
        check,
        ValueError,
        share=2,
    )
    assert loaded > 20
    assert refused > 200


def sound(found):
    """Numbers that have been read are finite, counts are none below 0, names are texts."""
    parts = [found]
    while parts:
        part = parts.pop()
        if isinstance(part, np.ndarray):
            assert part.dtype.kind in "fiu"
            assert np.all(np.isfinite(part))
        elif isinstance(part, int | float):
            assert np.isfinite(part)
        elif isinstance(part, dict):
            parts += list(part.values())
            assert all(isinstance(key, str) for key in part)
        elif isinstance(part, tuple | list):
            parts += part
        elif isinstance(part, InitializeResult):  # its settings: see `test_settings_of_a_client`
            parts += [part.n_train, part.zero_shot, part.evaluation, part.counters, part.log_probs, part.arrays]
        elif hasattr(part, "__dataclass_fields__"):
            parts += [getattr(part, name) for name in part.__dataclass_fields__]
        else:
            assert part is None or isinstance(part, str)


def test_queries_to_the_model_server():
    texts = named({"columns": ["sentence"], "rows": [["a"], ["b"]], "prompt": True, "perturbed": []})
    query = query_message(Query(named({"model_name": "m"}), texts, np.zeros((2, 3))), in_full=True)

    def check(found):
        assert found.points is None or (found.points.ndim == 2 and np.all(np.isfinite(found.points)))
        for part in (found.black_box, found.texts):
            assert part is None or isinstance(part.handle, str)
            assert part is None or part.content is None or named(part.content).handle == part.handle

    loaded, refused = fuzz(
        "query to the model server", 50, lambda rng: as_values(changed(query, rng)), read_query, check, ValueError
    )
    assert loaded > 20
    assert refused > 500


def test_logits_of_the_model_server():
    good = np.zeros((2, 3, 2)).tolist()

    def check(found):
        assert (found.shape, found.dtype) == ((2, 3, 2), np.float32)  # the search refuses what is not finite

    fuzz(
        "reply of the model server",
        51,
        lambda rng: as_values(changed(good, rng)),
        lambda v: read_logits(v, (2, 3, 2)),
        check,
        ValueError,
    )
