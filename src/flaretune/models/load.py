"""Loading a pretrained model and its tokenizer, and making sure they are what the checkpoint says."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import textwrap
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, PreTrainedConfig
from transformers import logging as transformers_logging

from flaretune.config.model import AUTO_MAP
from flaretune.data.encode import PLAIN, Encoder
from flaretune.data.tokens import plain_ids, text_ids
from flaretune.errors import UserError
from flaretune.models.architecture import IN_MULTIMODAL, is_multimodal, language_model_of
from flaretune.models.device import DTYPES, devices_of, resolve_device, resolve_dtype
from flaretune.models.quantized import advice_for, check_quantized, compute_as_asked, quantization_config
from flaretune.models.split import hold_embeddings
from flaretune.tasks.spec import Kind, TaskSpec

# A model that brings its own code is refused: without this, transformers asks at the terminal whether to run it.
_OWN_CODE = {"trust_remote_code": False}


@dataclass(frozen=True)
class Pretrained:
    """A frozen model in evaluation mode with its tokenizer.

    Attributes:
        device: where texts and prompts go in and logits come out; layers may be elsewhere (`--device auto_map`).
        quantize: how its weights were quantised when they were loaded, as the option of this name has it.
        checkpoint: the configuration of the checkpoint, which may be that of a multimodal model around this one.
    """

    name: str
    kind: Kind
    model: torch.nn.Module
    tokenizer: object
    device: torch.device
    quantize: str = "none"
    checkpoint: PreTrainedConfig | None = None

    @property
    def dtype(self) -> str:
        """The number format that it is held in, as the option of this name has it."""
        held = self.model.get_input_embeddings().weight.dtype
        return next(name for name, dtype in DTYPES.items() if dtype == held)

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

    @property
    def pad_id(self) -> int:
        """A token for padding, which attention never sees."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0

    def encoder(self, spec: TaskSpec, mode: str = "", n_prompt_tokens: int = 0) -> Encoder:
        """What makes token ids of a task's texts, without a prompt where no mode is given; errors as of `Encoder`."""
        return Encoder(self.tokenizer, spec, self.kind, mode or PLAIN[self.kind], n_prompt_tokens, self.max_length)


def load_pretrained(
    name: str,
    dtype: str = "auto",
    device: str = "auto",
    quantize: str = "none",
    max_memory: Mapping[int | str, int | str] | None = None,
) -> Pretrained:
    """Load a masked or causal language model and its tokenizer, by hub id or from a folder.

    Whether it is masked or causal is what the checkpoint's configuration says (``architectures``). Of a multimodal
    model (…ForConditionalGeneration) the causal language model in it is loaded, and nothing else.

    Args:
        name, dtype, device, quantize: the options of these names.
        max_memory: with ``auto_map``, what each device may be given at most, as accelerate has it: number of a GPU or
            ``cpu`` → bytes, or a text such as 10GiB; None for all that is free.

    Raises:
        UserError: no such folder or hub id, a folder without weights or tokenizer, damaged files, an
            architecture of neither kind, weights that the checkpoint does not hold and that would be drawn
            at random, or a way to quantise that this machine or model has not.
    """
    where = resolve_device(device)
    dtype = resolve_dtype(dtype, *devices_of(device, where))
    source = os.path.expanduser(name)
    placing: dict[str, Any] = {}
    if device == AUTO_MAP:
        folder = tempfile.TemporaryDirectory(prefix="flaretune-", ignore_cleanup_errors=True)
        limits = None if max_memory is None else dict(max_memory)
        # the folder is for what fits nowhere else and cannot be read from the checkpoint when its turn comes
        placing = {"device_map": "auto", "max_memory": limits, "offload_folder": folder.name}
    with _quiet_transformers():
        config = _read_config(name, source)
        language_model, kind = language_model_of(config, name)
        comes = getattr(config, "quantization_config", None)
        if comes and quantize != "none":
            raise UserError(
                f"--model_name {name} --quantize {quantize}: the checkpoint comes quantised "
                f"({comes.get('quant_method')}); leave --quantize out, or use the model as it was before"
            )
        if comes or quantize != "none":  # weights are packed, or not, for the device that they will be on
            placing = {"device_map": {"": where}, **placing}
        if quantize != "none":
            placing["quantization_config"] = quantization_config(quantize, where, dtype)
        tokenizer = _read_tokenizer(name, source)
        try:
            model = _read_model(name, source, config, language_model, kind, dtype, placing)
            model = model.eval() if placing else model.eval().to(where)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"--model_name {name}: it does not fit into what is free of the memory of {where}; use another "
                f"--device, {AUTO_MAP} for all GPUs, --quantize, or one copy for all clients of a GPU (python -m "
                "flaretune serve, or --share_model 1 of a FedBPT job)"
            ) from error
    if device == AUTO_MAP:
        weakref.finalize(model, folder.cleanup)  # the folder lives as long as the model
        hold_embeddings(model, where)
    _check_they_fit(name, tokenizer, model)
    compute_as_asked(model)
    if quantize != "none":
        check_quantized(name, model, quantize)
    model.requires_grad_(False)
    return Pretrained(name, kind, model, tokenizer, where, quantize, config)


