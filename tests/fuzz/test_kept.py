"""Checkpoints, kept states and counts that were damaged, and those that somebody has made up with a right checksum."""

import json
import shutil

import numpy as np
import pytest

from flaretune.engine import checkpoint as checkpoints
from flaretune.engine.checkpoint import load_checkpoint, save_checkpoint
from flaretune.engine.resume import ResumableRun
from flaretune.errors import UserError
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.lpfl.kept_states import KeptStates
from flaretune.methods.lpfl.soft_labels import SoftLabelPool
from flaretune.privacy.release import FILE, Releases
from tests.engine.test_checkpoint import SETTINGS, a_checkpoint
from tests.fuzz.guard import fuzz
from tests.fuzz.mutate import changed, damaged, to_json

pytestmark = pytest.mark.slow


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    for round_number in (1, 2):
        save_checkpoint(tmp_path, a_checkpoint(round_number))
    newest = tmp_path / "round_00002"
    files = {file: file.read_bytes() for file in sorted(newest.iterdir())}

    def make(rng):
        file = list(files)[int(rng.integers(len(files)))]
        return {**files, file: damaged(files[file], rng)}

    def load(contents):
        for file, data in contents.items():
            file.write_bytes(data)
        return load_checkpoint(tmp_path)

    def check(found):
        good = a_checkpoint(found.round)
        assert found.round in (1, 2)
        assert (found.run, found.settings, found.state) == (good.run, good.settings, good.state)
        for name, values in good.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], values)

    loaded, _ = fuzz("checkpoint", 5, make, load, check, ())
    assert loaded == 1200


def test_made_up_checkpoints(tmp_path):
    save_checkpoint(tmp_path, a_checkpoint(2))
    path = tmp_path / "round_00002"
    said = json.loads((path / checkpoints.STATE).read_text(encoding="utf-8"))
    del said["sha256"]
    said["state"]["record"] = {"releases": 2}

    def make(rng):
        return changed(said, rng)

    def load(contents):
        text = to_json(contents)
        try:
            sha256 = checkpoints._digest(path, json.loads(text))
        except RecursionError:
            sha256 = "0"
        (path / checkpoints.STATE).write_text(f'{text[:-1]}, "sha256": "{sha256}"}}', encoding="utf-8")
        return ResumableRun(str(tmp_path), num_rounds=5)

    def check(kept):
        assert isinstance(kept.name, str)
        assert 0 <= kept.after_round <= 5
        assert isinstance(kept.earlier.state, dict)
        assert type(kept.releases_before) is int
        assert kept.releases_before >= 5
        assert all(isinstance(part, dict) for part in kept.earlier.settings.values())

    loaded, refused = fuzz("made-up checkpoint", 6, make, load, check, UserError)
    assert loaded > 50
    assert refused > 200


def test_foreign_entries_of_a_checkpoint_folder_are_no_way_out_of_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of others", encoding="utf-8")
    kept = tmp_path / "kept"
    save_checkpoint(kept, a_checkpoint(1, outside / "secret"))
    artifact = kept / "round_00001" / checkpoints.ARTIFACT
    artifact.unlink()
    artifact.symlink_to(outside / "secret")
    with pytest.raises(UserError, match="is a link"):
        load_checkpoint(kept)
    shutil.rmtree(kept / "round_00001")
    (kept / "round_00009").symlink_to(outside, target_is_directory=True)
    with pytest.raises(UserError, match="no checkpoint in"):
        load_checkpoint(kept)
    save_checkpoint(kept, a_checkpoint(10))
    save_checkpoint(kept, a_checkpoint(11))
    assert (outside / "secret").read_text(encoding="utf-8") == "of others"


def test_damaged_soft_labels(tmp_path):
    states = KeptStates(tmp_path)
    settings = LPFLConfig(soft_portion=0.5, soft_select="order")
    pool = SoftLabelPool(8, 2, settings)
    pool.label(pool.wanted(), np.linspace(-1, 1, 16).reshape(8, 2), 2)
    states.save(2, pool.state())
    [file] = tmp_path.glob("*.safetensors")
    raw = file.read_bytes()

    def load(data):
        file.write_bytes(data)
        again = SoftLabelPool(8, 2, settings)
        again.restore(states.load(2))
        return again

    def check(again):
        np.testing.assert_array_equal(again.indices, pool.indices)
        np.testing.assert_array_equal(again.labels, pool.labels)

    _, refused = fuzz("soft labels", 7, lambda rng: damaged(raw, rng), load, check, ValueError)
    assert refused > 500


def test_damaged_counts_of_noised_results(tmp_path):
    settings = LPFLConfig(dp_noise=1.0, dp_clip=1.0)

    good = Releases(settings, tmp_path)
    for _ in range(7):
        good.release({}, {})
    raw = (tmp_path / FILE).read_bytes()

    def load(data):
        (tmp_path / FILE).write_bytes(data)
        return Releases(settings, tmp_path)

    def check(releases):
        assert releases.count == 7

    fuzz("count of noised results", 8, lambda rng: damaged(raw, rng), load, check, UserError)


def test_settings_of_a_checkpoint_that_are_compared(tmp_path):
    def make(rng):
        settings = changed(SETTINGS, rng)  # of tables, as the loader has made sure
        return {name: part if isinstance(part, dict) else {} for name, part in settings.items()}

    def load(settings):
        checkpoints.check_settings(tmp_path, settings, SETTINGS)
        return settings

    def check(settings):
        assert all(settings[part] == SETTINGS[part] for part in SETTINGS)

    fuzz("settings of a checkpoint", 9, make, load, check, UserError)
