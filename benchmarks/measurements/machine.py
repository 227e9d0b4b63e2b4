"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

from flaretune.engine.summary import versions


def circumstances() -> dict[str, Any]:
    """Machine, versions and date, for the end of a result."""
    return {"machine": machine(), "versions": versions(), "date": date.today().isoformat()}


def machine() -> str:
    """Cores, processor, memory and GPUs of this machine, in words."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8") if info.is_file() else "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = [f"{cores} cores of {model[1] if model else platform.processor()}"]
    words.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        words += subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    return ", ".join(words)
