"""A small plan, a job that is none, the numbers that it leaves, and results for table and figure."""

from __future__ import annotations

from pathlib import Path

from compare_result import Result
from compare_table import Layout

PLAN = """
seeds = [3, 1]
[common]
model_name = "{cache}/model"
n_clients = 3
k_shot = 12
[method.lpfl]
unlabelled = 40
num_rounds = 2
[method.fedbpt]
intrinsic_dim = 7
[splits]
IID = { iid = 1 }
Skewed = { iid = 0, alpha_dir = 0.5 }
[[rows]]
name = "LP-FL"
method = "lpfl"
[[rows]]
name = "centralised (all)"
method = "lpfl"
splits = ["IID"]
options = { n_clients = 1, k_shot = 24 }
[[rows]]
name = "FedBPT"
method = "fedbpt"
splits = ["Skewed"]
"""
# A job that ends well, badly, or not at all, by its seed's place in the plan; it counts how often it was started.
FAKE_JOB = """
import json, pathlib, subprocess, sys, time
flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[1:])
folder = pathlib.Path(flags["output"])
with open(folder.parent / "started.txt", "a") as file:
    print(folder.name, file=file)
print("a line of the job's log")
if folder.name in {failing}:
    print("error: site-2: there is no model at /x", file=sys.stderr)
    sys.exit(1)
if folder.name in {hanging}:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (folder / "pids.partial").write_text(str(child.pid))
    (folder / "pids.partial").rename(folder / "pids.txt")
    time.sleep(600)
for name in ("workspace", "best_adapter", "last_adapter", "rounds", "tb_events"):
    (folder / name).mkdir()
    (folder / name / "large").write_text("x")
values = {summary}
(folder / "summary.json").write_text(json.dumps(values))
(folder / "config.json").write_text(json.dumps({{"options": {{}}, "versions": {{"torch": "2.0"}}}}))
"""
SEED_3 = ["lp-fl-iid-3", "lp-fl-skewed-3", "centralised-all-iid-3", "fedbpt-skewed-3"]
SEED_1 = [name.removesuffix("3") + "1" for name in SEED_3]


def a_summary(**changes):
    values = {
        "zero_shot_accuracy": 0.5, "test_accuracy": 0.8, "validation_accuracy": 0.9, "best_round": 2, "queries": 9,
        "example_forwards": 1000, "bytes_down_per_client_round": 1500.0, "bytes_up_per_client_round": 1400.0,
        "memory_mb": 900.5, "seconds": 61.0, "method": "LP-FL", "artifact": "a", "artifact_kind": "adapter",
        "task": "t", "metric": "accuracy", "metric_title": "accuracy", "clients": ["site-1"],
        "trained_parameters": 4096, "soft_label_agreement": 0.75, "rounds": [{}, {}, {"accuracy": 0.78}],
    }  # fmt: skip
    return {**values, **changes}


def write_plan(folder: Path, text: str = PLAN) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def started(tmp_path: Path) -> list[str]:
    """Folders of the jobs that were started since the last call."""
    file = tmp_path / "out" / "started.txt"
    names = file.read_text(encoding="utf-8").split() if file.exists() else []
    file.unlink(missing_ok=True)
    return names


def a_result(row="LP-FL", split="IID", seed=1, **changes):
    values = {
        "row": row, "split": split, "seed": seed, "method": "LP-FL", "test_accuracy": 0.8, "zero_shot_accuracy": 0.5,
        "validation_accuracy": 0.9, "best_round": 2, "rounds": 5, "bytes_down_per_client_round": 1.5e6,
        "bytes_up_per_client_round": 1.4e6, "parameters": 368640, "example_forwards": 1000, "memory_mb": 900.0,
        "seconds": 60.0, "soft_label_agreement": None,
    }  # fmt: skip
    return Result(**{**values, **changes})


LAYOUT = Layout({"LP-FL": ("IID", "Skewed"), "FedBPT": ("IID",), "not run": ("IID",)}, ("IID", "Skewed"), 3)
RESULTS = [
    # mean 0.82, squared deviations 0.0004 + 0 + 0.0004, over n - 1 = 2: 0.02
    a_result(seed=1, test_accuracy=0.80, seconds=50.0, memory_mb=900.0, example_forwards=1000),
    a_result(seed=2, test_accuracy=0.82, seconds=70.0, memory_mb=1500.4, example_forwards=2000),
    a_result(seed=3, test_accuracy=0.84, seconds=60.0, memory_mb=800.0, example_forwards=3000),
    # two of three seeds: mean 0.7, deviations ±0.1, over 1: sqrt(0.02) = 0.1414
    a_result(split="Skewed", seed=1, test_accuracy=0.60, zero_shot_accuracy=0.49, seconds=80.0, example_forwards=4000),
    a_result(split="Skewed", seed=2, test_accuracy=0.80, zero_shot_accuracy=0.51, seconds=90.0, example_forwards=5000),
    a_result(
        "FedBPT", method="FedBPT", test_accuracy=0.755, parameters=100, rounds=12, bytes_down_per_client_round=2673.0,
        bytes_up_per_client_round=812.0, example_forwards=62976, memory_mb=1034.6, seconds=218.4,
    ),
]  # fmt: skip
