"""From a search point to prompt vectors: p = p₀ + reshape(A z) (BBT, arXiv 2201.03514, §3.2)."""

from __future__ import annotations

import numpy as np
import torch

from flaretune.seeding import derive_seed


class SoftPrompt:
    """The map from search points z to prompts, with its fixed random projection A.

    A has shape (n·D, d) and entries N(0, s²), s = α·σ_E / (√d·σ₀); it is drawn once from the job's seed,
    the same at every client, never trained and never sent.

    Args:
        n_tokens: n, prompt vectors; may be 0, for a forward pass without a prompt.
        hidden_size: D.
        intrinsic_dim: d.
        embedding_std: σ_E, standard deviation of the entries of the model's word embeddings.
        alpha: α.
        sigma0: σ₀, the initial step size of the search.
        initial: p₀, float32, shape (n, D); None for zeros.
    """

    def __init__(
        self,
        n_tokens: int,
        hidden_size: int,
        intrinsic_dim: int,
        embedding_std: float,
        alpha: float,
        sigma0: float,
        seed: int,
        initial: torch.Tensor | None = None,
        device: torch.device | str = "cpu",
    ):
        self.n_tokens = n_tokens
        self.hidden_size = hidden_size
        self.intrinsic_dim = intrinsic_dim
        scale = alpha * embedding_std / (np.sqrt(intrinsic_dim) * sigma0)
        projection = np.empty((n_tokens * hidden_size, intrinsic_dim), dtype=np.float32)
        # RandomState's numbers are frozen; those of default_rng may change with numpy, and clients may differ in it.
        rng = np.random.RandomState(derive_seed(seed, "projection"))
        for row in projection:  # one by one, for it draws in float64
            row[:] = rng.standard_normal(intrinsic_dim) * scale
        self.projection = torch.from_numpy(projection).to(device)  # (n·D, d)
        if initial is None:
            initial = torch.zeros(n_tokens, hidden_size)
        self.initial = initial.to(device=device, dtype=torch.float32)  # (n, D)

    def prompts(self, points: np.ndarray) -> torch.Tensor:
        """Prompts of search points, float (λ, d) → float32 (λ, n, D)."""
        z = torch.as_tensor(np.asarray(points, dtype=np.float32), device=self.projection.device)
        return self.initial + (z @ self.projection.T).view(len(z), self.n_tokens, self.hidden_size)
