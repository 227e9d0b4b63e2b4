"""A trained adapter as a folder that PEFT can load, with all that it belongs to beside it in flaretune.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flaretune.errors import UserError, shown
from flaretune.files import atomic_folder
from flaretune.methods.artifact_parts import PARTS, SavedParts, check_model, checksum, reading
from flaretune.methods.lpfl import LPFL

DESCRIPTION = "flaretune.json"
ADAPTER_CONFIG = "adapter_config.json"  # PEFT's
ARRAY_FILES = {"lora": "adapter_model.safetensors", "full": "parameters.safetensors"}  # by the option --tuning
_MODEL_NAME = "base_model_name_or_path"  # in PEFT's file


@dataclass(frozen=True, eq=False)
class AdapterArtifact(SavedParts):
    """What was trained, and all that is needed to use it.

    Attributes:
        arrays: float32, of one to four dimensions: the whole adapter by PEFT's names, or, where every parameter was
            trained, the model's parameters by its own names.
        adapter_config: contents of PEFT's adapter_config.json, but for the model's name; None where every parameter
            was trained.
    """

    kept_in = "adapter folder"

    arrays: dict[str, np.ndarray]
    adapter_config: dict[str, Any] | None


def save_adapter(artifact: AdapterArtifact, folder: Path) -> None:
    """Write the folder, whole or as it was before.

    Whoever is stopped in between two renames leaves the former folder as ``<folder>.old``; it goes when a new one is
    there.

    Raises:
        ValueError: the artifact is none that `load_adapter` would read.
    """
    tuning = artifact.options["tuning"]
    if (artifact.adapter_config is None) != (tuning == "full"):
        raise ValueError(f"tuning is {tuning!r}, which does not go with the adapter_config {artifact.adapter_config}")
    arrays = {name: np.asarray(values, dtype=np.float32, order="C") for name, values in artifact.arrays.items()}
    if wrong := _wrong_array(arrays):
        raise ValueError(wrong)
    with atomic_folder(folder) as partial:
        _write(artifact, arrays, partial)


def load_adapter(folder: str | Path) -> AdapterArtifact:
    """Read the folder back and check that it is what was written.

    The model's name in PEFT's own file is neither read nor checked, so that it may be changed where PEFT is to find the
    model elsewhere.

    Raises:
        UserError: it is not there, is no such folder, or was damaged or edited.
    """
    folder = Path(folder).expanduser()
    described = _read_description(folder)
    tuning = described["options"].get("tuning")
    if tuning not in tuple(ARRAY_FILES):  # may be anything, hashable or not
        raise UserError(
            f"{folder} was damaged or written by another version of flaretune: its tuning is {shown(tuning)}"
        )
    file = folder / ARRAY_FILES[tuning]
    config = _read_json(folder / ADAPTER_CONFIG) if tuning == "lora" else None
    if config is not None:
        config.pop(_MODEL_NAME, None)
    if described["sha256"] != checksum(_digest(file), _texts(described, config)):
        raise UserError(
            f"{folder} was damaged or edited: its contents do not have the sha256 noted in {DESCRIPTION}; copy it anew"
        )
    artifact = AdapterArtifact(_read_arrays(file), config, **{part: described[part] for part in PARTS})
    with reading(folder):
        artifact.spec  # noqa: B018  read now, so that what is wrong with it is said here
        check_model(artifact.model)
    return artifact


def _write(artifact: AdapterArtifact, arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    described = {part: getattr(artifact, part) for part in PARTS}
    raw = save(dict(arrays), {"format": "pt"})  # as PEFT marks its files
    sha256 = checksum(hashlib.sha256(raw), _texts(described, artifact.adapter_config))
    contents = {DESCRIPTION: {"format": LPFL.format, "sha256": sha256, **described}}
    if artifact.adapter_config is not None:
        contents[ADAPTER_CONFIG] = {**artifact.adapter_config, _MODEL_NAME: artifact.model["name"]}
    for name, values in contents.items():
        (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    # not safetensors' own way to write files, which lets nobody else read them, whatever the umask
    (folder / ARRAY_FILES[artifact.options["tuning"]]).write_bytes(raw)


def _read_description(folder: Path) -> dict[str, Any]:
    """Contents of flaretune.json, with every part in it a dict."""
    if not folder.is_dir():
        old = folder.with_name(folder.name + ".old")
        before = f"; {old} is the one before, left when a save was cut off" if old.is_dir() else ""
        raise UserError(f"adapter folder {folder} does not exist{before or '; a job leaves it as best_adapter'}")
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder} has no {DESCRIPTION}, so it is no adapter of LP-FL; give one that a job has left")
    described = _read_json(folder / DESCRIPTION)
    if (found := described.get("format")) != LPFL.format:
        raise UserError(f"{folder} is not an adapter of LP-FL: its format is {shown(found)}, not {LPFL.format!r}")
    for part in (*PARTS, "sha256"):
        if not isinstance(described.get(part), str if part == "sha256" else dict):
            raise UserError(f"{folder} was damaged or edited: {DESCRIPTION} has no {part!r}; copy it anew")
    return described


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.parent} has no {file.name}; copy it anew, whole") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); copy the folder anew") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} is damaged (it holds no JSON object); copy the folder anew")
    return values


def _texts(described: Mapping[str, Any], adapter_config: Mapping[str, Any] | None) -> dict[str, str]:
    """What the checksum is made of besides the arrays; however the files are laid out, contents count."""
    parts = {**{part: described[part] for part in PARTS}, "adapter_config": adapter_config}
    return {part: json.dumps(values, sort_keys=True) for part, values in parts.items()}


def _digest(file: Path) -> Any:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):  # a model's parameters need not be in memory twice
                digest.update(piece)
    except FileNotFoundError as error:
        raise UserError(f"{file.parent} has no {file.name}; copy it anew, whole") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); check its permissions") from error
    return digest


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(file, framework="numpy") as stream:
            arrays = {name: stream.get_tensor(name) for name in sorted(stream.keys())}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # not only SafetensorError: number formats that numpy lacks end in errors of several kinds
        raise UserError(f"{file} is damaged or no adapter ({error}); give a folder that a job has left") from error
    if wrong := _wrong_array(arrays):
        raise UserError(f"{file} holds no adapter: {wrong}")
    return arrays


def _wrong_array(arrays: Mapping[str, np.ndarray]) -> str:
    """What is wrong with the first array that is not as it must be; "" if there is none."""
    if not arrays:
        return "there is no array"
    for name, values in arrays.items():
        if values.dtype != np.float32 or not 1 <= values.ndim <= 4 or values.size == 0:
            return f"{name} is {values.dtype} of shape {values.shape}, not float32 of one to four dimensions"
        if not np.isfinite(values).all():
            return f"{name} has entries that are not finite"
    return ""
