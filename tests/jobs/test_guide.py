"""The guide docs/operations/federation.md, and how it is read; test_federation.py runs it."""

import re
import shlex
from pathlib import Path

import guide
import pytest
import run_local

from flaretune.cli.jobs import JobConfig, parse, read_preset
from flaretune.config.options import build
from flaretune.errors import UserError
from flaretune.methods.registry import METHODS
from tests.jobs_for_tests import REPOSITORY

BLOCKS = guide.read_blocks(run_local.GUIDE)
TEXT = run_local.GUIDE.read_text(encoding="utf-8")


def test_every_block_of_commands_is_read():
    assert len(BLOCKS) == TEXT.count("```") / 2 > 10


def test_all_commands_are_run_but_those_for_other_hosts_an_abort_and_the_proof_of_concept():
    """What is left out is done by run_local.py in another way: sending, and installing packages."""
    left_out = [block for block in BLOCKS if not any(block.runs(way) for way in guide.WAYS)]
    assert [block.words for block in left_out] == [("other hosts",)] * 3 + [("anybody",)] * 2
    made, sent, installed, abort, _ = (block.commands for block in left_out)
    assert made.splitlines() == ['make -C "$FLARETUNE" .venv/ready', '. "$FLARETUNE/.venv/bin/activate"']
    assert {line.split()[0] for line in sent.splitlines()} == {"scp"}
    assert installed.splitlines() == ["python3 -m venv venv", "venv/bin/python -m pip install -r requirements.txt"]
    assert abort.splitlines() == ['nvflare job abort "$ID" --force --startup-kit "$KIT"']


def test_both_ways_differ_only_in_blocks_that_say_so():
    carried, installed = ([block for block in BLOCKS if block.runs(way)] for way in guide.WAYS)
    assert [block for block in installed if "if installed" not in block.words] == carried
    assert len(installed) > len(carried)


def test_the_table_names_the_variables_that_each_party_has(tmp_path, monkeypatch):
    rows = re.findall(r"^\| `([A-Z]+)` \| ([a-z, ]+) \|", TEXT, re.MULTILINE)
    told = {name: {word.strip() for word in who.split(",")} for name, who in rows}
    monkeypatch.setattr(run_local, "deal_out", lambda data, folder: dict.fromkeys(run_local.HOSPITALS, Path("/texts")))
    monkeypatch.setattr(run_local, "light_environment", lambda folder: None)
    parties = {party.name: party for party in run_local.gather(tmp_path, "carried", "a-model", Path("texts.csv"))}
    for word, names in run_local.NAMES.items():
        used = {name for block in BLOCKS if word in block.parties for name in re.findall(r"\$([A-Z]+)", block.commands)}
        assigned = {
            name for block in BLOCKS if word in block.parties for name in re.findall(r"\b([A-Z]+)=", block.commands)
        }
        asked_for = used - assigned - {"PWD"}
        assert asked_for == {name for name, who in told.items() if word in who}
        for name in names:
            assert asked_for <= parties[name].environment.keys()


@pytest.mark.parametrize(("method", "name"), [(METHODS["fedbpt"], "fedbpt"), (METHODS["lpfl"], "lpfl")])
def test_the_guide_s_jobs_are_named_as_it_says_and_leave_to_clients_what_is_theirs(method, name):
    options = read_preset(method, str(REPOSITORY / "jobs" / "federation" / f"{name}.toml"))
    assert f"jobs/{options['name']})" in TEXT
    build(method.client_config, options)
    assert build(method.server_config, options).min_clients == len(run_local.HOSPITALS)
    assert not {"data_path", "unlabelled_path", "device", "dataset"} & options.keys()


def test_proof_of_concept_in_three_commands(monkeypatch):
    """tests/flare/test_fault_jobs.py runs the second, with a small model and texts in place of the demo's."""
    _, block = (block for block in BLOCKS if block.words == ("anybody",))
    commands = [shlex.split(line) for line in block.commands.splitlines()]
    assert len(commands) == 3
    assert commands[1][:2] == ["python", "jobs/fedbpt_job.py"]
    job = build(JobConfig, parse(METHODS["fedbpt"], commands[1][2:]))
    assert job.env == "poc"
    assert commands[2][:5] == ["python", "-m", "flaretune", "predict", "--result"]
    assert Path(commands[2][5]).parent == Path(job.output)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "```sh\nls\n```\n",
            "guide.md:1: '' above the block does not say who runs it; write a line **administrator:**",
        ),
        ("\n**sits:**\n```sh\nls\n```\n", "guide.md:3: '**sits:**' above the block does not say who"),
        ("**if installed:**\n```sh\nls\n```\n", "'**if installed:**' above the block does not say who"),
        ("**clients:**\n\n```sh\nls\n```\n", "guide.md:3: '' above the block"),
        ("**clients:**\n```bash\nls\n```\n", "guide.md:2: ```bash begins no block of commands; write ```sh"),
        ("**clients:**\n```sh\nls\n", "guide.md:2: the block has no end"),
    ],
)
def test_a_guide_that_cannot_be_followed_is_refused(text, sentence, tmp_path):
    file = tmp_path / "guide.md"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(sentence)):
        guide.read_blocks(file)


def test_blocks_are_read_in_order_with_their_sections(tmp_path):
    file = tmp_path / "guide.md"
    file.write_text(
        "# T\n## 1. A\n**server, clients:**\n```sh\na\n\nb\n```\n## 2. B\n**clients, if carried:**\n```sh\nc\n```\n",
        "utf-8",
    )
    first, second = guide.read_blocks(file)
    assert (first.section, first.commands, first.line, first.parties) == ("1. A", "a\n\nb", 4, ["server", "clients"])
    assert (second.section, second.runs("carried"), second.runs("installed")) == ("2. B", True, False)
