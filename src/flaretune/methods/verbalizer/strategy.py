"""The server's side of the learned verbalizer: one round, in which a head is made of the clients' sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.config.options import build
from flaretune.methods.artifact_parts import told_parts
from flaretune.methods.base import Arrays, FitResult, InitializeResult, Numbers, Resumed, Strategy
from flaretune.methods.message import read_natural
from flaretune.methods.verbalizer.artifact import VerbalizerArtifact, save_verbalizer
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.head import HEAD_STEPS, label_word_head
from flaretune.methods.verbalizer.head_fit import HeadFit, HeadSettings, candidates_of
from flaretune.methods.verbalizer.private import deviation

PASSES = len(HEAD_STEPS)  # over a client's texts at the most: a process that was started anew makes its own


class VerbalizerStrategy(Strategy):
    """Which words, with which weights, how much shrinkage: a step for each; see `Strategy`."""

    def start(self, results: Mapping[str, InitializeResult], resumed: Resumed | None, folder: Path) -> dict[str, str]:
        first = next(iter(results.values()))
        self.settings = first.settings
        o = self._options = build(VerbalizerConfig, self.settings["options"])
        told, n_classes = self.settings["verbalizer"], len(self.settings["task"]["label_values"])
        self._n_templates, self._most = len(told["templates"]), o.k_shot * n_classes
        self._labels = label_word_head(told["label_ids"], n_classes)
        candidates, self._texts = most_named([r.settings["candidates"] for r in results.values()])
        self._fit = HeadFit(
            HeadSettings(
                candidates,
                candidates_of(first.settings["candidates"], first.arrays["neutral"], candidates),
                frozenset(self._labels.words[:, 1].tolist()),
                o.n_words,
                n_classes,
                self._most,
                leave_one_out=not any(result.evaluation.n_validation for result in results.values()),
                noise=deviation(o.dp_noise, o.dp_clip, self._most),
            ),
            self.rule,
        )
        if resumed:
            self._texts |= {int(token): text for token, text in resumed.state["texts"].items()}
            self._fit.restore(resumed.arrays)
        return {}

    def steps(self, round_number: int) -> Sequence[str]:
        return HEAD_STEPS if round_number else ()

    def configure(self, round_number: int, step: str) -> tuple[Arrays, Numbers]:
        return self._fit.configure(step)

    def check(self, result: FitResult, step: str) -> FitResult:
        counters, n_train = result.counters, read_natural(result.numbers, "n_train")
        most_forwards = PASSES * 2 * self._most * self._n_templates
        for name, value, most in (
            ("n_train", n_train, self._most),
            ("queries", counters.queries, self._n_templates),
            ("example_forwards", counters.example_forwards, most_forwards),
        ):
            if value > most:
                raise ValueError(f"{name!r} is {value}, and {most} is the most that follows from the settings")
        return FitResult(self._fit.check(step, result.arrays), result.numbers, counters, result.evaluation)

    def aggregate(self, round_number: int, step: str, results: Mapping[str, FitResult]) -> list[str]:
        return self._fit.aggregate(step, results)

    def evaluated_arrays(self) -> Arrays:
        return {} if self._fit.head is None else self._fit.head.arrays()

    def save(self, path: Path, result: Mapping[str, Any]) -> bool:
        head = self._fit.head or self._labels
        if not len(head.words):
            return False  # no label words, and nothing learned yet
        texts = [self._texts.get(token, "") for token in head.words[:, 1].tolist()]
        templates = self.settings["verbalizer"]["templates"]
        chosen = {} if self._fit.shrinkage is None else {"shrinkage": self._fit.shrinkage}
        artifact = VerbalizerArtifact(head, texts, templates, **told_parts(self.settings), result={**result, **chosen})
        save_verbalizer(artifact, path)
        return True

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        chosen = self._fit.words["words"][:, 1].tolist() if self._fit.words else []
        return self._fit.state(), {"texts": {str(token): self._texts.get(token, "") for token in chosen}}

    def metrics(self, results: Mapping[str, FitResult], private: bool) -> tuple[Numbers, Mapping[str, Numbers]]:
        head = self._fit.head
        return {} if head is None else {"words": len(head.words), "temperature": head.temperature}, {}


def most_named(named: Sequence[Sequence[Sequence[Any]]]) -> tuple[np.ndarray, dict[int, str]]:
    """As many candidates as the first client names, those that most clients name; and the texts of all.

    Args:
        named: of each client, pairs of a token id and its text.

    Returns:
        Token ids, int64, in the order of how many clients name them and then of the first naming; texts by id.
    """
    texts: dict[int, str] = {}
    times: Counter[int] = Counter()
    for pairs in named:
        for token, text in pairs:
            texts.setdefault(token, text)
            times[token] += 1
    order = sorted(texts, key=lambda token: -times[token])  # stable
    return np.array(order[: len(named[0])], dtype=np.int64), texts
