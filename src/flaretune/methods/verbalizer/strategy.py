"""The server's side of the learned verbalizer: one round, in which a head is made of the clients' sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaretune.config.options import build
from flaretune.methods.artifact_parts import told_parts
from flaretune.methods.base import Resumed, Strategy
from flaretune.methods.exchanged import Arrays, FitResult, InitializeResult, Numbers
from flaretune.methods.message import check_few_shots, read_natural
from flaretune.methods.verbalizer.artifact import VerbalizerArtifact, save_verbalizer
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.head import HEAD_STEPS
from flaretune.methods.verbalizer.head_fit import start_head_fit
from flaretune.methods.verbalizer.statistics import deviation

PASSES = len(HEAD_STEPS)  # over a client's texts at the most: a process that was started anew makes its own


class VerbalizerStrategy(Strategy):
    """Which words, with which weights, how much shrinkage: a step for each; see `Strategy`."""

    def start(self, results: Mapping[str, InitializeResult], resumed: Resumed | None, folder: Path) -> dict[str, str]:
        self.settings = next(iter(results.values())).settings
        o = self._options = build(VerbalizerConfig, self.settings["options"])
        self._n_templates = len(self.settings["verbalizer"]["templates"])
        self._most = o.k_shot * len(self.settings["task"]["label_values"])
        noise = deviation(o.dp_noise, o.dp_clip, self._most)
        self._fit = start_head_fit(results, self.rule, o.n_words, noise)
        self.start_classifies = bool(self.settings["verbalizer"]["label_ids"])
        if resumed:
            self._fit.restore(resumed.arrays, resumed.state)
        return {}

    def steps(self, round_number: int) -> Sequence[str]:
        return HEAD_STEPS if round_number else ()

    def configure(self, round_number: int, step: str) -> tuple[Arrays, Numbers]:
        return self._fit.configure(step)

    def check(self, result: FitResult, step: str) -> FitResult:
        counters = result.counters
        check_few_shots(self.settings, n_train=read_natural(result.numbers, "n_train"))
        most_forwards = PASSES * 2 * self._most * self._n_templates
        for name, value, most in (
            ("queries", counters.queries, 0),
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
        if not self._fit.head and not self.start_classifies:
            return False
        learned, chosen = self._fit.saved(self.settings["verbalizer"]["templates"])
        parts = {**told_parts(self.settings), "result": {**result, **chosen}}
        save_verbalizer(VerbalizerArtifact(learned=learned, **parts), path)
        return True

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        return self._fit.state()

    def metrics(self, results: Mapping[str, FitResult], private: bool) -> tuple[Numbers, Mapping[str, Numbers]]:
        head = self._fit.head
        return {} if head is None else {"words": len(head.words), "temperature": head.temperature}, {}
