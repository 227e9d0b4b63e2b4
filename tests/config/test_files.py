import pytest

from flaretune.config.files import read_client_tables, read_options
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig


@pytest.fixture
def write(tmp_path):
    def to_file(text: str | bytes):
        file = tmp_path / "options.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return to_file


def test_options_come_with_their_types(write):
    file = write('task_name = "sst2"\nsigma = 2\nalpha = 0.5\nnum_rounds = 7\n')
    options, _ = read_options(file, FedBPTConfig, FedBPTServerConfig)
    assert options == {"task_name": "sst2", "sigma": 2.0, "alpha": 0.5, "num_rounds": 7}
    assert type(options["sigma"]) is float  # a whole number is fine where any number may stand


def test_each_method_has_its_own_options(write):
    file = write('soft_labels = "off"\nlora_alpha = 8\ninit_adapter = "a"\n')
    options, _ = read_options(file, LPFLConfig, LPFLServerConfig)
    assert options == {"soft_labels": "off", "lora_alpha": 8.0, "init_adapter": "a"}
    assert type(options["lora_alpha"]) is float
    with pytest.raises(UserError, match="there is no option 'soft_labels'"):
        read_options(file, FedBPTConfig, FedBPTServerConfig)


def test_a_byte_order_mark_and_an_empty_file_are_fine(write):
    assert read_options(write("\ufeffseed = 3\n"), FedBPTConfig)[0] == {"seed": 3}
    assert read_options(write(""), FedBPTConfig)[0] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("intrinsic_dmi = 500", r"there is no option 'intrinsic_dmi'; did you mean 'intrinsic_dim'\?"),
        ("zzz = 1", "there is no option 'zzz'; there are alpha, alpha_dir, .*verbalizer$"),
        ("num_rounds = 5", "there is no option 'num_rounds'"),
        ('k_shot = "16"', "k_shot = '16': must be a whole number"),
        ("k_shot = 16.0", "k_shot = 16.0: must be a whole number"),
        ("iid = 2", "iid = 2: must be one of 0, 1"),
        ("sigma = true", "sigma = True: must be a number"),
        ('sigma = "1"', "sigma = '1': must be a number"),
        ("task_name = 1", "task_name = 1: must be a text"),
        ("task_name = ['a']", r"task_name = \['a'\]: must be a text"),
        ("[seed]\nvalue = 1", r"seed = \{'value': 1\}: must be a whole number"),
    ],
)
def test_a_wrong_entry_is_named_with_the_file(write, text, message):
    file = write(text)
    with pytest.raises(UserError, match=message) as refused:
        read_options(file, FedBPTConfig)
    assert str(refused.value).startswith(f"{file}, line 1: ")


@pytest.mark.parametrize("text", ["seed 3", "seed = 3\nseed = 4", b"note = '\xff'"])
def test_what_is_not_toml_is_refused(write, text):
    with pytest.raises(UserError, match=r"options\.toml is not valid TOML: "):
        read_options(write(text), FedBPTConfig)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.toml cannot be read \(No such file or directory\); check its path"):
        read_options(tmp_path / "absent.toml", FedBPTConfig)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_options(tmp_path, FedBPTConfig)


def test_tables_by_client_are_read_with_their_types(write):
    file = write('[hospital-a]\ndata_path = "/a.csv"\n["client 2"]\nsigma = 1\n[empty]\n')
    tables, _ = read_client_tables(file, FedBPTConfig)
    assert tables == {"hospital-a": {"data_path": "/a.csv"}, "client 2": {"sigma": 1.0}, "empty": {}}
    assert type(tables["client 2"]["sigma"]) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('data_path = "/a.csv"', r"data_path stands outside of a table; write it under \[NAME-OF-A-CLIENT\]"),
        ("[site-1]\ndevise = 'cpu'", r"table \[site-1\]: there is no option 'devise'; did you mean 'device'\?"),
        ("[site-1]\nbatch_size = 0.5", r"table \[site-1\]: batch_size = 0.5: must be a whole number"),
        ("[site-1.device]\na = 1", r"table \[site-1\]: device = \{'a': 1\}: must be a text"),
    ],
)
def test_a_wrong_table_is_named(write, text, message):
    with pytest.raises(UserError, match=message):
        read_client_tables(write(text), FedBPTConfig)


def test_all_that_is_wrong_with_a_file_is_told_with_its_lines(write):
    file = write("k_shot = 0\n\nalpha = 'x'\nsigna = 1\n")
    with pytest.raises(UserError) as refused:
        read_options(file, FedBPTConfig)
    assert str(refused.value) == (
        f"3 options are wrong: (1) {file}, line 4: there is no option 'signa'; did you mean 'sigma'? "
        f"(2) {file}, line 1: k_shot = 0: must be at least 1 (3) {file}, line 3: alpha = 'x': must be a number"
    )
    file = write("[a]\nk_shot = 0\n[b]\ndevise = 'cpu'\n")
    with pytest.raises(UserError) as refused:
        read_client_tables(file, FedBPTConfig)
    assert str(refused.value).startswith("2 options are wrong: ")
    assert f"{file}, line 4, table [b]: there is no option 'devise'" in str(refused.value)


def test_old_names_in_files_are_taken_and_told(write):
    options, sentences = read_options(
        write('lm = "http://a:1"\naggregation = "plain"\n'), FedBPTConfig, FedBPTServerConfig
    )
    assert options == {"model_server": "http://a:1", "aggregation": "mean"}
    assert len(sentences) == 2
    tables, [sentence] = read_client_tables(write('[a]\nlm = "http://a:1"\n'), FedBPTConfig)
    assert tables == {"a": {"model_server": "http://a:1"}}
    assert "table [a]: lm is now model_server" in sentence
