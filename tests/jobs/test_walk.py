"""What run_local.py does besides the guide's commands: folders, texts, processes. Nothing of NVFlare is started."""

import csv
import json
import os
import subprocess
import time

import processes
import psutil
import pytest
import run_local

from flaretune.errors import UserError


def run(commands, folder, environment=None, seconds=20.0):
    with (folder / "log.txt").open("ab") as log:
        return processes.run_commands(commands, folder, {**os.environ, **(environment or {})}, log, seconds)


def test_commands_know_what_those_before_have_set(tmp_path):
    first = run('NAME=a\ngreet() { echo "hello $1"; }\nTEXT="two\nlines"', tmp_path)
    assert (first["NAME"], first["TEXT"]) == ("a", "two\nlines")
    second = run('SAID=$(greet "$NAME")', tmp_path, first)
    assert second["SAID"] == "hello a"


@pytest.mark.parametrize(
    "commands", ["false\necho later", "false | cat\necho later", "X=$(false)\necho later", "echo $NOT_SET_X"]
)
def test_commands_end_at_the_first_that_fails(commands, tmp_path):
    with pytest.raises(UserError, match="it ended with status 1"):
        run(commands, tmp_path)
    assert "later" not in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_commands_have_a_limit(tmp_path):
    with pytest.raises(UserError, match="it was not done after 0 s"):
        run("sleep 60", tmp_path, {processes.MARK: str(tmp_path)}, seconds=0.2)
    processes.end_all(tmp_path)


@pytest.mark.slow
def test_all_that_a_federation_started_is_ended(tmp_path):
    """Also what left its session, lost its parent, is started anew by a script or does not listen to SIGTERM."""
    environment = {processes.MARK: str(tmp_path)}
    run("setsid sleep 300 > /dev/null 2>&1 &", tmp_path, environment)
    run("(while true; do sleep 301; done) > /dev/null 2>&1 &", tmp_path, environment)
    run("setsid bash -c 'trap \"\" TERM; while true; do sleep 302; done' > /dev/null 2>&1 &", tmp_path, environment)
    other = subprocess.Popen(["sleep", "303"], env={**os.environ, processes.MARK: str(tmp_path / "another")})
    try:
        before = processes.members(tmp_path)
        assert len(before) >= 3
        with pytest.raises(UserError, match="of its processes still ran"):
            processes.wait_for_end(tmp_path, 0)
        processes.end_all(tmp_path, patience=0.5)
        assert not processes.members(tmp_path)
        assert not [process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        processes.wait_for_end(tmp_path, 0)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_each_site_gets_texts_that_no_other_has(tmp_path):
    data = tmp_path / "all.csv"
    with data.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["sentence", "label"], *([f"text, {i}", i % 2] for i in range(600))])
    files = run_local.deal_out(data, tmp_path)
    assert {name: file.name for name, file in files.items()} == run_local.HOSPITALS
    texts = []
    for file in files.values():
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = list(map(json.loads, lines)) if file.suffix == ".jsonl" else list(csv.DictReader(lines))
        assert {row["label"] for row in rows} in ({0, 1}, {"0", "1"})
        texts.append({row["sentence"] for row in rows})
    assert [len(own) for own in texts] == [run_local.ROWS] * 3
    assert len(set.union(*texts)) == 3 * run_local.ROWS


def test_texts_that_are_not_there_or_too_few(tmp_path):
    with pytest.raises(UserError, match="`python -m flaretune fetch` brings the default"):
        run_local.deal_out(tmp_path / "none.csv", tmp_path)
    (tmp_path / "few.csv").write_text("sentence,label\na,1\n", encoding="utf-8")
    with pytest.raises(UserError, match="has 1 rows; give at least 480"):
        run_local.deal_out(tmp_path / "few.csv", tmp_path)


def test_a_folder_with_something_else_is_left_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_local, "_on_signals", lambda do: None)
    (tmp_path / "thesis.txt").write_text("years", encoding="utf-8")
    assert run_local.main(["--output", str(tmp_path)]) == 1
    assert "holds something else; give a new folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years"


def test_a_folder_in_which_a_federation_runs_is_left_alone(tmp_path):
    (tmp_path / run_local.LOG).touch()
    running = subprocess.Popen(["sleep", "300"], env={**os.environ, processes.MARK: str(tmp_path)})
    try:
        for _ in range(100):  # until it has become `sleep`
            if processes.members(tmp_path):
                break
            time.sleep(0.05)
        with pytest.raises(UserError, match=f"a federation runs there, as process {running.pid}"):
            run_local.empty(tmp_path)
    finally:
        running.kill()
        running.wait()
    run_local.empty(tmp_path)
    assert not list(tmp_path.iterdir())


GUIDE = """
## 1. Begin
**administrator:**
```sh
mkdir kits && for name in localhost hospital-a hospital-b hospital-c; do echo "kit of $name" > "kits/$name.tgz"; done
```
**server, clients:**
```sh
cat "$SITE.tgz" >> ../said
```
**clients, if installed:**
```sh
exit 7
```
## 2. Job
**administrator:**
```sh
echo one
echo two
false
```
## 3. Never
**administrator:**
```sh
touch ../never
```
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Walk through a small guide; returns the exit status, of a folder beside it."""
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    with (tmp_path / "texts.csv").open("w", encoding="utf-8") as file:
        file.writelines(["sentence,label\n", *(f"text {i},{i % 2}\n" for i in range(3 * run_local.ROWS))])
    monkeypatch.setattr(run_local, "GUIDE", tmp_path / "guide.md")
    monkeypatch.setattr(run_local, "light_environment", lambda folder: None)
    monkeypatch.setattr(run_local, "_on_signals", lambda do: None)
    common = ["--output", str(tmp_path / "out"), "--data", str(tmp_path / "texts.csv"), "--model_name", "a-model"]
    return lambda *flags: run_local.main([*common, *flags])


def test_every_party_gets_its_kit_and_runs_what_is_its_own(small, tmp_path, capsys):
    assert small("--until", "1. Begin") == 0
    kits = (tmp_path / "out" / "said").read_text(encoding="utf-8").splitlines()
    assert kits == [f"kit of {name}" for name in ("localhost", *run_local.HOSPITALS)]
    assert [path.name for path in (tmp_path / "out" / "hospital-b").glob("*.tgz")] == ["hospital-b.tgz"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("clients_say", [False, True])
def test_a_step_that_fails_is_one_sentence(clients_say, small, tmp_path, capsys):
    """With what clients have recorded as wrong in the folders of their jobs, if they have."""
    if clients_say:
        record = """mkdir -p ../hospital-a/run && echo '{"who": "hospital-a", "sentence": "no such file"}' > """
        guide = GUIDE.replace("echo one", f"{record} ../hospital-a/run/errors.jsonl")
        (tmp_path / "guide.md").write_text(guide, encoding="utf-8")
    assert small() == 1
    reason = "hospital-a said: no such file" if clients_say else "its last words were 'one / two'"
    assert capsys.readouterr().err == (
        f"error: guide.md:17, '2. Job', run by administrator: it ended with status 1; {reason}; "
        f"all that was said is in {tmp_path / 'out' / 'log.txt'}\n"
    )
    assert not (tmp_path / "out" / "never").exists()


def test_a_step_of_one_way_alone_and_a_step_without_a_word(small, capsys):
    assert small("--code", "installed") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: guide.md:12, '1. Begin', run by hospital-a: it ended with status 7; all that was")


def test_a_section_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no such section; there are '1\. Provision', "):
        run_local.walk(tmp_path, "carried", "a-model", tmp_path / "texts.csv", "2", time.monotonic() + 60)
