from __future__ import annotations

import numpy as np
import pytest
import torch

from flaretune.models.soft_prompt import SoftPrompt

N, D, DIM = 4, 32, 50


def soft_prompt(seed: int = 42, **changes) -> SoftPrompt:
    arguments = {"n_tokens": N, "hidden_size": D, "intrinsic_dim": DIM, "embedding_std": 0.6, "alpha": 1, "sigma0": 1}
    return SoftPrompt(**{**arguments, "seed": seed, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.6 / np.sqrt(50)),
        ({"alpha": 3.0}, 1.8 / np.sqrt(50)),
        ({"sigma0": 4.0}, 0.15 / np.sqrt(50)),
        ({"embedding_std": 0.1}, 0.1 / np.sqrt(50)),
        ({"intrinsic_dim": 800}, 0.6 / np.sqrt(800)),
    ],
)
def test_entries_of_the_projection_have_the_papers_standard_deviation(changes, expected):
    """s = α·σ_E / (√d·σ₀); with 6400 entries or more the sample's is off by 1/√(2·6400) ≈ 1 %, or less."""
    projection = soft_prompt(**changes).projection
    assert projection.shape == (N * D, changes.get("intrinsic_dim", DIM))
    assert projection.dtype == torch.float32
    assert projection.std().item() == pytest.approx(expected, rel=0.04)
    assert abs(projection.mean().item()) < 5 * expected / np.sqrt(projection.numel())


def test_a_step_of_the_search_moves_the_prompt_by_embedding_sized_steps():
    """Why s is what it is: z ~ N(0, σ₀²) gives prompt entries of standard deviation α·σ_E."""
    z = np.random.default_rng(0).normal(size=(200, DIM)) * 3.0
    assert soft_prompt(sigma0=3.0, alpha=2.0).prompts(z).std().item() == pytest.approx(2.0 * 0.6, rel=0.05)


def test_the_projection_depends_on_the_seed_alone():
    first, again, other = soft_prompt(1).projection, soft_prompt(1).projection, soft_prompt(2).projection
    assert torch.equal(first, again)
    assert abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < 0.05


def test_the_projection_is_the_same_with_every_version_of_numpy():
    """Clients draw it for themselves, and a saved prompt is a search point: another A would make it worthless."""
    projection = SoftPrompt(2, 3, 4, embedding_std=0.5, alpha=2.0, sigma0=0.25, seed=42).projection
    first, last = [-0.87506104, 0.115416855, -4.295242, 2.426975], [1.2501838, -1.1757786, 3.3495944, 2.7923603]
    np.testing.assert_allclose(projection[0], first, rtol=1e-6)
    np.testing.assert_allclose(projection[-1], last, rtol=1e-6)


def test_prompts_are_p0_plus_a_times_z():
    p0 = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    prompt = soft_prompt(initial=p0)
    points = np.random.default_rng(5).normal(size=(3, DIM))
    a = prompt.projection.double().numpy()
    actual = prompt.prompts(points)
    assert actual.dtype == torch.float32
    assert actual.shape == (3, N, D)
    for k in range(3):
        for token in range(N):  # rows of A: first all D entries of the first vector, then those of the second, …
            expected = p0[token].numpy() + a[token * D : (token + 1) * D] @ points[k]
            np.testing.assert_allclose(actual[k, token], expected, rtol=0, atol=1e-5)


def test_without_p0_the_origin_is_the_zero_prompt():
    assert torch.equal(soft_prompt().prompts(np.zeros((2, DIM))), torch.zeros(2, N, D))


def test_no_prompt_at_all():
    prompts = soft_prompt(n_tokens=0).prompts(np.ones((3, DIM)))
    assert prompts.shape == (3, 0, D)


def test_p0_may_come_in_bfloat16():
    p0 = torch.full((N, D), 0.5, dtype=torch.bfloat16)
    prompts = soft_prompt(initial=p0).prompts(np.zeros((1, DIM)))
    assert prompts.dtype == torch.float32
    assert (prompts == 0.5).all()
