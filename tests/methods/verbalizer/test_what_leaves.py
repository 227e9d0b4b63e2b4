"""Messages of a verbalizer job against the table of docs/operations/privacy.md."""

import numpy as np
import pytest

from flaretune.methods.registry import find_method
from flaretune.methods.verbalizer.config import VerbalizerConfig
from tests.engine.in_process import run_job
from tests.learnable import write_reviews
from tests.privacy.table import rows


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_a_message_has_the_fields_of_the_table_and_no_others(noise, roberta, tmp_path):
    data = write_reviews(tmp_path / "data", n_train=60, n_test=10)
    config = VerbalizerConfig(model_name=str(roberta), dataset=str(data), n_words=4, k_shot=8, dp_noise=noise)
    told = run_job(find_method("verbalizer"), dict.fromkeys(["site-1", "site-2"], config), tmp_path / "results")
    assert told.failure == ""
    for _, task, _, message in told.replies:
        known = {row.field: row for row in rows() if row.message in ("all", "evaluation", task)}
        said = {name: value for name, value in message.fields.items() if name not in ("settings", "numbers")}
        for part in ("settings", "numbers"):
            said |= {f"{part}.{name}": value for name, value in message.fields.get(part, {}).items()}
        assert set(said) | set(message.arrays) <= set(known)
        for name, values in message.arrays.items():
            assert values.dtype == known[name].kind.split(" ", 1)[0]
            if noise and known[name].with_noise == "fixed":
                assert not np.any(values)


def test_the_table_says_noised_of_the_sums_alone():
    own = {"counts", "sums", "squares", "cross", "gram", "losses", "n"}
    assert {row.field for row in rows() if row.field in own and row.with_noise == "noised"} == {"cross", "gram"}
