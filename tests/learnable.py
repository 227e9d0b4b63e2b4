"""A small masked LM that can be led to tell good from bad reviews, and reviews for it.

The model is trained here, in seconds, to answer by the sentiment of the words when a signal word stands at the start
of the text, and to call everything good when none does, as real models do. Without the signal it is at chance; a soft
prompt that does what the signal does makes it right. The search is told nothing of the signal.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, RobertaForMaskedLM

from tests.models_for_tests import save_tiny_model

GOOD = ("moving", "funny", "bright", "lovely", "warm", "clever", "honest")
BAD = ("dull", "slow", "awful", "mess", "bored", "terrible")
NEUTRAL = ("movie", "plot", "story", "film", "cast", "scene", "night", "day", "team", "news")
SIGNAL = " works"
TEMPLATE = " . {} . It was<mask> ."


def reviews(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """n made-up sentences of sentiment words among neutral ones, with labels 0 (bad) and 1 (good), int64 (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    sentences = []
    for label in labels:
        words = [*rng.choice(GOOD if label else BAD, size=2), *rng.choice(NEUTRAL, size=rng.integers(1, 5))]
        sentences.append(" ".join(rng.permutation(words)))
    return sentences, labels


def write_reviews(folder: Path, n_train: int = 400, n_test: int = 200) -> Path:
    """A local folder in the shape of SST-2: train.csv and validation.csv with columns sentence and label."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, n, seed in (("train", n_train, 1), ("validation", n_test, 2)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"])
            writer.writerows(zip(*reviews(n, seed), strict=True))
    return folder


def train_model(folder: Path, steps: int = 400) -> Path:
    """Train the model described above and save it with its tokenizer; takes some seconds."""
    # no dropout, so that nothing is drawn from torch's generator: the model would depend on the tests run before
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    save_tiny_model("roberta", folder, std=0.05, **sizes, **dropout)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = RobertaForMaskedLM.from_pretrained(folder)
    answers = torch.tensor([tokenizer.encode(word, add_special_tokens=False)[0] for word in ("bad", "great")])
    signal = tokenizer.encode(SIGNAL, add_special_tokens=False)[0]
    others = np.setdiff1d(np.arange(len(tokenizer)), [signal, *tokenizer.all_special_ids])
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)
    sentences, labels = reviews(4000, seed=3)
    model.train()
    for _ in range(steps):
        chosen = rng.integers(len(sentences), size=48)
        batch = tokenizer([TEMPLATE.format(sentences[i]) for i in chosen], padding=True, return_tensors="pt")
        lead = int(rng.choice([0, 1, 3]))  # words in front of the text, the first of them the signal or not
        with_signal = rng.random(48) < (0.5 if lead else 0.0)
        front = rng.choice(others, size=(48, lead))
        front[with_signal, :1] = signal
        start, rest = batch["input_ids"][:, :1], batch["input_ids"][:, 1:]
        ids = torch.cat([start, torch.from_numpy(front), rest], dim=1)
        attention = torch.cat([torch.ones(48, lead, dtype=torch.int64), batch["attention_mask"]], dim=1)
        target = np.where(with_signal, labels[chosen], 1)
        logits = model(input_ids=ids, attention_mask=attention).logits[ids == tokenizer.mask_token_id]
        # smoothed: a model that is sure of "good" is a plateau, on which a search may find no way down at all
        loss = torch.nn.functional.cross_entropy(logits[:, answers], torch.tensor(target), label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval().save_pretrained(folder)
    return folder
