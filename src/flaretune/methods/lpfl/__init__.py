"""LP-FL: low-parameter federated learning with soft labels (Jiang et al., arXiv 2307.13896).

A client trains LoRA adapters on its few labels, soft-labels more of its unlabelled texts every round, and the server
averages the adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaretune.config.options import changed
from flaretune.methods.base import Client, ClientContext, Method, Strategy
from flaretune.methods.exchanged import Numbers
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig

if TYPE_CHECKING:
    from flaretune.methods.classifier import Classifier
    from flaretune.methods.lpfl.artifact import AdapterArtifact


class LPFL(Method):
    """LP-FL, as everything else sees it."""

    name, title = "lpfl", "LP-FL"
    client_config, server_config = LPFLConfig, LPFLServerConfig
    format, best, last, kind = "flaretune-lpfl-adapter-1", "best_adapter", "last_adapter", "adapter"

    def strategy(self, config: LPFLServerConfig) -> Strategy:
        from flaretune.methods.lpfl.strategy import LPFLStrategy

        return LPFLStrategy(config)

    def client(self, config: LPFLConfig, context: ClientContext) -> Client:
        from flaretune.methods.lpfl.client import open_client

        return open_client(config, context)

    def read(self, path: Path) -> AdapterArtifact:
        from flaretune.methods.lpfl.artifact import load_adapter

        return load_adapter(path)

    def open(self, artifact: AdapterArtifact, path: Path, model_name: str, dtype: str, device: str) -> Classifier:
        from flaretune.methods.lpfl.classifier import open_saved

        return open_saved(artifact, path, model_name, dtype, device)

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
