"""A client's training in a round: a few epochs over its hard- and soft-labelled texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from flaretune.data.encode import Encoded
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.models.label_model import LabelModel
from flaretune.models.tuned import Parameters

# Few texts need few steps: those of LoRA are large, while every parameter of a model moves with care.
DEFAULT_LEARNING_RATE = {"lora": 1e-3, "full": 2e-5}


def default_learning_rate(options: LPFLConfig) -> float:
    """Of AdamW. In a subspace of d dimensions it is 0.01 · (200 / d)^¼.

    The less of a gradient fits in, the larger the steps: between the best that were tried with 200 and with 19,000.
    """
    if options.subspace_dim:
        return 0.01 * (200 / options.subspace_dim) ** 0.25
    return DEFAULT_LEARNING_RATE[options.tuning]


def local_train(
    model: LabelModel,
    parameters: Parameters,
    examples: Sequence[Encoded],
    targets: np.ndarray,
    options: LPFLConfig,
    seed: int,
) -> tuple[float, int]:
    """Train on the cross entropy of q(· | x) against the texts' label distributions (arXiv 2307.13896).

    The optimiser starts anew, as FedAvg's clients do.

    Args:
        model: answers with label-word logits.
        parameters: what is trained.
        examples: N encoded texts, at least one.
        targets: a distribution over the classes for each, float64, shape (N, C); a hard label is all on one class.
        options: how.
        seed: of the order of the texts and of dropout.

    Returns:
        The mean loss over the texts in the last epoch, and the number of steps made.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    trained = parameters.trained()
    optimiser = torch.optim.AdamW(
        trained,
        lr=options.learning_rate or default_learning_rate(options),
        weight_decay=0.0,
        fused=True,  # with every parameter trained, a third of the time of a step on a CPU
    )
    rng, steps, loss = np.random.default_rng(seed), 0, 0.0
    steps_an_epoch = math.ceil(len(examples) / options.train_batch_size)
    epochs = max(options.local_epochs, math.ceil(options.local_steps / steps_an_epoch))
    device = trained[0].device
    # on a CPU shorter padding is worth more passes; where every parameter is trained, each adds up all their gradients
    some = 4 if device.type == "cpu" and options.tuning == "lora" else options.train_batch_size
    at_a_time = options.batch_size or some
    on = {p.device for p in model.model.parameters()}
    devices = sorted(device.index or 0 for device in on if device.type == "cuda")  # whose random state returns
    model.train()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for epoch in range(epochs):
            order, loss = rng.permutation(len(examples)), 0.0
            for start in range(0, len(order), options.train_batch_size):
                batch = order[start : start + options.train_batch_size]
                optimiser.zero_grad(set_to_none=True)
                step_loss = _backward(model, [examples[i] for i in batch], targets[batch], at_a_time)
                if not np.isfinite(step_loss):
                    raise FloatingPointError(
                        f"the training loss became {step_loss} in epoch {epoch + 1} of this round, so that this client "
                        "has nothing to send; a lower --learning_rate may help"
                    )
                parameters.step(optimiser)
                loss += step_loss * len(batch)
                steps += 1
    optimiser.zero_grad(set_to_none=True)
    model.train(False)
    return float(loss / len(examples)), steps


def _backward(model: LabelModel, examples: list[Encoded], targets: np.ndarray, at_a_time: int) -> float:
    """Add up the gradients of a batch's mean loss, in passes of some texts of like length; returns that loss."""
    total, order = 0.0, np.argsort([len(example.ids) for example in examples], kind="stable")
    for part in np.array_split(order, math.ceil(len(order) / at_a_time)):
        log_q = torch.log_softmax(model.logits([examples[i] for i in part]), dim=-1)  # (B, C)
        loss = -(torch.from_numpy(targets[part]).to(log_q) * log_q).sum(dim=-1).sum() / len(examples)
        loss.backward()
        total += loss.item()
    return total
