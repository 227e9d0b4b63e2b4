import pytest

from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig
from flaretune.errors import UserError
from flaretune.config.toml_file import read_toml


@pytest.fixture
def write(tmp_path):
    def to_file(text: str | bytes):
        file = tmp_path / "options.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return to_file


def test_options_come_with_their_types(write):
    file = write('task_name = "sst2"\nsigma = 2\nalpha = 0.5\nnum_rounds = 7\n')
    options = read_toml(file, FedBPTConfig, FedBPTServerConfig)
    assert options == {"task_name": "sst2", "sigma": 2.0, "alpha": 0.5, "num_rounds": 7}
    assert type(options["sigma"]) is float  # a whole number is fine where any number may stand


def test_each_method_has_its_own_options(write):
    file = write('soft_labels = "off"\nlora_alpha = 8\ninit_adapter = "a"\n')
    options = read_toml(file, LPFLConfig, LPFLServerConfig)
    assert options == {"soft_labels": "off", "lora_alpha": 8.0, "init_adapter": "a"}
    assert type(options["lora_alpha"]) is float
    with pytest.raises(UserError, match="there is no option 'soft_labels'"):
        read_toml(file, FedBPTConfig, FedBPTServerConfig)


def test_a_byte_order_mark_and_an_empty_file_are_fine(write):
    assert read_toml(write("\ufeffseed = 3\n"), FedBPTConfig) == {"seed": 3}
    assert read_toml(write(""), FedBPTConfig) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("intrinsic_dmi = 500", r"there is no option 'intrinsic_dmi'; did you mean 'intrinsic_dim'\?"),
        ("zzz = 1", "there is no option 'zzz'; there are task_name, task_file, .*eval_clients, .*upper$"),
        ("num_rounds = 5", "there is no option 'num_rounds'"),
        ('k_shot = "16"', "k_shot = '16' must be of type int"),
        ("k_shot = 16.0", "k_shot = 16.0 must be of type int"),
        ("iid = true", "iid = True must be of type int"),
        ("sigma = true", "sigma = True must be of type float"),
        ('sigma = "1"', "sigma = '1' must be of type float"),
        ("task_name = 1", "task_name = 1 must be of type str"),
        ("task_name = ['a']", r"task_name = \['a'\] must be of type str"),
        ("[seed]\nvalue = 1", r"seed = \{'value': 1\} must be of type int"),
    ],
)
def test_a_wrong_entry_is_named_with_the_file(write, text, message):
    file = write(text)
    with pytest.raises(UserError, match=message) as refused:
        read_toml(file, FedBPTConfig)
    assert str(refused.value).startswith(f"{file}: ")


@pytest.mark.parametrize("text", ["seed 3", "seed = 3\nseed = 4", b"note = '\xff'"])
def test_what_is_not_toml_is_refused(write, text):
    with pytest.raises(UserError, match=r"options\.toml is not valid TOML: "):
        read_toml(write(text), FedBPTConfig)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.toml cannot be read \(No such file or directory\); check its path"):
        read_toml(tmp_path / "absent.toml", FedBPTConfig)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_toml(tmp_path, FedBPTConfig)


def test_tables_by_site_are_read_with_their_types(write):
    file = write('[hospital-a]\ndata_path = "/a.csv"\n["site 2"]\nsigma = 1\n[empty]\n')
    tables = read_toml(file, tables_of=FedBPTConfig)
    assert tables == {"hospital-a": {"data_path": "/a.csv"}, "site 2": {"sigma": 1.0}, "empty": {}}
    assert type(tables["site 2"]["sigma"]) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('data_path = "/a.csv"', r"data_path stands outside of a table; write it under \[NAME-OF-A-SITE\]"),
        ("[site-1]\ndevise = 'cpu'", r"table \[site-1\]: there is no option 'devise'; did you mean 'device'\?"),
        ("[site-1]\nbatch_size = 0.5", r"table \[site-1\]: batch_size = 0.5 must be of type int"),
        ("[site-1.device]\na = 1", r"table \[site-1\]: device = \{'a': 1\} must be of type str"),
    ],
)
def test_a_wrong_table_is_named(write, text, message):
    with pytest.raises(UserError, match=message):
        read_toml(write(text), tables_of=FedBPTConfig)
