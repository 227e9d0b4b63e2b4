"""A learned verbalizer: every text is asked about once, and the classes are told by a ridge regression.

φ(x) are log-probabilities of words at the answer position of one or several templates. In one round of three small
messages the clients' sums choose the words, solve the regression as if all texts were in one place, and choose its
shrinkage. In numpy, without torch on the server. Related: DecT (arXiv 2212.08408), PALP (2212.10873), Fed3R
(2406.01116).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaretune.methods.base import Client, ClientContext, Method, Strategy
from flaretune.methods.exchanged import Numbers
from flaretune.methods.verbalizer.config import VerbalizerConfig, VerbalizerServerConfig

if TYPE_CHECKING:
    from flaretune.methods.classifier import Classifier
    from flaretune.methods.verbalizer.artifact import VerbalizerArtifact


class Verbalizer(Method):
    """The learned verbalizer, as everything else sees it."""

    name, title = "verbalizer", "Verbalizer"
    client_config, server_config = VerbalizerConfig, VerbalizerServerConfig
    format, best, kind = "flaretune-verbalizer-1", "best_verbalizer.safetensors", "verbalizer"

    def strategy(self, config: VerbalizerServerConfig) -> Strategy:
        from flaretune.methods.verbalizer.strategy import VerbalizerStrategy

        return VerbalizerStrategy(config)

    def client(self, config: VerbalizerConfig, context: ClientContext) -> Client:
        from flaretune.methods.verbalizer.client import open_client

        return open_client(config, context)

    def read(self, path: Path) -> VerbalizerArtifact:
        from flaretune.methods.verbalizer.artifact import load_verbalizer

        return load_verbalizer(path)

    def open(self, artifact: VerbalizerArtifact, path: Path, model_name: str, dtype: str, device: str) -> Classifier:
        from flaretune.methods.verbalizer.classifier import open_saved

        return open_saved(artifact, path, model_name, dtype, device)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        from flaretune.methods.verbalizer.settings import check_settings

        check_settings(settings)

    def round_texts(self, metrics: Numbers, private: bool) -> list[str]:
        return [f"{metrics['words']:4d} words"] if "words" in metrics else []

    def report_rows(self, summary: Mapping[str, Any]) -> dict[str, str]:
        return {} if "privacy" in summary else {"questions": f"{summary['example_forwards']:,} example-forwards"}
