"""LP-FL: low-parameter federated learning with soft labels (Jiang et al., arXiv 2307.13896).

A client trains LoRA adapters on its few labels, soft-labels more of its unlabelled texts every round, and the server
averages the adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaretune.config.options import changed
from flaretune.methods.base import Method, Parts
from flaretune.methods.exchanged import Numbers
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig


class LPFL(Method):
    """LP-FL, as everything else sees it."""

    name, title = "lpfl", "LP-FL"
    client_config, server_config = LPFLConfig, LPFLServerConfig
    format, best, last, kind = "flaretune-lpfl-adapter-1", "best_adapter", "last_adapter", "adapter"
    parts = Parts(
        strategy="flaretune.methods.lpfl.strategy:LPFLStrategy",
        client="flaretune.methods.lpfl.client:open_client",
        read="flaretune.methods.lpfl.artifact:load_adapter",
        open="flaretune.methods.lpfl.classifier:open_saved",
    )

    def on_this_machine(self, config: LPFLServerConfig) -> LPFLServerConfig:
        if config.init_adapter and Path(config.init_adapter).exists():  # as in the simulator
            return changed(config, init_adapter=str(Path(config.init_adapter).absolute()))
        return config

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        from flaretune.methods.lpfl.strategy import check_settings

        check_settings(settings)

    def round_texts(self, metrics: Numbers, private: bool) -> list[str]:
        loss, agreement = metrics.get("train_loss"), metrics.get("soft_label_agreement")
        correct = "" if agreement is None else f", {agreement:.0%} correct"
        texts = [f"{metrics.get('labelled', 0)} labelled + {metrics.get('soft_labelled', 0)} soft{correct}"]
        return ["loss    -  " if loss is None else f"loss {loss:6.4f}", *([] if private else texts)]

    def report_rows(self, summary: Mapping[str, Any]) -> dict[str, str]:
        agreement = summary["soft_label_agreement"]
        correct = "" if agreement is None else f", {agreement:.1%} of them as the hidden labels have it"
        texts = (
            f"{summary['labelled']} labelled and {summary['soft_labelled']} soft-labelled texts in the last round"
            f"{correct}"
        )
        return {
            **({} if "privacy" in summary else {"trained on": texts}),
            "trained parameters": f"{summary['trained_parameters']:,}",
        }
