"""FedBPT (Sun et al., arXiv 2310.01467): black-box prompt search with CMA-ES, in numpy and pycma, without torch.

A client searches a soft prompt with CMA-ES and only evaluates the frozen model; a CMA-ES on the server recombines the
clients' search distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flaretune.methods.base import Method, Parts
from flaretune.methods.exchanged import Numbers
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.methods.verbalizer.settings import check_settings

ASK_ONCE = "verbalizer_accuracy"  # in summary.json


class FedBPT(Method):
    """FedBPT, as everything else sees it."""

    name, title = "fedbpt", "FedBPT"
    client_config, server_config = FedBPTConfig, FedBPTServerConfig
    format, best, kind = "flaretune-fedbpt-prompt-1", "best_prompt.safetensors", "prompt"
    shares_model = True
    kept_options = ("aggregation", "covariance")
    parts = Parts(
        strategy="flaretune.methods.fedbpt.strategy:FedBPTStrategy",
        client="flaretune.methods.fedbpt.open:open_client",
        read="flaretune.methods.fedbpt.artifact:load_prompt",
        open="flaretune.methods.fedbpt.classifier:open_saved",
    )

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        if settings["options"]["verbalizer"] == "learned":
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
