"""Loading a pretrained model and its tokenizer, and making sure they are what the checkpoint says."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers import logging as transformers_logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from flaretune.errors import UserError

ModelKind = Literal["masked", "causal"]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Pretrained:
    """A frozen model in evaluation mode with its tokenizer."""

    name: str
    kind: ModelKind
    model: torch.nn.Module
    tokenizer: object
    device: torch.device

    @property
    def max_length(self) -> int:
        """The longest sequence the model takes, in tokens."""
        limits = [getattr(self.tokenizer, "model_max_length", None)]
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None:
            # RoBERTa's table starts behind the padding index, so 514 rows hold 512 positions.
            embeddings = getattr(self.model.base_model, "embeddings", None)
            table = getattr(embeddings, "position_embeddings", None)
            offset = table.padding_idx + 1 if getattr(table, "padding_idx", None) is not None else 0
            limits.append(positions - offset)
        return int(min(limit for limit in limits if limit is not None))


def resolve_device(device: str) -> torch.device:
    """``auto`` is cuda when there is one; anything else is checked to exist.

    Raises:
        UserError: the device is absent or the text names none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"--device {device!r} names no device: use auto, cpu, cuda or cuda:N") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {device} is not there: this machine has {torch.cuda.device_count()} CUDA devices; "
            "use --device auto or cpu"
        )
    if wanted.type not in ("cpu", "cuda"):
        raise UserError(f"--device {device!r} is not supported: use auto, cpu, cuda or cuda:N")
    return wanted


def load_pretrained(name: str, dtype: str = "bfloat16", device: str = "auto") -> Pretrained:
    """Load a masked or causal language model and its tokenizer, by hub id or from a folder.

    Whether it is masked or causal is what the checkpoint's configuration says (``architectures``).

    Raises:
        UserError: no such folder or hub id, a folder without weights, an architecture of neither kind, or
            weights that the checkpoint does not hold and that would be drawn at random.
    """
    where = resolve_device(device)
    if _looks_like_a_folder(name) and not Path(name).is_dir():
        raise UserError(f"--model_name {name}: there is no such folder; give a folder or a hub id")
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"--model_name {name}: no model configuration could be read ({_first_line(error)})") from error
    kind = _kind_of(config, name)
    auto_class = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # its report on missing weights is answered below
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, report = auto_class.from_pretrained(name, dtype=DTYPES[dtype], output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"--model_name {name}: the model could not be loaded ({_first_line(error)})") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    _check_loaded(name, report)
    model.requires_grad_(False)
    return Pretrained(name, kind, model.eval().to(where), tokenizer, where)


def _kind_of(config, name: str) -> ModelKind:
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith(("ForMaskedLM", "ForPreTraining")) and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return "masked"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")) and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "causal"
    raise UserError(
        f"--model_name {name}: its architecture is {architecture or 'not stated in config.json'}, but a masked "
        "(…ForMaskedLM) or a causal (…ForCausalLM) language model is needed"
    )


def _check_loaded(name: str, report: dict) -> None:
    """Refuse a checkpoint that leaves weights to chance; weights it holds beyond need are fine."""
    missing = sorted(report.get("missing_keys") or [])
    mismatched = sorted(str(key) for key in (report.get("mismatched_keys") or []))
    if missing or mismatched:
        shown = (missing + mismatched)[:3]
        raise UserError(
            f"--model_name {name}: the checkpoint lacks {len(missing)} weights and holds {len(mismatched)} of another "
            f"shape (first: {', '.join(shown)}), which would be drawn at random; use a checkpoint with its "
            "language-model head"
        )


def _looks_like_a_folder(name: str) -> bool:
    return name.startswith((".", "~", os.sep)) or name.count("/") > 1


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
