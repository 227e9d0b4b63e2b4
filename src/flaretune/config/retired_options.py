"""Options of the published FedBPT script that have no meaning any more: accepted, and answered with a sentence."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from flaretune.errors import UserError

# Options of the published script that have no meaning any more: values that are harmless (the sentence is
# printed and the job goes on), and the sentence. Other values are refused with it.
RETIRED: dict[str, tuple[tuple[str, ...] | None, str]] = {
    "parallel": (None, "all candidates of a generation are always evaluated together; leave it out"),
    "alg": (("CMA",), "CMA-ES is the only search algorithm; leave it out"),
    "random_proj": (("normal",), "the projection is always normal, scaled by --alpha; leave it out"),
    "note": (None, "notes are not kept; name the job folder or the output folder instead"),
    "save_prompt": (None, "the best prompt is always saved, as best_prompt.safetensors; leave it out"),
    "print_every": (None, "one line is printed a round; leave it out"),
    "eval_every": (None, "the global prompt is evaluated after every round; leave it out"),
    "init_score_path": ((), "scores from other runs are not read; start from a prompt with --init_prompt instead"),
    "inference_framework": (
        ("pt",),
        "ONNX runtime is not supported, PyTorch took its place; use --dtype and --batch_size",
    ),
    "onnx_model_path": ((), "ONNX models are not supported; give a transformers model with --model_name"),
}


def add_retired_flags(parser: argparse.ArgumentParser) -> None:
    """Accept the published script's options that have no meaning any more, for `answer_retired`."""
    for name in RETIRED:
        parser.add_argument(f"--{name}", nargs="?", const="", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def answer_retired(given: Mapping[str, Any]) -> list[str]:
    """One sentence for each retired option that was given and can be left out.

    Raises:
        UserError: an option asks for what is not there any more.
    """
    sentences = []
    for name, (harmless, sentence) in RETIRED.items():
        if name not in given:
            continue
        if harmless is not None and given[name] not in harmless:
            raise UserError(f"--{name} {given[name]}".rstrip() + f": {sentence}")
        sentences.append(f"--{name} has no effect: {sentence}")
    return sentences
