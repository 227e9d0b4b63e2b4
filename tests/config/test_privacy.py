"""Options of differential privacy that do not go together."""

import pytest

from flaretune.config.client_flags import read_client_config
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.config import LPFLConfig

CONFIGS = [FedBPTConfig, lambda **options: LPFLConfig(unlabelled=4, **options)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dp_noise": -1.0}, "--dp_noise -1.0: must be at least 0"),
        ({"dp_noise": 1.0, "dp_clip": 0.0}, "--dp_clip 0.0: must be above 0"),
        ({"dp_noise": float("inf")}, "--dp_noise inf: must be a finite number"),
        ({"dp_epsilon": 8.0}, "--dp_epsilon 8: this client sends nothing without noise"),
        ({"dp_noise": 1.0, "calibrate": "batch"}, "--dp_noise 1 --calibrate batch: the prior is made from"),
        ({"dp_public_test": 1, "data_path": "own.csv"}, "--dp_public_test 1 with --data_path: test data that a client"),
    ],
)
def test_what_is_refused(config, options, message):
    with pytest.raises(UserError) as refused:
        config(**options)
    assert str(refused.value).startswith(message)


def test_every_parameter_is_not_noised():
    with pytest.raises(UserError, match="--tuning full --dp_noise 1: noise on every parameter"):
        LPFLConfig(unlabelled=4, tuning="full", dp_noise=1.0)


def test_a_client_s_own_limit_goes_before_the_job(tmp_path):
    """It may say how much it spends, and not with how much noise: that must be the same everywhere."""
    file = tmp_path / "flaretune.toml"
    file.write_text("dp_epsilon = 8.0\n", encoding="utf-8")
    assert read_client_config(FedBPTConfig, ["--dp_noise", "2"], file)[0].dp_epsilon == 8.0
    with pytest.raises(UserError, match="this client sends nothing without noise, and the job has none"):
        read_client_config(FedBPTConfig, [], file)
    file.write_text("dp_noise = 0.0\n", encoding="utf-8")
    with pytest.raises(UserError, match="dp_noise must be the same at all clients"):
        read_client_config(FedBPTConfig, ["--dp_noise", "2"], file)


@pytest.mark.parametrize("name", ["dataset", "data_path", "task_name", "task_file"])
def test_test_data_that_a_client_names_for_itself_is_not_public(name, tmp_path):
    """The job says that test data is public: it can say so of its own alone."""
    file, job = tmp_path / "flaretune.toml", ["--dp_noise", "2", "--dp_public_test", "1", "--dataset", "common"]
    file.write_text(f'{name} = "wards"\n', encoding="utf-8")
    with pytest.raises(UserError, match=rf"flaretune\.toml: --dp_public_test 1 tells .* and {name} = '.*wards' names"):
        read_client_config(FedBPTConfig, job, file)
    read_client_config(FedBPTConfig, [*job[:2], *job[4:]], file)
    file.write_text('dataset = "common"\ndevice = "cpu"\n', encoding="utf-8")
    assert read_client_config(FedBPTConfig, job, file)[0].dataset == "common"
