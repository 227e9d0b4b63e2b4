"""The guide docs/operations/federation.md, walked through on one machine: `python jobs/federation/run_local.py --help`.

Server, clients and administrator each get a folder, and there run the commands of the guide as they stand in it. What
several hosts would do otherwise is done here: the clients get their shares of the texts, each party gets a Python
environment of its own (with the packages of this one), and kits are copied instead of sent.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "src"))

from guide import ADMINISTRATOR, CLIENTS, SERVER, WAYS, Block, read_blocks  # noqa: E402
from processes import MARK, end_all, members, run_commands, wait_for_end  # noqa: E402

from flaretune.cache import cache_dir  # noqa: E402
from flaretune.cli.console import STOPPED, add_manners, parse, run  # noqa: E402
from flaretune.engine.errors import failures_below  # noqa: E402
from flaretune.engine.results import SUMMARY, read_summary  # noqa: E402
from flaretune.errors import UserError  # noqa: E402

GUIDE = REPOSITORY / "docs" / "operations" / "federation.md"
SERVER_NAME = "localhost"
HOSPITALS = {"hospital-a": "reviews.csv", "hospital-b": "texts.jsonl", "hospital-c": "film_reviews.csv"}
NAMES = {ADMINISTRATOR: (ADMINISTRATOR,), SERVER: (SERVER_NAME,), CLIENTS: tuple(HOSPITALS)}  # by the guide's words
ROWS = 160  # texts of a client: so many that its part in evaluation takes seconds
LOG = "log.txt"
LAST_WORDS = 4  # lines of a failed command that its error repeats: NVFlare says why in some, and a code in the last


@dataclass
class Party:
    """Who takes part: a folder, and what its shell knows from one block of the guide to the next."""

    name: str
    folder: Path
    environment: dict[str, str] = field(repr=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 0 if every step of the guide went well."""
    args = parse(make_parser(), argv)
    folder = args.output.absolute()
    _on_signals(_interrupt)

    def command() -> None:
        empty(folder)
        until = time.monotonic() + 60 * args.minutes
        try:
            walk(folder, args.code, args.model_name, args.data, args.until, until, args.quiet)
        finally:
            _on_signals(signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
            end_all(folder)

    status = run(command, args.debug)
    if status == STOPPED:
        print("interrupted: all processes of the federation have been ended", file=sys.stderr)
    return status


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    cache = cache_dir()
    parser = argparse.ArgumentParser(
        description="Walk through docs/operations/federation.md on this machine.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("runs/federation"), help="folder for all of it")
    parser.add_argument("--code", choices=WAYS, default=WAYS[0], help="how server and clients get flaretune")
    parser.add_argument("--model_name", default=str(cache / "models" / "gemma-3-270m"), help="model folder or hub id")
    parser.add_argument(
        "--data",
        type=Path,
        default=cache / "data" / "movie_reviews" / "train.csv",
        help="CSV file with columns sentence and label, to be dealt out to the clients",
    )
    parser.add_argument("--until", default="", help="heading of the section after which to stop; none: to the end")
    parser.add_argument("--minutes", type=float, default=20.0, help="that all of it may take (default: 20)")
    add_manners(parser)
    return parser


def _on_signals(do) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, do)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def empty(folder: Path) -> None:
    """Make the folder, or empty it of an earlier walk.

    Raises:
        UserError: it holds something else, or a federation runs in it.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / LOG).is_file():
        raise UserError(f"--output {folder} holds something else; give a new folder")
    if running := members(folder):
        raise UserError(f"--output {folder}: a federation runs there, as process {running[0].pid}; give another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def walk(folder: Path, way: str, model: str, data: Path, last: str, until: float, quiet: bool = False) -> None:
    """Do what the guide says, as all of its parties.

    Args:
        folder: for everything.
        way: how server and clients get flaretune.
        model: folder or hub id of the model.
        data: file that is dealt out to the clients.
        last: heading of the section after which to stop; "" for none.
        until: `time.monotonic()` at which to give up.
        quiet: tell of results alone.

    Raises:
        UserError: a step failed; its sentence says which, and where its output lies.
    """
    blocks = [block for block in read_blocks(GUIDE) if block.runs(way)]
    sections = list(dict.fromkeys(block.section for block in blocks))
    if last and last not in sections:
        raise UserError(f"--until {last!r}: there is no such section; there are {', '.join(map(repr, sections))}")
    with (folder / LOG).open("wb", buffering=0) as log:  # which the commands write into as well
        parties = gather(folder, way, model, data)
        for section in sections[: sections.index(last) + 1] if last else sections:
            if not quiet:
                print(section, flush=True)
            for block in (block for block in blocks if block.section == section):
                for party in [party for word in block.parties for party in parties if party.name in NAMES[word]]:
                    seconds = _run(block, party, log, until)
                    if not quiet:
                        print(f"   {party.name:<14} {seconds:5.1f} s", flush=True)
                hand_out(parties)
    if not last:
        wait_for_end(folder, 60)
    for file in sorted((folder / ADMINISTRATOR).glob(f"*/*/workspace/flaretune/{SUMMARY}"), key=os.path.getmtime):
        run = read_summary(file.parent)
        accuracy = f"accuracy {run['zero_shot_accuracy']:.3f} before, {run['test_accuracy']:.3f} after"
        parts = f"{run['method']}, {len(run['rounds']) - 1} rounds, {len(run['clients'])} clients"
        print(f"{parts}: {accuracy}; {file.parent}")


def _run(block: Block, party: Party, log: IO[bytes], until: float) -> float:
    """Run a block as a party, which then knows what the block's commands have set; the seconds that it took."""
    log.write(f"\n# {party.name}: {block.section} (line {block.line})\n{block.commands}\n\n".encode())
    begin, started = log.tell(), time.monotonic()
    try:
        party.environment = run_commands(
            block.commands, party.folder, party.environment, log, max(1.0, until - started)
        )
    except UserError as error:
        folder = party.folder.parent
        text = (folder / LOG).read_bytes()[begin:].decode(errors="replace")
        said = [f"{failure.who} said: {failure.sentence}" for failure in failures_below(folder)]
        words = [line.strip() for line in text.splitlines() if line.strip()][-LAST_WORDS:]
        last = [f"its last words were {' / '.join(words)!r}"] if words else []
        raise UserError(
            f"{GUIDE.name}:{block.line}, {block.section!r}, run by {party.name}: {error}; "
            f"{'; '.join([*(said or last), f'all that was said is in {folder / LOG}'])}"
        ) from error
    return time.monotonic() - started


def gather(folder: Path, way: str, model: str, data: Path) -> list[Party]:
    """All parties, each with a folder, an environment and, if it is a site, texts of its own."""
    with socket.socket() as listener:  # free now, and taken by the server soon
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    shares = deal_out(data, folder)
    python = Path(sys.executable).parent
    cores = len(os.sched_getaffinity(0))
    common = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    common |= {
        MARK: str(folder),
        "PATH": f"{python}{os.pathsep}{common['PATH']}",
        "OMP_NUM_THREADS": str(max(1, cores // len(HOSPITALS))),
        "MODEL": model if not Path(model).exists() else str(Path(model).absolute()),
    }
    parties = []
    for name in (ADMINISTRATOR, SERVER_NAME, *HOSPITALS):
        place = folder / name
        place.mkdir()
        if name == ADMINISTRATOR:
            own = {"FLARETUNE": str(REPOSITORY), "PORT": str(port), "CODE": way, "CHECKPOINT": str(folder / "kept")}
            own["PYTHONPATH"] = str(REPOSITORY / "src")
        else:
            own = {"SITE": name, **({"DATA": str(shares[name])} if name in shares else {})}
            light_environment(place / "venv")
        parties.append(Party(name, place, common | own))
    return parties


def light_environment(folder: Path) -> None:
    """A virtual environment that has the packages of this one, but not those that are only linked into it, as flaretune
    is by `pip install -e`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    own = next((folder / "lib").glob("python*/site-packages"))
    (own / "shared.pth").write_text("\n".join(packages) + "\n", encoding="utf-8")


def deal_out(data: Path, folder: Path) -> dict[str, Path]:
    """Write each site's texts into a file of its own, no text into two.

    Returns:
        The file, by site.

    Raises:
        UserError: there are too few.
    """
    try:
        with data.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(
            f"--data {data} cannot be read ({error.strerror}); `python -m flaretune fetch` brings the default"
        ) from error
    if len(rows) < ROWS * len(HOSPITALS):
        raise UserError(f"--data {data} has {len(rows)} rows; give at least {ROWS * len(HOSPITALS)}")
    files = {}
    for i, (name, file_name) in enumerate(HOSPITALS.items()):
        file = folder / "data" / name / file_name
        file.parent.mkdir(parents=True)
        own = rows[i :: len(HOSPITALS)][:ROWS]
        with file.open("w", newline="", encoding="utf-8") as out:
            if file.suffix == ".jsonl":
                out.writelines(json.dumps({**row, "label": int(row["label"])}) + "\n" for row in own)
            else:
                writer = csv.DictWriter(out, fieldnames=list(own[0]))
                writer.writeheader()
                writer.writerows(own)
        files[name] = file
    return files


def hand_out(parties: Sequence[Party]) -> None:
    """Copy to each party what the administrator has packed for it, which on other hosts is sent."""
    kits = parties[0].folder / "kits"
    for party in parties[1:]:
        for file in [*kits.glob(f"{party.name}.tgz"), *kits.glob("*.whl")]:
            shutil.copy(file, party.folder)


if __name__ == "__main__":
    sys.exit(main())
