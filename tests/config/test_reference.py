"""The committed reference of the options is the one that is made from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flaretune.config.job import JobConfig
from flaretune.config.model_server import ServiceConfig
from flaretune.config.options import options_of
from flaretune.config.reference import options_markdown
from flaretune.methods.registry import METHODS

FILE = Path(__file__).parents[2] / "docs" / "reference" / "options.md"
PAIRS = [(method.client_config, method.server_config) for method in METHODS.values()]
TEXT = options_markdown(PAIRS)
ROWS = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| `")]


def test_the_file_is_up_to_date():
    assert FILE.read_text(encoding="utf-8") == TEXT


def test_every_option_stands_there_once_with_all_that_it_means():
    told = [(row[0].split("`")[1], row[3]) for row in ROWS if len(row) == 5]
    kinds = (JobConfig, ServiceConfig, *(kind for pair in PAIRS for kind in pair))
    assert sorted(told) == sorted({(item.name, item.help.replace("|", "\\|")) for k in kinds for item in options_of(k)})
    names = [name for name, _ in told]
    assert {name for name in names if names.count(name) > 1} == {"device", "num_rounds"}


@pytest.mark.parametrize(
    ("option", "row"),
    [
        ("seed", ["| `seed`", "`42`", "whole number", "seed of everything random in the job", "every method |"]),
        ("covariance", ["| `covariance`", "`diagonal`", "`full`, `diagonal`, `identity`", None, "FedBPT |"]),
        ("k_shot", ["| `k_shot`", "`16`", "whole number, at least 1", None, "every method |"]),
        ("perturb_rate", ["| `perturb_rate`", "`0.5`", "number, above 0, at most 1", None, "FedBPT |"]),
        ("n_clients", ["| `n_clients`", "`2`", "whole number, at least 1", None, "job |"]),
    ],
)
def test_rows(option, row):
    [found] = [r for r in ROWS if r[0].split("`")[1] == option and len(r) == 5]
    assert [cell for cell, wanted in zip(found, row, strict=True) if wanted] == [cell for cell in row if cell]
