"""Which model types give right numbers? Every type of the installed transformers, tiny and random, in every way.

    python benchmarks/model_types.py --output benchmarks/model_types.json --page docs/reference/models.md

Each type is made small by its configuration, saved with a tokenizer, opened as a job would open it, and compared with
its own code from token ids (tests/models/own_code.py), each in a process of its own. What is found is one of: right;
alone, right with the `--batch_size 1` that a refusal advises; refused, with the sentence; wrong; error (an exception
where a sentence should be); unbuilt, a type that cannot be made small from its configuration alone. Finished types are
kept in the JSON file; the table is of all that are there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from markdown_table import markdown_table
from measurements.machine import circumstances

from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.engine.summary import write_json
from flaretune.errors import UserError

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))
Check = Callable[[Path, int], None]  # folder of a model, `--batch_size`
_SERVER = multiprocessing.get_context("forkserver")  # has imported what takes seconds, once
_SERVER.set_forkserver_preload(["tests.models.own_code", "tests.model_types_for_tests"])

WAYS = {
    "causal": ("suffix", "prefix", "words", "lora", "full"),
    "masked": ("add", "cat", "words", "lora", "full"),
}
PREFACE = """\
Every model type of transformers with a causal or a masked language model was made small with random weights, opened as
a job opens it, and compared with its own code given the same tokens (`cat`, whose prompt no tokens are equal to: with
itself, one text at a time; where a model looks up embeddings for each layer by token ids, as Gemma 3n does, the prompt
has padding's). A dash: refused in one sentence when it is loaded, which says what works instead. "1" ("alone" in the
counts): refused likewise, as what it gives a text depends on those beside it, and right with `--batch_size 1`, as the
sentence says. Your model is checked in much the same way whenever it is loaded, by two short texts, also if its type is
not here.
`suffix`, `prefix`, `add` and `cat` are places of FedBPT's prompt (`--prompt_position`, `--cat_or_add`), `words` is the
learned verbalizer, `lora` and `full` are LP-FL's `--tuning`.
"""
WHY = "Refusals, by what differs. Where the model's code fails, that may be due to how it was made small here."
CELLS = {"right": "right", "alone": "1", "refused": "–"}
LIBRARIES = ("transformers", "torch", "peft")
OUTCOMES = ("right", "alone", "refused", "wrong", "error", "unbuilt")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--kind", choices=("causal", "masked"), help="of one kind alone")
    parser.add_argument("--types", nargs="+", metavar="NAME", help="of these types alone, as transformers calls them")
    parser.add_argument("--limit", type=int, default=180, metavar="SECONDS", help="for a type (default: 180)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at a time (default: 2)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="keep what was found in this JSON file")
    parser.add_argument("--page", metavar="FILE", type=Path, help="write a page of documentation of what is there")
    add_manners(parser)
    asked = vars(parse(parser, argv))
    return command_line.run(lambda: try_all(asked), asked["debug"])


def try_all(asked: dict[str, Any]) -> int:
    """Try the types that are not in the file yet, and print the table; 1 if any number is wrong."""
    from transformers.models.auto import modeling_auto as auto

    file = asked["output"]
    check_output(file)
    kept = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {"types": []}
    here = circumstances()["versions"]
    others = {name: v for name, v in kept.get("versions", here).items() if name in LIBRARIES and v != here[name]}
    if others:
        raise UserError(f"--output {file} was made with other versions ({others}); give another file, or remove it")
    names = {"causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES}
    all_types = [(kind, name) for kind in names if asked["kind"] in (None, kind) for name in sorted(names[kind])]
    unknown = sorted(set(asked["types"] or ()) - {name for _, name in all_types})
    if unknown:
        raise UserError(f"--types {' '.join(unknown)}: no such type in the installed transformers")
    done = {(row["kind"], row["type"]) for row in kept["types"]}
    wanted = [t for t in all_types if t not in done and (not asked["types"] or t[1] in asked["types"])]
    with ThreadPoolExecutor(asked["jobs"]) as pool:
        for row in pool.map(lambda t: in_own_process(*t, asked["limit"]), wanted):
            print(f"{row['kind']} {row['type']}: {row['found']}", file=sys.stderr, flush=True)
            kept["types"].append(row)
            if file:
                write_json({**kept, **circumstances()}, file)
    print(table(kept["types"]))
    if asked["page"]:
        asked["page"].write_text(page({**kept, **circumstances()} if wanted else kept), encoding="utf-8")
    return int(any("wrong" in row["found"].values() for row in kept["types"]))


def in_own_process(kind: str, name: str, limit: int) -> dict[str, Any]:
    """What trying one type gives; `unbuilt` where that takes too long, or the process dies."""
    ours, theirs = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_send, args=(theirs, kind, name), daemon=True)
    process.start()
    theirs.close()
    try:
        if ours.poll(limit):
            return ours.recv()
        why = f"took more than {limit} seconds"
    except EOFError:
        why = "its process died"
    finally:
        process.kill()
        process.join()
    return {"kind": kind, "type": name, "found": dict.fromkeys(WAYS[kind], "unbuilt"), "why": {WAYS[kind][0]: why}}


def _send(connection: Connection, kind: str, name: str) -> None:
    connection.send(try_type(kind, name))


def try_type(kind: str, name: str) -> dict[str, Any]:
    """Save a small model of a type and try it in every way."""
    import torch
    from tests.model_types_for_tests import save_model_type
    from tests.models.own_code import check_prompted, check_tuned, check_words

    torch.set_num_threads(1)
    checks: dict[str, Check] = {
        "words": lambda folder, batch_size: check_words(folder, kind, batch_size),
        "lora": lambda folder, batch_size: check_tuned(folder, kind, "lora", batch_size),
        "full": lambda folder, batch_size: check_tuned(folder, kind, "full", batch_size),
    }
    row: dict[str, Any] = {"kind": kind, "type": name, "found": {}, "why": {}}
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_model_type(name, kind, Path(folder))
        except Exception as error:  # whatever a configuration stumbles over
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            return {**row, "found": dict.fromkeys(WAYS[kind], "unbuilt"), "why": {WAYS[kind][0]: why}}
        for way in WAYS[kind]:
            check = checks.get(way, lambda folder, batch_size, mode=way: check_prompted(folder, kind, mode, batch_size))
            found, why = outcome(check, Path(folder))
            row["found"][way] = found
            if why:
                row["why"][way] = why.replace(folder, "MODEL")
    return row


def outcome(check: Check, folder: Path, batch_size: int = 0) -> tuple[str, str]:
    """What became of a check, and why."""
    try:
        check(folder, batch_size)
    except UserError as refusal:
        if not batch_size and "--batch_size 1" in str(refusal):
            found, why = outcome(check, folder, 1)
            return ("alone", str(refusal)) if found == "right" else (found, why)
        return "refused", str(refusal)
    except AssertionError as difference:
        return "wrong", " ".join(str(difference).split())[:300]
    except Exception as error:  # a traceback in place of a sentence
        return "error", f"{type(error).__name__}: {error}".splitlines()[0]
    return "right", ""


def table(rows: list[dict[str, Any]]) -> str:
    """How many types of each kind came out in which way."""
    lines = []
    for kind, ways in WAYS.items():
        for way in ways:
            counts = Counter(row["found"][way] for row in rows if row["kind"] == kind)
            if counts:
                lines.append([kind, way, *(str(counts[found]) for found in OUTCOMES)])
    return markdown_table(["kind", "way", *OUTCOMES], lines, "llr", "Numbers of model types.")


def page(kept: dict[str, Any]) -> str:
    """The documentation of all that was found: counts, a table of types for each kind, and why some are refused."""
    versions = kept["versions"]
    blocks = [
        "# Models",
        f"{PREFACE}\nMade by `python benchmarks/model_types.py` with transformers {versions['transformers']}, torch "
        f"{versions['torch']} and PEFT {versions['peft']}, {kept['date']}.",
        f"## How many\n\n{table(kept['types'])}",
    ]
    for kind, ways in WAYS.items():
        rows = [row for row in kept["types"] if row["kind"] == kind]
        built = [row for row in rows if "unbuilt" not in row["found"].values()]
        cells = [[row["type"], *(CELLS.get(row["found"][w], row["found"][w]) for w in ways)] for row in built]
        left = ", ".join(row["type"] for row in rows if row not in built) or "none"
        blocks.append(
            f"## {kind.capitalize()}\n\n" + markdown_table(["type", *ways], cells, "l", f"Not tried: {left}.")
        )
    whys = Counter(_kind_of_refusal(why) for row in kept["types"] for w, why in row["why"].items() if _refused(row, w))
    blocks.append(
        "## Why\n\n"
        + markdown_table(["what differs", "times"], [[w, str(n)] for w, n in whys.most_common()], "lr", WHY)
    )
    return "\n\n".join(blocks) + "\n"


def _refused(row: dict[str, Any], way: str) -> bool:
    return row["found"][way] in ("refused", "alone")


def _kind_of_refusal(sentence: str) -> str:
    """A refusal without the names of model and class, what a library said, and advice."""
    if "its architecture is" in sentence:
        return "an architecture that is neither causal nor masked"
    return re.split(r" \(|; |: ", sentence.partition(": ")[2].partition(" ")[2])[0]


if __name__ == "__main__":
    sys.exit(main())
