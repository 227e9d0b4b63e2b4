"""The server's side of a job, and what is made of its results, where no library for models is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from flaretune.methods.registry import find_method
from tests.commands_for_tests import python
from tests.engine.in_process import run_job
from tests.engine.whole_jobs import CLIENTS
from tests.learnable import write_reviews

pytestmark = pytest.mark.slow

OPTIONS = {
    "fedbpt": {"n_prompt_tokens": 3, "intrinsic_dim": 6, "local_iter": 2},
    "lpfl": {"unlabelled": 20, "lora_rank": 2, "local_epochs": 1, "local_steps": 2},
    "verbalizer": {"n_words": 8},
}
MORE = {  # of their options
    "fedbpt, learned": {**OPTIONS["fedbpt"], "verbalizer": "learned", "n_words": 8},
    "lpfl, subspace": {**OPTIONS["lpfl"], "subspace_dim": 7},
}
JOBS = OPTIONS | MORE
# The clients' replies come from files, in the order in which they were sent.
SERVER = f"""
import json, sys
from pathlib import Path
from safetensors import safe_open
from flaretune.engine.results import collect_results
from flaretune.engine.rounds import Job
from flaretune.engine.transport import InProcessTransport
from flaretune.methods.message import Message
from flaretune.methods.registry import find_method

def handler(folder, client):
    kept = iter(sorted(folder.glob(f"{{client}}-*.safetensors")))
    def reply(task, message):
        with safe_open(next(kept), "numpy") as file:
            return Message({{n: file.get_tensor(n) for n in file.keys()}}, json.loads(file.metadata()["fields"]))
    return reply
for job in sys.argv[2:]:
    folder, method = Path(sys.argv[1], job), find_method(job.split(",")[0])
    config = method.server_config(**json.loads((folder / "server.json").read_text()))
    transport = InProcessTransport({{client: handler(folder, client) for client in {CLIENTS}}})
    Job(method, config, transport, folder / "job" / "flaretune").run()
    assert collect_results(folder / "job", folder / "output") is not None
"""
DIFFERS = ("seconds", "overhead_seconds", "server_memory_mb", "artifact")


def numbers(value):
    """A summary without what depends on the machine's state, or on where it lies."""
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items() if not key.startswith(DIFFERS)}
    return [numbers(entry) for entry in value] if isinstance(value, list) else value


def at_once(_client, _task, _round, reply):
    """A reply that says that it took no time, as it is read from a file."""
    reply.fields["seconds"] = 0.0
    return reply


@pytest.fixture(scope="module")
def jobs(roberta, without_models, tmp_path_factory):
    """Folders of jobs by their name, each with the results found here, and those found without libraries for models."""
    folder = tmp_path_factory.mktemp("jobs")
    data = write_reviews(folder / "data", n_train=60, n_test=20)
    options = {"model_name": str(roberta), "dataset": str(data), "k_shot": 6, "dtype": "float32", "eval_clients": "all"}
    for job, more in JOBS.items():
        name = job.split(",")[0]
        config = find_method(name).client_config(**options, **more)
        server = {} if name == "verbalizer" else {"num_rounds": 2}
        told = run_job(
            find_method(name), dict.fromkeys(CLIENTS, config), folder / job / "here", change=at_once, **server
        )
        assert (told.failure, told.client_failures) == ("", {})
        for number, (client, _task, _round, reply) in enumerate(told.replies):
            arrays = {array: np.ascontiguousarray(values) for array, values in reply.arrays.items()}
            fields = {"fields": json.dumps(reply.fields)}
            save_file(arrays, folder / job / f"{client}-{number:03}.safetensors", fields)
        (folder / job / "server.json").write_text(json.dumps(server))
    done = python("-c", SERVER, folder, *JOBS, path=without_models)
    assert done.returncode == 0, done.stderr
    return {job: folder / job for job in JOBS}


@pytest.mark.parametrize("job", JOBS)
def test_a_server_gives_the_same_result_without_torch_and_transformers(job, jobs):
    here, there = (
        json.loads((jobs[job] / folder / "summary.json").read_text(encoding="utf-8")) for folder in ("here", "output")
    )
    assert numbers(there) == numbers(here)
    assert (jobs[job] / "output" / "report.html").stat().st_size > 1000
