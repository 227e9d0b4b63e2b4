"""Messages of jobs with a learned verbalizer against the table of docs/operations/privacy.md."""

import numpy as np
import pytest

from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.registry import find_method
from flaretune.methods.verbalizer.config import VerbalizerConfig
from tests.engine.in_process import run_job
from tests.learnable import write_reviews
from tests.privacy.table import rows

FEW = {"n_words": 4}
SEARCH = {**FEW, "verbalizer": "learned", "n_prompt_tokens": 2, "intrinsic_dim": 4, "local_iter": 1, "local_popsize": 2}
JOBS = {
    "verbalizer": ("verbalizer", VerbalizerConfig, FEW, {}),
    "with noise": ("verbalizer", VerbalizerConfig, {**FEW, "dp_noise": 2.0}, {}),
    "FedBPT": ("fedbpt", FedBPTConfig, SEARCH, {"num_rounds": 1}),
}


@pytest.mark.parametrize(("method", "config", "options", "server"), JOBS.values(), ids=JOBS)
def test_a_message_has_the_fields_of_the_table_and_no_others(method, config, options, server, roberta, tmp_path):
    data = write_reviews(tmp_path / "data", n_train=60, n_test=10)
    client = config(model_name=str(roberta), dataset=str(data), k_shot=8, **options)
    told = run_job(find_method(method), dict.fromkeys(["site-1", "site-2"], client), tmp_path / "results", **server)
    assert (told.failure, told.client_failures) == ("", {})
    for _, task, _, message in told.replies:
        known = {row.field: row for row in rows() if row.message in ("all", "evaluation", task)}
        said = {name: value for name, value in message.fields.items() if name not in ("settings", "numbers")}
        for part in ("settings", "numbers"):
            said |= {f"{part}.{name}": value for name, value in message.fields.get(part, {}).items()}
        arrays = {"lora" if ".lora_" in name else name: values for name, values in message.arrays.items()}
        assert set(said) | set(arrays) <= set(known)
        for name, values in arrays.items():
            assert values.dtype == known[name].kind.split(" ", 1)[0]
            if "dp_noise" in options and known[name].with_noise == "fixed":
                assert not np.any(values)


def test_the_table_says_noised_of_the_sums_alone():
    own = {"counts", "sums", "squares", "cross", "gram", "losses", "n"}
    assert {row.field for row in rows() if row.field in own and row.with_noise == "noised"} == {"cross", "gram"}
