"""Task files and files of options, damaged or made up."""

import pytest

from flaretune.config.client_flags import read_client_config
from flaretune.config.files import read_options
from flaretune.errors import UserError
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.tasks.spec import TaskSpec, available_tasks, load_task, parse_task, task_table
from tests.fuzz.guard import fuzz
from tests.fuzz.mutate import as_values, changed, damaged

pytestmark = pytest.mark.slow

SST2 = task_table(load_task("sst2"))
OPTIONS = b'data_path = "/data/a.csv"\nk_shot = 4\nlora_alpha = 8.0\nsoft_labels = "off"\n'


def test_damaged_task_files(tmp_path):
    file = tmp_path / "task.toml"
    raw = b"""text_columns = ["sentence"]
label_column = "label"
metric = "accuracy"
[masked]
template = "{sentence} . It was {mask} ."
label_words = ["bad", "great"]
[source]
hub = "owner/name"
train = "train"
test = "test"
"""

    def load(data):
        file.write_bytes(data)
        return load_task(str(file))

    loaded, refused = fuzz("task file", 20, lambda rng: damaged(raw, rng), load, whole, UserError)
    assert loaded > 20
    assert refused > 500


def test_made_up_tasks():
    def load(values):
        return parse_task(values, "made up", "a made-up task")

    def make(rng):
        return as_values(changed(SST2, rng))

    loaded, refused = fuzz("task", 21, make, load, whole, UserError)
    assert loaded > 50
    assert refused > 500


def whole(spec):
    """A task that comes back from its own table."""
    assert isinstance(spec, TaskSpec)
    assert task_table(parse_task(task_table(spec), spec.name, "again")) == task_table(spec)


def test_damaged_options(tmp_path):
    file = tmp_path / "flaretune.toml"

    def load(data):
        file.write_bytes(data)
        return read_options(file, LPFLConfig)[0]

    def check(options):
        assert all(type(value) in (str, int, float) for value in options.values())

    fuzz("file of options", 22, lambda rng: damaged(OPTIONS, rng), load, check, UserError)

    def load_site(data):
        file.write_bytes(data)
        return read_client_config(LPFLConfig, ["--unlabelled", "4"], file)[0]

    def check_site(config):
        # k_shot, lora_alpha and soft_labels are not a site's to say: what is left is about its own data
        assert (config.k_shot, config.lora_alpha) == (16, 16.0)

    _, refused = fuzz(
        "file of a site's options", 23, lambda rng: damaged(OPTIONS, rng), load_site, check_site, UserError
    )
    assert refused > 250


@pytest.mark.parametrize("name", ["../sst2", "/etc/passwd", "tasks/sst2", "", ".", "..", "sst2\x00", "SST2", "*"])
def test_names_of_tasks_are_no_paths(name):
    assert "sst2" in available_tasks()
    with pytest.raises(UserError, match="unknown task"):
        load_task(name)
