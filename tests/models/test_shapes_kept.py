"""oneDNN is told how many shapes to keep what it has compiled for, unless a user says so."""

import os
import subprocess
import sys

import pytest

NAME = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@pytest.mark.parametrize(("given", "expected"), [(None, "16"), ("512", "512")])
def test_the_number_of_shapes(given, expected):
    environment = {key: value for key, value in os.environ.items() if key != NAME}
    if given is not None:
        environment[NAME] = given
    code = f"import flaretune.models, os; print(os.environ[{NAME!r}])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
