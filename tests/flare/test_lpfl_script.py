"""The script that LP-FL's sites start: mistakes in its flags end it at once."""

import subprocess
import sys

import pytest

from tests.jobs_for_tests import REPOSITORY

SCRIPT = REPOSITORY / "src" / "lpfl_train.py"


@pytest.mark.parametrize(
    ("flags", "status", "sentence"),
    [
        (
            ["--model_name", "x"],
            1,
            "--soft_labels on needs unlabelled texts: give --unlabelled N, or --unlabelled_path",
        ),
        (
            ["--soft_labels", "off", "--tuning", "full", "--freeze_a", "1"],
            1,
            "--tuning full --freeze_a 1: there is no A",
        ),
        (["--unlabelled", "-1"], 1, "--unlabelled -1: must be at least 0"),
        (["--soft_labels", "off", "--lora_rank", "0"], 1, "--lora_rank 0: must be at least 1"),
        (["--soft_labels", "off", "--soft_portion", "1.5"], 1, "--soft_portion 1.5: must be at most 1"),
        (["--soft_labels", "off", "--local_iter", "5"], 2, "unrecognized arguments: --local_iter"),
    ],
)
def test_script_ends_at_once_with_a_sentence_and_a_failing_status(flags, status, sentence):
    run = subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, timeout=60)
    assert run.returncode == status
    assert sentence in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
