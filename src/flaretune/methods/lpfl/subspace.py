"""LoRA's B through a few numbers, which are trained and sent in its place (`--subspace_dim d`).

Every entry of B, over all layers together, is one of the d numbers of θ or its negative. Which one is drawn from the
job's seed, and no number stands for two entries more than another. So B = P·θ with a random P, whose columns are
orthogonal: training in a subspace of all that B could be (intrinsic dimension, Aghajanyan et al., arXiv 2012.13255;
Uni-LoRA, arXiv 2506.00799, shares numbers so, without signs, and A's too). A stays as it was drawn. What the model adds
to its weights is linear in θ then: the average of clients' θ is that of their products B·A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from flaretune.aggregation.base import Arrays
from flaretune.methods.lpfl.lower_rank import IN_B
from flaretune.seeding import derive_seed

if TYPE_CHECKING:  # the server needs neither
    import torch

    from flaretune.models.lora import LoraParameters

THETA = "theta"  # name of the one array that travels, shape (d,)
WIRE = np.float16  # its type: the 0.05 % that this rounds by is nothing beside a step


def shapes_of_b(shapes: Mapping[str, tuple[int, ...]], dim: int) -> dict[str, tuple[int, ...]]:
    """Of a whole adapter's shapes those of B, in the order in which P has its entries.

    Raises:
        ValueError: B has fewer entries than d.
    """
    of_b = {name: tuple(shape) for name, shape in sorted(shapes.items()) if IN_B in name}
    if dim > (size := sum(map(math.prod, of_b.values()))):
        raise ValueError(f"--subspace_dim {dim}: B of all layers has {size} entries; give at most that")
    return of_b


def as_sent(theta: np.ndarray, advice: str) -> np.ndarray:
    """θ in the type that it travels in.

    Raises:
        FloatingPointError: that does not hold it; ends with the advice.
    """
    with np.errstate(over="ignore"):
        sent = theta.astype(WIRE)
    if not np.isfinite(sent).all():
        raise FloatingPointError(
            f"this client has nothing to send: its numbers are beyond {np.finfo(WIRE).max:.0f}, the most that "
            f"{np.dtype(WIRE)} holds; {advice}"
        )
    return sent


class Subspace:
    """P of a job.

    Args:
        shapes: of the whole adapter's arrays, by PEFT's names.
        dim: d.
        seed: the job's.

    Attributes:
        shapes: see `shapes_of_b`.
        order: which entry of B is the i-th in an order drawn at random, whose number is θ's i-th modulo d; int64, (D,).
        signs: by entry of B, 1 or -1; float32, (D,).

    Raises:
        ValueError: see `shapes_of_b`.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dim: int, seed: int):
        self.dim, self.shapes = dim, shapes_of_b(shapes, dim)
        size = sum(map(math.prod, self.shapes.values()))
        # a bit generator's own words are the same in every version of NumPy, as its shuffles need not be (NEP 19)
        words = np.random.PCG64(derive_seed(seed, "subspace")).random_raw(size)
        self.order = np.argsort(words, kind="stable")
        self.signs = np.where(words % 2 == 0, np.float32(1), np.float32(-1))

    def adapter(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """B of every layer, float32, for θ, shape (d,)."""
        flat = np.empty(len(self.order), np.float32)
        flat[self.order] = np.resize(theta, len(self.order))
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])[:-1]
        pieces = np.split(flat * self.signs, ends)
        return {name: piece.reshape(shape) for piece, (name, shape) in zip(pieces, self.shapes.items(), strict=True)}

    def theta(self, adapter: Arrays) -> np.ndarray:
        """θ, float32, (d,), of an adapter that `adapter` has made.

        Raises:
            ValueError: its B is no P·θ.
        """
        flat = np.concatenate([adapter[name].ravel() for name in self.shapes])
        theta = (flat * self.signs)[self.order[: self.dim]]
        if any(not np.array_equal(values, adapter[name]) for name, values in self.adapter(theta).items()):
            raise ValueError("it was not trained with this --subspace_dim, seed and layers")
        return theta


class SubspaceParameters:
    """`LoraParameters` in a subspace: θ is trained, loaded and given in place of B.

    Args:
        parameters: the adapter; A is not trained.
        subspace: of its B.
    """

    def __init__(self, parameters: LoraParameters, subspace: Subspace):
        import torch  # the server reads this file too

        self._dim = subspace.dim
        by_name = parameters.by_name()
        self._b = [by_name[name] for name in subspace.shapes]
        device = self._b[0].device
        self._order, self._signs = (torch.from_numpy(a).to(device) for a in (subspace.order, subspace.signs))
        self._theta = torch.zeros(subspace.dim, device=device, requires_grad=True)

    def trained(self) -> list[torch.Tensor]:
        for b in self._b:
            b.grad = None  # of a round that failed before its step
        return [self._theta]

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """A step by the gradients of B, which are gone afterwards: that of θ is Pᵀ times theirs."""
        at_b = self._theta.new_zeros(len(self._order))
        for piece, b in self._pieces(at_b):
            if b.grad is not None:  # else it is an expert's that no text of the step has had
                piece.copy_(b.grad.flatten())
                b.grad = None
        padded = self._theta.new_zeros(self._times() * self._dim)
        padded[: len(self._order)] = (at_b * self._signs)[self._order]
        self._theta.grad = padded.view(-1, self._dim).sum(dim=0)
        optimiser.step()
        self._fill_b()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {THETA: (self._dim,)}

    def arrays(self) -> dict[str, np.ndarray]:
        theta = self._theta.detach().cpu().numpy()
        return {THETA: as_sent(theta, "a lower --learning_rate may help")}

    def load(self, arrays: Arrays) -> None:
        self._theta.data.copy_(self._theta.new_tensor(np.asarray(arrays[THETA])))
        self._fill_b()

    def _times(self) -> int:
        """How many entries of B a number stands for, at the most."""
        return math.ceil(len(self._order) / self._dim)

    def _fill_b(self) -> None:
        """B = P·θ, as `Subspace.adapter`, where the model is."""
        flat = self._theta.new_empty(len(self._order))
        flat[self._order] = self._theta.detach().repeat(self._times())[: len(self._order)]
        for piece, b in self._pieces(flat * self._signs):
            b.data.copy_(piece.view_as(b))

    def _pieces(self, flat: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each layer's part of a vector of all entries, and its B."""
        return zip(flat.split([b.numel() for b in self._b]), self._b, strict=True)
