from __future__ import annotations

import numpy as np
import pytest

from flaretune.data.load import Examples
from flaretune.models.prompt_settings import PromptSettings
from tests.models_for_tests import save_tiny_model
from tests.tokenizers_for_tests import SENTENCES

SETTINGS = PromptSettings(
    n_prompt_tokens=3, intrinsic_dim=6, cat_or_add="add", prompt_position="suffix", init_prompt="auto", alpha=2.0,
    sigma=1.0, seed=1, zero_lm_bias=1,
)  # fmt: skip
TEXTS = (SENTENCES[0], "funny", " ".join(SENTENCES[:2]), "a dull film", SENTENCES[5])
EXAMPLES = Examples(tuple({"sentence": text} for text in TEXTS), np.array([1, 1, 0, 0, 1]))
POINTS = np.random.default_rng(3).normal(size=(4, 6))


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    """A tiny masked and a tiny causal model."""
    return {f: str(save_tiny_model(f, tmp_path_factory.mktemp(f))) for f in ("roberta", "gemma3")}
