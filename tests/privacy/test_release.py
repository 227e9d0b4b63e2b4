"""Clipping, noise and the count of noised results."""

import hashlib
import json

import numpy as np
import pytest

from flaretune.config.client import ClientConfig
from flaretune.errors import UserError
from flaretune.privacy.accountant import epsilon
from flaretune.privacy.release import FILE, Releases

BASE = {"a": np.full((2, 3), 5.0), "b": np.arange(4.0)}
OPTIONS = ClientConfig(dp_noise=0.5, dp_clip=2.0)


def said(count) -> str:
    """A file that says so with a right checksum."""
    return json.dumps({"releases": count, "sha256": hashlib.sha256(f"releases {count!r}".encode()).hexdigest()})


class NoNoise:
    """A generator whose noise is zero, and which remembers what it was asked for."""

    def __init__(self):
        self.deviations = []

    def normal(self, *, scale, size):
        self.deviations.append(scale)
        return np.zeros(size)


def changed(length: float) -> dict[str, np.ndarray]:
    """BASE and a change of this length over both arrays."""
    rng = np.random.default_rng(1)
    change = {name: rng.normal(size=values.shape) for name, values in BASE.items()}
    norm = np.linalg.norm(np.concatenate([values.ravel() for values in change.values()]))
    return {name: BASE[name] + change[name] * length / norm for name in BASE}


def length_of(sent) -> float:
    return float(np.linalg.norm(np.concatenate([(sent[name] - BASE[name]).ravel() for name in BASE])))


@pytest.mark.parametrize(("found", "sent"), [(0.0, 0.0), (0.5, 0.5), (2.0, 2.0), (2.1, 2.0), (1e9, 2.0)])
def test_a_change_is_shortened_to_dp_clip_in_its_direction(tmp_path, found, sent):
    got = Releases(OPTIONS, tmp_path, NoNoise).release(BASE, changed(found))
    assert length_of(got) == pytest.approx(sent, rel=1e-6, abs=1e-12)
    expected = changed(sent)
    for name in BASE:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6)


def test_every_number_gets_noise_of_dp_noise_times_twice_dp_clip(tmp_path):
    noise = NoNoise()
    Releases(OPTIONS, tmp_path, lambda: noise).release(BASE, changed(1.0))
    assert noise.deviations == [2.0, 2.0]  # 0.5 · 2 · 2, for both arrays
    base = {"a": np.zeros(40_000)}
    got = Releases(OPTIONS, tmp_path, lambda: np.random.default_rng(3)).release(base, base)["a"]
    assert got.std() == pytest.approx(2.0, rel=0.02)
    assert abs(got.mean()) < 5 * 2.0 / 200
    # as a normal distribution has it: 68.27 % within one deviation, 95.45 % within two
    assert np.mean(np.abs(got) < 2.0) == pytest.approx(0.6827, abs=0.01)
    assert np.mean(np.abs(got) < 4.0) == pytest.approx(0.9545, abs=0.006)


def test_noise_is_another_at_every_answer_and_client_and_follows_no_seed(tmp_path):
    first, second = Releases(OPTIONS, tmp_path / "1"), Releases(OPTIONS, tmp_path / "2")
    np.random.seed(0)
    sent = [first.release(BASE, BASE), first.release(BASE, BASE)]
    np.random.seed(0)
    sent += [second.release(BASE, BASE)]
    assert len({values["a"].tobytes() for values in sent}) == 3


def test_what_is_not_finite_is_not_sent(tmp_path):
    releases = Releases(OPTIONS, tmp_path)
    for value in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="not finite"):
            releases.release(BASE, {**BASE, "a": np.full((2, 3), value)})
    assert releases.count == 0


def test_a_count_that_is_not_found_is_taken_from_the_run_s_rounds(tmp_path, caplog):
    releases = Releases(OPTIONS, tmp_path)
    releases.count_at_least(3)
    assert Releases(OPTIONS, tmp_path).count == releases.count == 3
    assert "has counted 0 noised results of this client, and the run had 3 rounds" in caplog.text
    releases.release(BASE, BASE)
    releases.count_at_least(3)
    assert Releases(OPTIONS, tmp_path).count == releases.count == 4


def test_the_count_outlives_the_process(tmp_path):
    releases = Releases(OPTIONS, tmp_path / "new")
    assert releases.count == 0
    for _ in range(2):
        releases.release(BASE, BASE)
    assert Releases(OPTIONS, tmp_path / "new").count == releases.count == 2
    assert json.loads((tmp_path / "new" / FILE).read_text(encoding="utf-8"))["releases"] == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"releases": 2}', said(-1), said("2"), said(True), said(2).replace("2", "3", 1)]
)
def test_a_damaged_count_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"{FILE}, this client's count of noised results, is damaged"):
        Releases(OPTIONS, tmp_path)


def test_a_client_s_limit(tmp_path):
    """Two results are within the ε of two, a third is not, and neither is a run of three."""
    limit = epsilon(0.5, 1e-5, 2) + 0.01
    releases = Releases(ClientConfig(dp_noise=0.5, dp_clip=2.0, dp_epsilon=limit), tmp_path)
    releases.check(2)
    with pytest.raises(UserError, match=r"--dp_epsilon .*: after 3 results with --dp_noise 0.5 ε is "):
        releases.check(3)
    for _ in range(2):
        releases.release(BASE, BASE)
    with pytest.raises(UserError, match="more than this client allows"):
        releases.release(BASE, BASE)
    assert releases.count == 2
