"""Everything that the processes of a client send in a job of NVFlare's simulator, frame by frame."""

import os
import sys
from pathlib import Path

import pytest

from tests.jobs_for_tests import REPOSITORY, command_in
from tests.privacy.clients_with_secrets import secrets_in, write_secret_reviews

pytestmark = pytest.mark.slow

JOBS = {
    "fedbpt": ["--n_prompt_tokens", "3", "--intrinsic_dim", "6", "--local_iter", "2"],
    "lpfl": ["--lora_rank", "2", "--local_epochs", "1", "--local_steps", "2", "--unlabelled", "12"],
}
KNOWN = {"fedbpt": b"sigma_square_sum", "lpfl": b".lora_A.weight"}


@pytest.mark.parametrize("method", JOBS)
def test_no_process_of_a_client_sends_texts_tokens_labels_or_paths(method, folders, tmp_path, monkeypatch):
    listened = tmp_path / "listened"
    listened.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent / "listening"), str(REPOSITORY / "src")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([path, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FLARETUNE_LISTEN", str(listened))
    files = {name: write_secret_reviews(tmp_path, 90, seed) for seed, name in enumerate(("north", "south"), start=5)}
    clients = tmp_path / "clients.toml"
    clients.write_text("".join(f'[{name}]\ndata_path = "{file}"\n' for name, file in files.items()), encoding="utf-8")
    done = command_in(tmp_path)(
        *[
            sys.executable,
            f"jobs/{method}_job.py",
            "--per_client",
            clients,
            "--output",
            tmp_path / "out",
            "--num_rounds",
            "2",
        ],
        *["--model_name", folders["roberta"], "--k_shot", "8", "--dtype", "float32", "--eval_clients", "all"],
        *JOBS[method],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sent = b"".join(file.read_bytes() for file in listened.glob("client_*"))
    assert sent.count(KNOWN[method]) >= 2  # what is to be sent is found
    for file in files.values():
        secrets = secrets_in(file, folders["roberta"])
        assert [what for what, value in secrets.items() if value in sent] == []
        assert str(file).encode() not in sent
