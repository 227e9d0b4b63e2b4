"""Where a split of a data set lies on this machine: a file, or a folder in one of the shapes that data sets come in.

- ``train.csv`` (or ``.jsonl``, ``.json``, ``.parquet``) in the folder;
- ``train/`` as ``save_to_disk`` of the datasets library writes it;
- ``train-00000-of-00002.parquet`` and so on, or ``train/`` with data files of any names, as repositories of the Hugging
  Face hub and Spark hold it: in the folder, in the sub-folder of the task's configuration, or in the only sub-folder
  that has any.

One file, and the folder of one data set that ``save_to_disk`` has written, hold examples without splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flaretune.data.columns import READERS, Columns, column_names, columns_of_dataset, read_file
from flaretune.errors import UserError

# with the fingerprint that push_to_hub gave it in some versions
_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?")


@dataclass(frozen=True)
class LocalSplit:
    """A split of a data set on this machine.

    Attributes:
        files: data files, the rows of one behind those of the other; or one folder of `save_to_disk`.
    """

    files: tuple[Path, ...]

    @property
    def place(self) -> str:
        """What messages call it."""
        return str(self.files[0]) if len(self.files) == 1 else f"{self.files[0]} … {self.files[-1].name}"

    def column_names(self) -> list[str]:
        """Its columns.

        Raises:
            UserError: it cannot be read.
        """
        return _open_saved(self.files[0]).column_names if is_saved(self.files[0]) else column_names(self.files[0])

    def read(self, wanted: Sequence[str]) -> Columns:
        """Read some of its columns.

        Raises:
            UserError: it cannot be read, or a column is missing.
        """
        if is_saved(self.files[0]):
            return columns_of_dataset(_open_saved(self.files[0]), wanted, self.place)
        parts = [read_file(file, wanted).values for file in self.files]
        return Columns(self.place, {column: [value for part in parts for value in part[column]] for column in wanted})


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` has written a folder: one split, or a data set without splits."""
    return (folder / "state.json").is_file()


def is_one_set(place: str | Path) -> bool:
    """Whether a place on this machine holds examples without splits."""
    path = Path(place).expanduser()
    return path.is_file() or is_saved(path)


def find_split(folder: Path, name: str, config: str | None = None) -> LocalSplit:
    """Find a split in a folder.

    Args:
        name: of the split, such as "train".
        config: of the data set, as the hub calls it; its sub-folder is looked into first.

    Raises:
        UserError: it is not there, there twice, or not all of it is there.
    """
    named = [f"{name}{suffix}" for suffix in READERS]
    found = [file for file in named if (folder / file).is_file()]
    if len(found) > 1:
        raise UserError(f"folder {folder} has {' and '.join(found)} for split {name!r}; keep one of them")
    if found:
        return LocalSplit((folder / found[0],))
    if is_saved(folder / name):
        return LocalSplit((folder / name,))
    shards = _shards(folder, name, config)
    if shards:
        return LocalSplit(tuple(shards))
    there = sorted(entry.name for entry in folder.iterdir())[:20]
    raise UserError(
        f"folder {folder} has no file of split {name!r}; it needs one of {', '.join(named)} (or a folder {name} of "
        f"such files, files named as on the hub, or a folder of save_to_disk) and holds {there}"
    )


def _shards(folder: Path, name: str, config: str | None) -> list[Path]:
    """The files of a split that has several, in order; none where no folder has any."""
    below = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name != name)
    by_folder = {place: _shards_in(place, name) for place in (folder, *below)}
    with_shards = {place: shards for place, shards in by_folder.items() if shards}
    if config and folder / config in with_shards:
        with_shards = {folder / config: with_shards[folder / config]}
    if len(with_shards) > 1:
        places = ", ".join(place.name for place in with_shards)
        raise UserError(f"folder {folder} has split {name!r} in several folders ({places}); give one of these")
    for place, shards in with_shards.items():
        if len({shard.suffix for shard in shards}) > 1:
            raise UserError(f"{place} has split {name!r} in files of several formats; keep one of them")
        matches = [match for shard in shards if (match := _SHARD.fullmatch(shard.stem))]
        counts = {int(match["count"]) for match in matches} or {0}
        if len(matches) < max(counts):
            kind = shards[0].suffix[1:].capitalize()
            raise UserError(
                f"{place} has {len(matches)} of the {max(counts)} {kind} files of split {name!r}; fetch all"
            )
        if matches and sorted(int(match["number"]) for match in matches) != list(range(len(shards))):
            raise UserError(f"{place} has files of split {name!r} from several downloads; keep those of one")
        return shards
    return []


def _shards_in(folder: Path, name: str) -> list[Path]:
    own = folder / name
    inside = [entry for entry in own.iterdir() if entry.suffix in READERS] if own.is_dir() else []
    beside = [entry for entry in folder.iterdir() if entry.suffix in READERS and _split_of(entry) == name]
    return sorted(entry for entry in (*beside, *inside) if entry.is_file() and not entry.name.startswith((".", "_")))


def _split_of(file: Path) -> str | None:
    match = _SHARD.fullmatch(file.stem)
    return match and match["split"]


def _open_saved(folder: Path):
    """A split that `save_to_disk` has written."""
    import datasets  # here, because it takes a second

    try:
        return datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} cannot be read as a folder of save_to_disk ({reason}); write it anew") from error
