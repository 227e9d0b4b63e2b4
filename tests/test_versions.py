"""Which versions are supported is said once and alike everywhere, and newer ones are warned of."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from packaging.version import Version

from flaretune.engine.errors import JobFailed
from flaretune.engine.rounds import Job
from flaretune.engine.transport import InProcessTransport
from flaretune.methods.registry import find_method
from flaretune.versions import NEWEST, untested
from tests.commands_for_tests import python
from tests.versions import oldest

REPOSITORY = Path(__file__).parents[1]
TORCH = Version(NEWEST["torch"])


def installed(folder: Path, **versions: str) -> Path:
    """A folder in which Python finds packages of these versions, as far as it looks for versions."""
    for name, version in versions.items():
        (folder / f"{name}-{version}.dist-info").mkdir()
        said = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(said, encoding="utf-8")
    return folder


@pytest.fixture
def newer(tmp_path) -> Path:
    (tmp_path / "newer").mkdir()
    return installed(tmp_path / "newer", **{**NEWEST, "torch": "97.1.0+cu130", "peft": "98.0.1"})


SENTENCE = (
    "newer than what flaretune was tested with: "
    f"torch 97.1.0+cu130 (tested up to {NEWEST['torch']}), peft 98.0.1 (tested up to {NEWEST['peft']})"
)


@pytest.mark.parametrize(
    ("torch", "is_newer"),
    [
        (f"{TORCH.major}.{TORCH.minor}.{TORCH.micro}", False),
        (f"{TORCH.major}.{TORCH.minor}.{TORCH.micro}+cu130", False),
        (f"{TORCH.major}.{TORCH.minor - 1}.9", False),
        (f"{TORCH.major}.{TORCH.minor}.{TORCH.micro}rc1", False),
        (f"{TORCH.major}.{TORCH.minor}.{TORCH.micro + 1}", True),
        (f"{TORCH.major}.{TORCH.minor + 10}.0", True),
        (f"{TORCH.major}.{TORCH.minor + 1}.0a0+git1234", True),
    ],
)
def test_only_later_versions_are_newer(torch, is_newer, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(installed(tmp_path, **{**NEWEST, "torch": torch}))
    importlib.invalidate_caches()
    sentence = f"newer than what flaretune was tested with: torch {torch} (tested up to {NEWEST['torch']})"
    assert untested() == (sentence if is_newer else "")


def test_a_command_warns_once_on_stderr(newer):
    done = python("-m", "flaretune", "tasks", "list", path=newer)
    assert (done.returncode, done.stderr) == (0, f"warning: {SENTENCE}\n")


def test_a_client_warns_once_in_its_log(newer, tmp_path):
    script = "from flaretune.flare import client_script as c; c._serve = lambda *_: None; c.main('fedbpt', [])"
    done = python("-c", script, path=newer)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"WARNING flaretune.client: {SENTENCE}\n"


def test_a_job_warns_once_in_its_log(newer, tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(newer)
    importlib.invalidate_caches()
    method = find_method("fedbpt")
    silent = InProcessTransport({"site-1": lambda _task, _message: None})
    with pytest.raises(JobFailed):
        Job(method, method.server_config(), silent, tmp_path / "results").run()
    assert [record.getMessage() for record in caplog.records].count(SENTENCE) == 1


def test_the_page_says_what_is_supported():
    page = (REPOSITORY / "docs" / "reference" / "versions.md").read_text(encoding="utf-8")
    said = {
        name: (old, new) for name, old, new in re.findall(r"^\| `([\w-]+)` \| (\S+) \| (\S+) \|$", page, re.MULTILINE)
    }
    bounds = oldest()
    assert said == {name: (bounds[name], newest) for name, newest in NEWEST.items()}


def test_what_a_site_is_told_to_install_is_supported():
    pins = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    pinned = {name: Version(version) for name, version in re.findall(r"^([\w-]+)==([\w.]+)$", pins, re.MULTILINE)}
    bounds = oldest()
    assert pinned.keys() >= bounds.keys() - {"numpy", "tomli"}  # of which it has two, by Python's version
    assert all(version >= Version(bounds[name]) for name, version in pinned.items() if name in bounds)
    assert all(pinned[name] <= Version(newest) for name, newest in NEWEST.items())
