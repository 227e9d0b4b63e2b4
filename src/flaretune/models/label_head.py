"""A language-model head that answers for the label words only.

The model's own forward code runs unchanged (final transformations, soft-capping and all): only its output
embedding is replaced by the label words' rows of it, so that logits at every position cost next to nothing.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from flaretune.errors import UserError


class LabelHead(nn.Linear):
    """The output embedding's rows of the C label words, computed in float32.

    In bfloat16 a logit around 10 has steps of 1/16, more than candidates differ by.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__(weight.shape[1], weight.shape[0], device="meta")
        self.weight = nn.Parameter(weight.float(), requires_grad=False)  # (C, D)
        self.bias = nn.Parameter(bias.float(), requires_grad=False)  # (C,)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:  # (…, D) -> (…, C)
        return F.linear(hidden.to(self.weight.device).float(), self.weight, self.bias)  # from the last layer's device


class SharedLabelHead(nn.Module):
    """The same of a model whose every parameter is trained: rows of its own output embedding, wherever they move.

    The head itself is not registered here, so that the model's parameters keep their names. One that does more than
    its rows (Dory scales logits by token) is computed as a whole.
    """

    def __init__(self, head: nn.Module, label_ids: torch.Tensor):
        super().__init__()
        self._head = [head]
        self._rows = label_ids
        self._is_linear = is_linear(head, label_ids)
        self.out_features = len(label_ids)

    @property
    def weight(self) -> torch.Tensor:
        """The whole output embedding's; some models read it, and the bias, when their head is replaced."""
        return self._head[0].weight

    @property
    def bias(self) -> torch.Tensor | None:
        return getattr(self._head[0], "bias", None)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:  # (…, D) -> (…, C)
        if not self._is_linear:
            return self._head[0](hidden)[..., self._rows].float()
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if self.bias is None else self.bias[self._rows].float()
            return F.linear(hidden.float(), self.weight[self._rows].float(), bias)


def share_label_words(model: nn.Module, label_ids: np.ndarray) -> None:
    """Replace the model's output embedding, in place, by one that answers for the label words from its own rows.

    Raises:
        UserError: the model has no output embedding to take the rows from.
    """
    head = _output_embedding(model)
    rows = torch.as_tensor(label_ids, device=head.weight.device)
    model.set_output_embeddings(SharedLabelHead(head, rows))


def narrow_to_label_words(
    model: nn.Module, label_ids: np.ndarray, zero_bias: bool, head: nn.Module | None = None
) -> None:
    """Replace the model's output embedding, in place, by its rows of the label words, or of any others.

    Args:
        label_ids: token ids of the label words, int, shape (C,).
        zero_bias: set the head's bias to zero, as BBT means to for masked models (arXiv 2201.03514, §4.1).
        head: the whole output embedding, where the model's was narrowed before; None for the model's own.

    Raises:
        UserError: the model has no output embedding to take the rows from.
    """
    head = head or _output_embedding(model)
    rows = torch.as_tensor(label_ids, device=head.weight.device)
    if not is_linear(head, rows):
        if zero_bias:
            raise UserError(
                f"{type(model).__name__} has an output embedding that is more than rows and a bias, which is to be "
                "zero here; use another model"
            )
        model.set_output_embeddings(SharedLabelHead(head, rows))
        return
    bias = getattr(head, "bias", None)
    if bias is None or zero_bias:
        bias_rows = torch.zeros(len(label_ids), device=head.weight.device)
    else:
        bias_rows = bias.detach()[rows]
    model.set_output_embeddings(LabelHead(head.weight.detach()[rows].clone(), bias_rows.clone()))


def _output_embedding(model: nn.Module) -> nn.Module:
    head = model.get_output_embeddings()
    if head is None or not hasattr(head, "weight"):
        raise UserError(f"{type(model).__name__} has no output embedding that label words could be read from")
    return head


@torch.no_grad()
def is_linear(head: nn.Module, rows: torch.Tensor) -> bool:
    """Whether a head gives what its weight and bias do: tried with drawn hidden states where its class does not say."""
    if type(head) in (nn.Linear, LabelHead) or head.weight.is_meta:
        return True
    drawn = np.random.RandomState(0).standard_normal((4, head.weight.shape[1]))
    hidden = torch.from_numpy(drawn).to(head.weight)  # (4, D)
    bias = getattr(head, "bias", None)
    expected = F.linear(hidden.float(), head.weight[rows].float(), None if bias is None else bias[rows].float())
    return bool((head(hidden)[..., rows].float() - expected).abs().max() <= 0.05 * expected.abs().max())


def at_answers(logits: torch.Tensor, answers: torch.Tensor, classes: np.ndarray | None = None) -> torch.Tensor:
    """Logits of the classes at the answer position of each row.

    Args:
        logits: of the W label words, (B, L, W).
        answers: answer positions, int64 (B,).
        classes: the class of each word, int (W,), for the mean over a class's words; None where each class has one.

    Returns:
        float32, shape (B, C).
    """
    picked = logits[torch.arange(len(logits), device=logits.device), answers].float()  # (B, W)
    if classes is None:
        return picked
    counts = np.bincount(classes)
    shares = np.eye(len(counts), dtype=np.float32)[classes] / counts.astype(np.float32)  # (W, C)
    return picked @ torch.from_numpy(shares).to(picked.device)
