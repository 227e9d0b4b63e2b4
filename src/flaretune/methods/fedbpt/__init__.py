"""FedBPT (Sun et al., arXiv 2310.01467): black-box prompt search with CMA-ES, in numpy and pycma, without torch.

A client searches a soft prompt with CMA-ES and only evaluates the frozen model; a CMA-ES on the server recombines the
clients' search distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaretune.methods.base import Client, ClientContext, Method, Strategy
from flaretune.methods.exchanged import Numbers
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig

if TYPE_CHECKING:
    from flaretune.methods.classifier import Classifier
    from flaretune.methods.fedbpt.artifact import PromptArtifact

ASK_ONCE = "verbalizer_accuracy"  # in summary.json


class FedBPT(Method):
    """FedBPT, as everything else sees it."""

    name, title = "fedbpt", "FedBPT"
    client_config, server_config = FedBPTConfig, FedBPTServerConfig
    format, best, kind = "flaretune-fedbpt-prompt-1", "best_prompt.safetensors", "prompt"
    shares_model = True
    kept_options = ("aggregation", "covariance")

    def strategy(self, config: FedBPTServerConfig) -> Strategy:
        from flaretune.methods.fedbpt.strategy import FedBPTStrategy

        return FedBPTStrategy(config)

    def client(self, config: FedBPTConfig, context: ClientContext) -> Client:
        from flaretune.methods.fedbpt.open import open_client

        return open_client(config, context)

    def read(self, path: Path) -> PromptArtifact:
        from flaretune.methods.fedbpt.artifact import load_prompt

        return load_prompt(path)

    def open(self, artifact: PromptArtifact, path: Path, model_name: str, dtype: str, device: str) -> Classifier:
        from flaretune.methods.fedbpt.classifier import open_saved

        return open_saved(artifact, path, model_name, dtype, device)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        if settings["options"]["verbalizer"] == "learned":
            from flaretune.methods.verbalizer.settings import check_settings

            check_settings(settings)

    def start_entries(self, options: Mapping[str, Any], accuracy: float | None) -> dict[str, Any]:
        return {ASK_ONCE: accuracy} if options.get("verbalizer") == "learned" else {}

    def round_texts(self, metrics: Numbers, private: bool) -> list[str]:
        fitness = metrics.get("fitness")
        return [
            "fitness    -   " if fitness is None else f"fitness {fitness:7.4f}",
            f"sigma {metrics['sigma']:.3f}",
        ]

    def report_rows(self, summary: Mapping[str, Any]) -> dict[str, str]:
        forwards = "" if "privacy" in summary else f", {summary['example_forwards']:,} example-forwards"
        rows = {"queries": f"{summary['queries']:,} candidates{forwards}"}
        if summary.get(ASK_ONCE) is not None:
            rows = {"before the search": f"{summary[ASK_ONCE]:.3f} (round 0: each text asked about once)", **rows}
        return rows
