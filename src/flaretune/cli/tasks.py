"""`python -m flaretune tasks`: list tasks, show one, check one, write a new one."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from flaretune.authoring.inputs import FLAGS
from flaretune.cli.console import add_command, add_manners, printable
from flaretune.config.flags import add_flags
from flaretune.config.options import build
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.registry import METHODS
from flaretune.tasks.spec import available_tasks, load_task, local_tasks, task_file

# Of a job, what decides how much room a text has, how the model is run, and which texts are drawn.
CHECK_OPTIONS = ("n_prompt_tokens", "cat_or_add", "prompt_position", "dtype", "quantize", "device", "seed")


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Give a parser what can be done with tasks as commands, each with its function in `command`."""
    parser.set_defaults(command=list_tasks, json=False)
    add_manners(parser)
    commands = parser.add_subparsers(metavar="ACTION")
    add = partial(add_command, commands)
    command = add("list", list_tasks, "list the tasks that are shipped and those in src/tasks_local (the default)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command = add("show", show_task, "print the file of a task")
    command.add_argument("name", metavar="NAME", help="a task, or a task file")

    command = add("check", check, "tell everything that is wrong with a task file, and what a model makes of it")
    command.add_argument("name", metavar="FILE", help="a task file, or the name of a task")
    command.add_argument(
        "--model_name",
        "--model",
        metavar="NAME",
        default="",
        help="hub id or folder: also label words, examples and lengths, for which no weights are loaded, and, for the "
        "method verbalizer and tasks without label words, the words that it finds",
    )
    command.add_argument(
        "--method", choices=list(METHODS), default="", help="what the task is for (default: any method)"
    )
    command.add_argument(
        "--data",
        metavar="FILE",
        default="",
        help="data file, or folder of train and test data (default: the task's own, if it is on this machine)",
    )
    command.add_argument("--zero_shot", action="store_true", help="also how right the model and the template alone are")
    command.add_argument("--json", action="store_true", help="print JSON")
    add_flags(command, FedBPTConfig, only=CHECK_OPTIONS)

    command = add("new", new, "write a task file; the terminal prompts for what no option says")
    command.add_argument("file", type=Path, metavar="FILE", help="to write, such as tickets.toml; must not exist yet")
    command.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="data file with the texts and labels, or folder of train and test data",
    )
    for name, flag in FLAGS.items():
        command.add_argument(f"--{name}", metavar=flag.metavar, help=flag.help)
    command.add_argument("--no_questions", action="store_true", help="prompt for nothing, and take what is suggested")


def list_tasks(args: argparse.Namespace) -> None:
    """Print all tasks with their descriptions."""
    shipped, local = available_tasks(), local_tasks()
    found = [{"name": name, "shipped": True, **_about(name)} for name in shipped]
    found += [{"name": name, "shipped": False, **_about(name)} for name in local]
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    width = max(len(task["name"]) for task in found)
    for task in found:
        place = f" ({task['file']})" if not task["shipped"] and "error" not in task else ""
        told = task.get("description", f"wrong: {task.get('error')}")
        print(printable(f"{task['name']:<{width}}  {told}{place}"))


def _about(name: str) -> dict[str, Any]:
    """What a list says of a task; one that is wrong does not hide the others."""
    file = ""
    try:
        file = str(task_file(name))
        task = load_task(name)
    except UserError as error:
        return {"file": file, "error": str(error)}
    return {"file": file, "description": task.description, "classes": task.n_classes, "metric": task.metric}


def show_task(args: argparse.Namespace) -> None:
    """Print the file of a task that is right."""
    load_task(args.name)
    print(task_file(args.name).read_text(encoding="utf-8-sig"), end="")


def check(args: argparse.Namespace) -> int:
    """Print what `check_task` finds; returns the exit status, 1 for a file with mistakes."""
    from flaretune.authoring.check import check_task
    from flaretune.authoring.report import report_lines

    config = build(FedBPTConfig, {name: value for name, value in vars(args).items() if name in CHECK_OPTIONS})
    report = check_task(args.name, args.model_name, args.data, args.zero_shot, config, args.method)
    if args.json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
        return int(bool(report.mistakes))
    for line in report_lines(report):
        print(printable(line))
    sys.stdout.flush()
    for mistake in report.mistakes:
        print(f"error: {printable(str(mistake))}", file=sys.stderr)
    n = len(report.mistakes)
    if n:
        print(f"error: {n} mistake{'s' if n > 1 else ''}", file=sys.stderr)
        return 1
    print("no mistakes")
    return 0


def new(args: argparse.Namespace) -> None:
    """Write a task file from options and what is typed."""
    from flaretune.authoring.new import write_task
    from flaretune.authoring.report import about_auto

    given = {name: getattr(args, name) for name in FLAGS if getattr(args, name) is not None}
    read_line = None if args.no_questions or not sys.stdin.isatty() else input
    file = write_task(args.file, args.data, given, read_line)
    if not load_task(file).has_label_words:
        print(about_auto())
    print(f"{file}\nnext: python -m flaretune tasks check {shlex.quote(str(file))} --model_name NAME")
