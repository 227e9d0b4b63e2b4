"""benchmarks/gpu.py where there is no GPU: what it may import, what it writes, what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "benchmarks" / "gpu.py"
BLOCKED = ("nvflare", "datasets", "cma")


def run(*argv: str) -> subprocess.CompletedProcess:
    """The script in a process where the modules it must not need cannot be imported."""
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({BLOCKED}))\n"
        f"sys.path[:0] = {[str(SCRIPT.parent), str(REPOSITORY / 'src')]}\n"  # as where the script is run
        f"sys.argv = {[str(SCRIPT), *argv]!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_try_on_the_cpu_without_nvflare_datasets_and_cma(tmp_path):
    result = tmp_path / "gpu.json"
    done = run("--device", "cpu", "--shapes", "tiny", "--repeats", "1", "--clients", "1", "2", "--json", str(result))
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["device"].startswith("CPU, ")
    assert set(found) >= {"date", "machine", "versions", "seconds"}
    for name, perturb in (("plain", 0), ("perturbed", 1)):
        assert found[name]["settings"]["perturb"] == perturb
        assert {"tiny-masked", "tiny-causal"} == set(found[name]["shapes"])
        assert found[name]["ratio_masked"] > 0
    for memory in found["memory_mb"].values():
        assert set(memory["shared"]) == set(memory["copies"]) == {"1", "2"}
        assert None not in memory["copies"].values()
        assert (memory["context"], memory["measured_by"]) == (None, "resident set of the process")
    assert "| tiny-causal | cached text |" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    result = tmp_path / "gpu.json"
    done = run("--json", str(result))
    assert done.returncode == 1
    assert done.stderr == "error: --device cuda: this machine has no CUDA device; use a GPU, or cpu for a try\n"
    assert not result.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--shapes", "bert"], "error: shape 'bert' is unknown: use one of roberta-base"),
        (["--shapes", "tiny", "--clients", "0"], "error: --clients 0: must be at least 1"),
    ],
)
def test_what_is_refused(argv, message, capsys):
    assert gpu.main(["--device", "cpu", *argv]) == 1
    assert capsys.readouterr().err.startswith(message)
