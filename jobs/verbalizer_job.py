"""Run a verbalizer job, or export it: `python jobs/verbalizer_job.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from flaretune.cli.jobs import main

if __name__ == "__main__":
    sys.exit(main("verbalizer"))
