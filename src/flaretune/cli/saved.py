"""What `predict` and `evaluate` share: the flags that name what a job has left, and opening it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from flaretune.config.client import ClientConfig
from flaretune.config.flags import add_flags
from flaretune.config.options import build

if TYPE_CHECKING:
    from flaretune.methods.classifier import Classifier
    from flaretune.methods.registry import Saved

PLACE_OPTIONS = ("dtype", "device")  # of ClientConfig: how the model is run here
OLD_FLAGS = ("prompt", "adapter")  # of version 0.1, taken for one release


def add_result_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a result, its model, and how that is run."""
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument(
        "--result",
        metavar="PATH",
        help="what a job has left: best_prompt.safetensors of FedBPT, the folder best_adapter of LP-FL, "
        "best_verbalizer.safetensors",
    )
    for name in OLD_FLAGS:
        result.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--model_name",
        metavar="NAME",
        help="the model that it was found with: hub id or folder (default: where it was then)",
    )
    add_flags(parser, ClientConfig, only=PLACE_OPTIONS)


def read_result(args: argparse.Namespace) -> Saved:
    """What the flags name, without its model, so that what is wrong with texts can be said at once."""
    from flaretune.methods.registry import load_saved

    for name in OLD_FLAGS:
        if (path := getattr(args, name)) is not None:
            print(f"warning: --{name} is now called --result", file=sys.stderr)
            return load_saved(path)
    return load_saved(args.result)


def open_result(saved: Saved, args: argparse.Namespace) -> Classifier:
    """The same with its model."""
    client = build(ClientConfig, {name: value for name, value in vars(args).items() if name in PLACE_OPTIONS})
    return saved.open(args.model_name, client.dtype, client.device)


def words_of(classifier: Classifier) -> list[str]:
    """The label words by class, as a person writes them."""
    return classifier.spec.class_names(classifier.kind)
