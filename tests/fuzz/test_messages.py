"""What a site may tell the server, and a server its sites: every reader of messages, with fields that do not belong."""

import copy
from dataclasses import fields

import numpy as np
import pytest
from flaretune.methods.fedbpt.answers import SearchAnswer
from flaretune.methods.lpfl.answers import LPFLSetupAnswer, TrainAnswer
from nvflare.app_common.abstract.fl_model import FLModel

from flaretune.flare import fedbpt_messages, lpfl_messages, messages
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.local_search import LocalResult
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.model_server.protocol import Ask, ask_message, named, read_ask, read_logits
from flaretune.tasks.evaluation import EvaluateAnswer, SetupAnswer
from flaretune.tasks.metrics.registry import METRICS
from flaretune.tasks.spec import load_task, task_table
from tests.flare.sending import COUNTERS, EVALUATION, TASK
from tests.fuzz.guard import fuzz
from tests.fuzz.mutate import as_values, changed, strange_array

pytestmark = pytest.mark.slow

SHAPES = {"x.lora_A.weight": (2, 3), "x.lora_B.weight": (3, 2)}
ARRAYS = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
SETTINGS = {
    "method": "FedBPT",
    "options": {"seed": 1},
    "task": {"name": "t", **TASK},
    "model": {"name": "m"},
    "popsize": 5,
}
SETUP = SetupAnswer(SETTINGS, 8, EVALUATION.test, EVALUATION, COUNTERS)
TOLD = {name: list(shape) for name, shape in SHAPES.items()}
INITIAL = {**SETTINGS, "adapter": {"r": 2}, "initial": TOLD, "parameters": TOLD}
SEARCH = SearchAnswer(LocalResult(np.zeros(5), 0.5, 8.0, 41), 32, COUNTERS, EVALUATION)
TRAIN = TrainAnswer(ARRAYS, 8, 4, 3, 0.5, COUNTERS, EVALUATION)
POINT = Distribution(np.zeros(5), 1.0, np.ones(5))

# By name: a good message, and its reader.
PRIOR = messages.setup_task(["a"])
messages.tell_prior(PRIOR, np.array([0.25, 0.75]))
READERS = {
    "prior": (PRIOR, messages.read_prior),
    "setup answer": (messages.setup_answer(SETUP), messages.read_setup_answer),
    "evaluate answer": (
        messages.evaluate_answer(EvaluateAnswer(EVALUATION, COUNTERS)),
        lambda model: messages.read_evaluate_answer(model, TASK),
    ),
    "search answer": (
        fedbpt_messages.search_answer(SEARCH),
        lambda model: fedbpt_messages.read_search_answer(model, 5, TASK),
    ),
    "train answer": (
        lpfl_messages.train_answer(TRAIN),
        lambda model: lpfl_messages.read_train_answer(model, SHAPES, TASK),
    ),
    "LP-FL setup answer": (
        lpfl_messages.lpfl_setup_answer(
            LPFLSetupAnswer(SetupAnswer(INITIAL, 8, None, EVALUATION, COUNTERS), dict(ARRAYS))
        ),
        lpfl_messages.read_lpfl_setup_answer,
    ),
    "sites": (messages.setup_task(["a", "b"]), messages.read_sites),
    "search task": (
        fedbpt_messages.search_task(["a"], POINT, "diagonal", 2, True, 3.0),
        fedbpt_messages.read_search_task,
    ),
    "evaluate task": (fedbpt_messages.evaluate_task(["a"], np.zeros(5)), fedbpt_messages.read_evaluate_task),
    "train task": (lpfl_messages.train_task(["a"], ARRAYS, 2, True), lpfl_messages.read_train_task),
    "LP-FL evaluate task": (lpfl_messages.evaluate_task(["a"], ARRAYS), lpfl_messages.read_evaluate_task),
}


def change(model: FLModel, rng: np.random.Generator) -> FLModel:
    """With one to three fields or arrays that do not belong."""
    params, meta = dict(model.params), copy.deepcopy(model.meta)
    for _ in range(int(rng.integers(1, 4))):
        if params and rng.random() < 0.5:
            name = list(params)[int(rng.integers(len(params)))]
            what = rng.random()
            if what < 0.7:
                params[name] = strange_array(rng)
            elif what < 0.85:
                del params[name]
            else:
                params["extra"] = params[name]
        else:
            meta = changed(meta, rng)
    found = FLModel(params={})
    found.params, found.meta = {k: as_values(v) for k, v in params.items()}, as_values(meta)
    return found


