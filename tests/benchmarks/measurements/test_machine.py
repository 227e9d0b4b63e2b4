import os
import re

from measurements.machine import machine


def test_cores_memory_and_gpus(tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"
    fake.write_text('#!/bin/sh\n[ "$*" = "--query-gpu=name --format=csv,noheader" ] && printf "GPU A\\nGPU B\\n"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert re.fullmatch(rf"{len(os.sched_getaffinity(0))} cores of .*, \d+ GiB, GPU A, GPU B", machine())