def load_outline(name: str) -> Pretrained:
    """Load a model's tokenizer, kind and shape without its weights, to tell what fits it.

    Returns:
        The same as `load_pretrained` with parameters on the meta device, which hold no numbers.

    Raises:
        UserError: as for `load_pretrained`, but for the weights.
    """
    source = os.path.expanduser(name)
    with _quiet_transformers():
        config = _read_config(name, source)
        language_model, kind = language_model_of(config, name)
        tokenizer = _read_tokenizer(name, source)
        auto_class = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
        with torch.device("meta"):
            model = auto_class.from_config(language_model, **_OWN_CODE)
    _check_they_fit(name, tokenizer, model)
    return Pretrained(name, kind, model.eval(), tokenizer, torch.device("meta"))


def _read_config(name: str, source: str):
    if os.path.isdir(source):
        if not os.path.isfile(os.path.join(source, "config.json")):
            raise UserError(
                f"--model_name {name}: this folder holds no config.json; give the folder that a model was saved in"
            )
        wrong = "its config.json is of no model that can be loaded"
        advice = "give a model that the installed transformers knows without code of the model's own"
    elif os.path.exists(source):
        raise UserError(f"--model_name {name}: this is a file; give the folder that it lies in")
    elif _looks_like_a_folder(name):
        raise UserError(f"--model_name {name}: there is no such folder; give a folder or a hub id")
    else:
        wrong, advice = "no folder here, and not to be had from the model hub", "check the name and the connection"
    try:
        return AutoConfig.from_pretrained(source, **_OWN_CODE)
    except (OSError, ValueError) as error:
        raise UserError(f"--model_name {name or repr(name)}: {wrong} ({reason(error)}); {advice}") from error


def _read_model(
    name: str,
    source: str,
    config: PreTrainedConfig,
    language_model: PreTrainedConfig,
    kind: Kind,
    dtype: str,
    placing: Mapping[str, Any],
) -> torch.nn.Module:
    auto_class = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
    comes = getattr(config, "quantization_config", None)
    try:
        model, report = auto_class.from_pretrained(
            source,
            config=language_model,
            key_mapping=IN_MULTIMODAL if is_multimodal(config) else None,
            dtype=DTYPES[dtype],
            output_loading_info=True,
            use_safetensors=True,  # nothing is unpickled
            ignore_mismatched_sizes=True,  # they are in the report, which `_check_loaded` reads
            **placing,
            **_OWN_CODE,
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        whole = "make sure that model.safetensors is there and whole"
        flags = f"use another --quantize or --device, or {whole}" if placing else whole
        advice = advice_for(comes) or flags
        raise UserError(f"--model_name {name}: its weights could not be loaded ({reason(error)}); {advice}") from error
    _check_loaded(name, report, comes)
    return model


def _check_loaded(name: str, report: dict, comes: dict | None) -> None:
    """Refuse a checkpoint that leaves weights to chance; weights it holds beyond need are fine."""
    missing = sorted(report["missing_keys"])
    mismatched = sorted(key for key, *_shapes in report["mismatched_keys"])
    if missing:
        advice = advice_for(comes) or "use one that was saved with its language-model head"
        raise UserError(
            f"--model_name {name}: the checkpoint lacks {_some(missing)}, which would be drawn at random; {advice}"
        )
    if mismatched:
        raise UserError(
            f"--model_name {name}: the checkpoint holds {_some(mismatched)} in another shape than config.json says; "
            "use the config.json that belongs to the weights"
        )


def _read_tokenizer(name: str, source: str):
    advice = "give a folder or hub id with the model's own tokenizer.json"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **_OWN_CODE)
    except Exception as error:  # the tokenizers library raises nothing more special for a damaged file
        raise UserError(
            f"--model_name {name}: its tokenizer could not be loaded ({reason(error)}); {advice}"
        ) from error
    # Without files transformers builds an empty tokenizer and says nothing: it does not know the letter "a".
    if not set(plain_ids(tokenizer, "a")) - {tokenizer.unk_token_id}:
        raise UserError(f"--model_name {name}: there is no tokenizer with it, or an empty one; {advice}")
    # What transformers 5 has made it from stays with it as Python objects that nothing reads: 168 MiB of Gemma 3's.
    for made_from in ("_vocab", "_merges"):
        vars(tokenizer).pop(made_from, None)
    return tokenizer


def _check_they_fit(name: str, tokenizer, model: torch.nn.Module) -> None:
    table = getattr(model.get_input_embeddings(), "weight", None)
    if table is None:
        raise UserError(
            f"--model_name {name}: {type(model).__name__} has no table of word embeddings where others have it; use "
            "another model"
        )
    largest, n_embeddings = text_ids(tokenizer).max(), len(table)
    if largest >= n_embeddings:
        raise UserError(
            f"--model_name {name}: its tokenizer has token ids up to {largest}, but the model embeds only "
            f"{n_embeddings} tokens; use the tokenizer that belongs to the model"
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep back the report on missing weights, which `_check_loaded` makes itself, and bars out of log files."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _looks_like_a_folder(name: str) -> bool:
    return name.startswith((".", "~", os.sep)) or name.count("/") > 1


def _some(names: Sequence[str]) -> str:
    """The first three of them."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def reason(error: Exception) -> str:
    """What went wrong: the first sentence of a library's message, on one line and not without end."""
    sentence = re.split(r"[.:]\s*\n|\.\s", str(error).strip(), maxsplit=1)[0].rstrip(".:")
    return textwrap.shorten(sentence, 160, placeholder=" …") or type(error).__name__
