"""A learned verbalizer: every text is asked about once, and the classes are told by a ridge regression.

φ(x) are log-probabilities of words at the answer position of one or several templates. In one round of three small
messages the clients' sums choose the words, solve the regression as if all texts were in one place, and choose its
shrinkage. In numpy, without torch on the server. Related: DecT (arXiv 2212.08408), PALP (2212.10873), Fed3R
(2406.01116).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flaretune.methods.base import Method, Parts
from flaretune.methods.exchanged import Numbers
from flaretune.methods.verbalizer.config import VerbalizerConfig, VerbalizerServerConfig
from flaretune.methods.verbalizer.settings import check_settings


class Verbalizer(Method):
    """The learned verbalizer, as everything else sees it."""

    name, title = "verbalizer", "Verbalizer"
    client_config, server_config = VerbalizerConfig, VerbalizerServerConfig
    format, best, kind = "flaretune-verbalizer-1", "best_verbalizer.safetensors", "verbalizer"
    parts = Parts(
        strategy="flaretune.methods.verbalizer.strategy:VerbalizerStrategy",
        client="flaretune.methods.verbalizer.client:open_client",
        read="flaretune.methods.verbalizer.artifact:load_verbalizer",
        open="flaretune.methods.verbalizer.classifier:open_saved",
    )

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        check_settings(settings)

    def round_texts(self, metrics: Numbers, private: bool) -> list[str]:
        return [f"{metrics['words']:4d} words"] if "words" in metrics else []

    def report_rows(self, summary: Mapping[str, Any]) -> dict[str, str]:
        return {} if "privacy" in summary else {"questions": f"{summary['example_forwards']:,} example-forwards"}
