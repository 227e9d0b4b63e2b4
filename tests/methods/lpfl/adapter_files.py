"""The files of an adapter's folder put together without flaretune, for tests of what is written and refused."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from tests.methods.lpfl.made_up_adapters import PARTS

ARRAYS = {"lora": "adapter_model.safetensors", "full": "parameters.safetensors"}


# The safetensors format by hand: length of the header, header in JSON, then the bytes of the tensors.
def put_together(arrays: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    header, data = {}, b""
    for name, (dtype, shape, raw) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def checksum(folder: Path) -> str:
    described = json.loads((folder / "flaretune.json").read_text())
    digest = hashlib.sha256((folder / ARRAYS[described["options"]["tuning"]]).read_bytes())
    config = None
    if (folder / "adapter_config.json").exists():
        config = json.loads((folder / "adapter_config.json").read_text())
        config = {name: value for name, value in config.items() if name != "base_model_name_or_path"}
    for part, values in {**{p: described[p] for p in PARTS}, "adapter_config": config}.items():
        digest.update(f"\n{part}\n{json.dumps(values, sort_keys=True)}".encode())
    return digest.hexdigest()


def with_changes(folder: Path, arrays: bytes | None = None, **parts) -> Path:
    """The folder with other contents, and a checksum that fits them."""
    file = folder / "flaretune.json"
    if arrays is not None:
        (folder / "adapter_model.safetensors").write_bytes(arrays)
    file.write_text(json.dumps({**json.loads(file.read_text()), **parts}))
    file.write_text(json.dumps({**json.loads(file.read_text()), "sha256": checksum(folder)}))
    return folder