@pytest.mark.parametrize("name", READERS)
def test_readers_of_messages(name):
    good, read = READERS[name]
    read(good)
    seed = 30 + list(READERS).index(name)
    _, refused = fuzz("message", seed, lambda rng: change(good, rng), read, sound, ValueError, share=len(READERS))
    assert refused > 30


@pytest.mark.parametrize("config", [FedBPTConfig, LPFLConfig])
def test_settings_of_a_site(config):
    """What has passed can be used as the controllers do: as options, a task, and a model."""
    options = {item.name: item.default for item in fields(config) if item.name not in config.local_options}
    task = {"name": "sst2", **{key: value for key, value in task_table(load_task("sst2")).items() if key != "source"}}
    settings = {
        **INITIAL,
        "method": config.method,
        "options": options,
        "task": task,
        "model": {"name": "m", "kind": "masked", "hidden_size": 32},
    }
    method = {"FedBPT": messages, "LP-FL": lpfl_messages}[config.method]
    read = {"FedBPT": messages.read_setup_answer, "LP-FL": lpfl_messages.read_lpfl_setup_answer}[config.method]
    params = {**messages.evaluation_arrays(EVALUATION), **(ARRAYS if method is lpfl_messages else {})}

    def make(rng):
        told = as_values(changed(settings, rng))
        return messages.message(params, {"settings": told, "n_train": 8, **messages.counter_fields(COUNTERS)})

    def check(found):
        told = found.settings if method is messages else found.setup.settings
        assert set(told["options"]) == set(options)
        for name, value in told["options"].items():
            wanted = type(options[name])
            assert type(value) in ((int, float) if wanted is float else (wanted,))
            assert wanted is not float or np.isfinite(float(value))
        assert told["task"]["metric"] in METRICS
        assert told["model"]["kind"] == "masked" or isinstance(told["model"]["kind"], str)
        assert config is LPFLConfig or told["popsize"] >= 2

    loaded, refused = fuzz(
        "settings of a site", 60, make, lambda model: read(model, config=config), check, ValueError, share=2
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
        elif isinstance(part, SetupAnswer):
            parts += [part.n_train, part.zero_shot, part.evaluation, part.counters]  # settings: see `agree`
        elif hasattr(part, "__dataclass_fields__"):
            parts += [getattr(part, name) for name in part.__dataclass_fields__]
        else:
            assert part is None or isinstance(part, str)


def test_questions_to_the_service():
    texts = named({"columns": ["sentence"], "rows": [["a"], ["b"]], "prompt": True, "perturbed": []})
    ask = ask_message(Ask(named({"model_name": "m"}), texts, np.zeros((2, 3))), in_full=True)

    def check(found):
        assert found.points is None or (found.points.ndim == 2 and np.all(np.isfinite(found.points)))
        for part in (found.black_box, found.texts):
            assert part is None or isinstance(part.handle, str)
            assert part is None or part.content is None or named(part.content).handle == part.handle

    loaded, refused = fuzz(
        "question to the service", 50, lambda rng: as_values(changed(ask, rng)), read_ask, check, ValueError
    )
    assert loaded > 20
    assert refused > 500


def test_answers_of_the_service():
    good = np.zeros((2, 3, 2)).tolist()

    def check(found):
        assert (found.shape, found.dtype) == ((2, 3, 2), np.float32)  # the search refuses what is not finite

    fuzz(
        "answer of the service",
        51,
        lambda rng: as_values(changed(good, rng)),
        lambda v: read_logits(v, (2, 3, 2)),
        check,
        ValueError,
    )


@pytest.mark.parametrize("run", ["../x", "a/b", "..", ".", "A", "0f\n", "0" * 65, "/etc", "~", None, 5])
def test_a_run_s_name_is_no_path(run):
    task = messages.setup_task(["a"])
    messages.tell_run(task, run, 1)
    with pytest.raises(ValueError, match="the run's name"):
        messages.read_run(task)
