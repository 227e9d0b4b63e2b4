"""Results that earlier versions saved: opened again, they answer as they did then.

``v0.1.0/`` beside this file holds what flaretune 0.1.0 saved, with small models, and in expected.json the numbers that
0.1.0 got from it. Never write these files anew, and do not loosen the comparison: people have such files.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flaretune import load_classifier
from flaretune.data.load import Examples
from flaretune.methods.registry import load_saved

SAVED = Path(__file__).parent / "v0.1.0"
ARTIFACTS = json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))["artifacts"]


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_saved_result_answers_as_it_did(name):
    expected = ARTIFACTS[name]
    place, texts = SAVED / expected["path"], expected["texts"]
    # the model that a result names, relative to the repository, wherever the tests are run
    model = SAVED / "models" / Path(load_saved(place).artifact.model["name"]).name
    classifier = load_classifier(place, str(model), dtype="float32", device="cpu")
    zero_shot = classifier.zero_shot(Examples(tuple(texts), np.zeros(len(texts), dtype=np.int64)))
    for _ in range(2):
        np.testing.assert_allclose(classifier.probabilities(texts), expected["probabilities"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(zero_shot, expected["zero_shot"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["prompt_masked", "adapter"])
def test_a_saved_result_finds_the_model_that_it_names(name, tmp_path, monkeypatch):
    """Seen from the root of the repository."""
    (tmp_path / "tests" / "saved").mkdir(parents=True)
    (tmp_path / "tests" / "saved" / "v0.1.0").symlink_to(SAVED)
    monkeypatch.chdir(tmp_path)
    expected = ARTIFACTS[name]
    classifier = load_classifier(SAVED / expected["path"], dtype="float32", device="cpu")
    np.testing.assert_allclose(
        classifier.probabilities(expected["texts"]), expected["probabilities"], rtol=0, atol=1e-5
    )


def test_what_the_saved_results_cover():
    """Both kinds of model, every form of a prompt, both tunings; with a prior and without."""
    saved = {name: load_saved(SAVED / expected["path"]) for name, expected in ARTIFACTS.items()}
    assert {name: (one.method.name, one.artifact.model["kind"]) for name, one in saved.items()} == {
        "prompt_masked": ("fedbpt", "masked"),
        "prompt_masked_cat": ("fedbpt", "masked"),
        "prompt_causal": ("fedbpt", "causal"),
        "prompt_causal_prefix": ("fedbpt", "causal"),
        "adapter": ("lpfl", "causal"),
        "adapter_full": ("lpfl", "masked"),
    }
    with_prior = {name for name, one in saved.items() if "prior" in one.artifact.result}
    assert with_prior == {"prompt_masked", "prompt_causal_prefix", "adapter"}
    assert all(one.artifact.result["versions"]["flaretune"] == "0.1.0" for one in saved.values())
