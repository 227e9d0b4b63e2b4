"""Paths that NVFlare's simulator would part at blanks; nothing is started."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from nvflare.recipe import SimEnv

from flaretune.errors import UserError
from flaretune.flare.fixes.simulator_paths import plain_paths


@pytest.mark.parametrize("name", ["My Projects", "a#b", "it's", 'a"b'])
def test_the_simulator_sees_plain_names_of_the_same_folders(name, tmp_path):
    place = tmp_path / name
    place.mkdir()
    (place / "log.json").write_text("{}", encoding="utf-8")
    env = SimEnv(num_clients=1, workspace_root=str(place / "workspace"), log_config=str(place / "log.json"))
    before = env.workspace_root, env.log_config, sys.executable
    with plain_paths(env):
        command = f"{sys.executable} -w {env.workspace_root} -l{env.log_config}"
        assert shlex.split(command, True) == [sys.executable, "-w", env.workspace_root, f"-l{env.log_config}"]
        Path(env.workspace_root, "result").write_text("found", encoding="utf-8")
        assert Path(env.log_config).read_text(encoding="utf-8") == "{}"
        code = "import os, sys; print(os.path.realpath(sys.prefix))"
        prefix = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert prefix.stdout.strip() == os.path.realpath(sys.prefix)  # with its packages
    assert (env.workspace_root, env.log_config, sys.executable) == before
    assert (place / "workspace" / "result").read_text(encoding="utf-8") == "found"


def test_plain_paths_stay_as_they_are(tmp_path):
    env = SimEnv(num_clients=1, workspace_root=str(tmp_path), log_config="concise")
    with plain_paths(env):
        assert (env.workspace_root, env.log_config) == (str(tmp_path), "concise")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_temporary_files_with_a_blank_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "a b").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a b"))
    env = SimEnv(num_clients=1, workspace_root=str(tmp_path / "a b" / "workspace"))
    sentence = r"a b', must have a path without blanks, quotes and # .*; set TMPDIR to one"
    with pytest.raises(UserError, match=sentence), plain_paths(env):
        pass
