"""Old names of options, taken for one release, and options that have no meaning any more.

The published FedBPT script's options are here too, as far as they are no options of today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flaretune.config.options import OptionError, Options

# Old name -> the option that it is now.
RENAMED = {
    "lm": "model_server",
    "lm_timeout": "model_server_timeout",
    "lm_token": "model_server_token",
    "share_lm": "share_model",
    "sites": "per_client",
}
# Option and old value -> the value that it is now.
RENAMED_VALUES = {("aggregation", "plain"): "mean"}


def _max_norm(old: Mapping[str, Any]) -> str | None:
    """The published script's three options, of which the first says whether the others count."""
    if str(old.get("norm_prompt", 0)) not in ("1", "True"):
        return None
    return f"{old.get('prompt_norm_threshold', 15)}:{old.get('prompt_norm_threshold_upper', 20)}"


def _tracking(old: Mapping[str, Any]) -> str | None:
    uri = old.get("tracking_uri")
    return f"{old.get('tracking', 'none')}={uri}" if uri else None


# Option -> the old options that it takes the place of, and its value by theirs; None to leave it as it is.
JOINED: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], str | None]]] = {
    "max_norm": (("norm_prompt", "prompt_norm_threshold", "prompt_norm_threshold_upper"), _max_norm),
    "tracking": (("tracking_uri",), _tracking),
}
# By the class of the config that had them: values that are harmless (None: all; the sentence is told, and the job goes
# on), and the sentence. Other values are refused with it.
GONE: dict[str, dict[str, tuple[tuple[Any, ...] | None, str]]] = {
    "FedBPTConfig": {
        # of the published script
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
        "num_users": (None, "the data is shared out over the clients that the job has; leave it out"),
        "llama_causal": ((1,), "LLaMA answers as a causal language model only; leave it out"),
        # of ours
        "local_seeds": (
            ("round",),
            "every round has random directions of its own, the same at all clients; leave it out",
        ),
        "zero_lm_bias": ((1,), "the bias of a masked model's head is always set to zero, as BBT does; leave it out"),
    },
    "FedBPTServerConfig": {
        "sigma_floor": ((0,), "the step size has no floor, which no run reached; leave it out"),
        "seed": (None, "the server takes the clients' seed; leave it out"),
    },
    "LPFLConfig": {
        "soft_refresh": ((0,), "texts keep the labels they have joined with; leave it out"),
        "soft_temperature": ((1,), "soft labels are the model's probabilities; leave it out"),
        "soft_prior": (("as_is",), "soft labels are the model's probabilities; use --calibrate batch, or leave it out"),
        "soft_noise": ((0,), "soft labels are never replaced by random ones; leave it out"),
        "soft_weight": ((1,), "a soft-labelled text counts as much as a labelled one; leave it out"),
        "weight_decay": ((0,), "AdamW decays no weights here; leave it out"),
        "gradient_accumulation": ((1,), "a training step has as many passes as --batch_size, texts in a pass, makes"),
        "lora_dropout": ((0,), "adapters are trained without dropout; leave it out"),
        "freeze_a": (
            (0,),
            "A alone is not frozen any more; --subspace_dim 8000 freezes it too, and sends far fewer bytes",
        ),
    },
    "ClientConfig": {"dp_delta": ((1e-5,), "ε is always told at δ = 1e-5; leave it out")},
    "JobConfig": {
        "timeout": ((0,), "a job is waited for as long as it takes; use `timeout SECONDS python ...` for a limit"),
        "verbose": ((0,), "NVFlare's own log lines are in the workspace, in log.txt of server and clients"),
    },
    "ServiceConfig": {
        "merge": ((1,), "every client's question has a forward pass of its own; leave it out"),
        "workers": ((1,), "every device has one copy of the model; leave it out"),
        "ssl_keyfile": ((), "put the key into the file of --ssl_certfile, behind the certificate"),
        "timeout": (None, "give --model_server_timeout instead"),
    },
}


def old_names(*configs: type[Options]) -> dict[str, str]:
    """Old names that the configs' options may be given by, and the option of today, or "" for none."""
    known = {name for config in configs for name in config.model_fields}
    joined = {old: "" for new, (names, _) in JOINED.items() if new in known for old in names}
    return (
        {o: n for o, n in RENAMED.items() if n in known}
        | joined
        | {name: "" for name in _gone(configs) if name not in known}
    )


def renew(given: Mapping[str, Any], *configs: type[Options], place: str = "--") -> tuple[dict[str, Any], list[str]]:
    """Options by their names of today.

    Args:
        place: what stands before a name in a sentence.

    Returns:
        The options, and a sentence for every old name or value, and for every option that has no effect.

    Raises:
        OptionError: an option asks for what is not there any more, or is given by both names.
    """
    renewed, sentences, wrong = dict(given), [], []
    known = {name for config in configs for name in config.model_fields}
    for old, new in RENAMED.items():
        if old in renewed and new in known:
            if new in renewed:
                wrong.append(f"{place}{old} is the old name of {new}, which is given too; give {new} alone")
            renewed[new] = renewed.pop(old)
            sentences.append(f"{place}{old} is now {new}; the old name is taken for one release")
    for new, (names, value_of) in JOINED.items():
        if new in known and (found := [name for name in names if name in renewed]):
            value = value_of(renewed)
            renewed = {name: v for name, v in renewed.items() if name not in names}
            renewed |= {} if value is None else {new: value}
            said = "without effect" if value is None else f"now {new} = {value}"
            sentences.append(f"{place}{found[0]} is {said}; the old name is taken for one release")
    for (name, old), new in RENAMED_VALUES.items():
        if name in known and renewed.get(name) == old:
            renewed[name] = new
            sentences.append(f"{place}{name} {old} is now {name} {new}; the old value is taken for one release")
    for name, (harmless, sentence) in _gone(configs).items():
        if name not in renewed or name in known:
            continue
        value = renewed.pop(name)
        if harmless is not None and not any(_same(value, one) for one in harmless):
            wrong.append(f"{place}{name} {value}".rstrip() + f": {sentence}")
        else:
            sentences.append(f"{place}{name} has no effect: {sentence}")
    if wrong:
        raise OptionError(wrong)
    return renewed, sentences


def _gone(configs: Iterable[type[Options]]) -> dict[str, tuple[tuple[Any, ...] | None, str]]:
    classes = [base.__name__ for config in configs for base in config.__mro__]
    return {name: entry for of, entries in GONE.items() if of in classes for name, entry in entries.items()}


def _same(value: Any, harmless: Any) -> bool:
    """Whether a value, of a file or as the text of a flag, is this one."""
    if isinstance(harmless, str):
        return value == harmless
    try:
        return float(value) == harmless
    except (TypeError, ValueError, OverflowError):
        return False
