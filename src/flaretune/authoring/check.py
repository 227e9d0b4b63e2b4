"""A task file held against itself, a model and data: everything that is wrong, in one go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from flaretune.authoring.checking import Checking
from flaretune.authoring.report import Mistake, Report
from flaretune.config.options import defaults
from flaretune.data.load import find_local
from flaretune.data.places import LocalSplit, is_one_set
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.registry import find_method
from flaretune.tasks.checks import AUTO, KINDS, needs_label_words
from flaretune.tasks.spec import read_draft, task_file


def check_task(
    name_or_file: str,
    model_name: str = "",
    data: str = "",
    zero_shot: bool = False,
    config: FedBPTConfig | None = None,
    method: str = "",
) -> Report:
    """Check a task file.

    Args:
        model_name: hub id or folder of a model to hold it against; empty for none.
        data: a data file, or a folder with the splits of the task's source; empty for the task's own source, if that
            lies on this machine.
        zero_shot: also measure model and template alone, on the test data if there is any, else on the other.
        config: of the prompt, which a text shares the model's limit with, and of what the model is run in and on, and
            the seed that texts are drawn by, for ``zero_shot`` and the words of a learned verbalizer; None for the
            defaults.
        method: to check the task for, by name; empty for any. A model and data show the words that the verbalizer
            method finds, for itself or where the task has no others.

    Raises:
        UserError: there is no such file, task or method, or the model cannot be loaded for ``zero_shot``.
    """
    method_config = find_method(method).client_config if method else None
    config = config or FedBPTConfig()
    file = task_file(name_or_file)
    try:
        draft = read_draft(file)
    except UserError as error:
        if not file.is_file():
            raise
        line = re.search(r"\(at line (\d+)", str(error))  # as the TOML reader says it
        return Report(str(file), file.stem, "", (Mistake(str(file), line and int(line[1]), str(error)),))
    checking = Checking(draft)
    splits = _find_splits(checking, data)
    read = []
    for split, local in splits:
        try:
            read.append(checking.read(split, local))
        except UserError as error:  # a damaged file
            checking.note_given(str(error))
    data_reports = tuple(data_report for data_report, _ in read)
    report = Report(str(file), file.stem, draft.entries["description"] or "", data=data_reports)
    if model_name:
        from flaretune.authoring.check_model import hold_against_model

        has_prompt = not method_config or "n_prompt_tokens" in defaults(method_config)
        try:
            hold_against_model(report, checking, [rows for _, rows in read], model_name, config, has_prompt)
        except UserError as error:
            checking.note_given(str(error))
    auto = _kinds_without_words(checking, report.model.kind if report.model else "")
    report.auto = bool(auto)
    if method_config and method_config.needs_label_words:
        for kind in auto:
            checking.note((kind, "label_words"), needs_label_words(method_config.method))
    learns_words = not method_config.needs_label_words if method_config else bool(auto)
    usable = next((rows for one, rows in read if rows.texts and one.split != "test"), None)
    if learns_words and report.model and usable and not checking.mistakes():
        from flaretune.authoring.learned_words import learn_words

        try:
            report.learned = learn_words(draft, usable, model_name, config)
        except UserError as error:
            checking.note_given(str(error))
    report.mistakes = checking.mistakes()
    if zero_shot and not report.mistakes:
        if not (model_name and read):
            raise UserError("--zero_shot needs a model and data: give --model_name and --data")
        if auto:
            raise UserError(needs_label_words("--zero_shot"))
        from flaretune.authoring.check_model import measure_zero_shot

        usable = next((rows for _, rows in reversed(read) if rows.texts), None)
        if usable is None:
            raise UserError("--zero_shot needs rows with a text and a label of the task, and the data has none")
        report.zero_shot = measure_zero_shot(draft, usable, model_name, config)
    return report


def _kinds_without_words(checking: Checking, kind: str) -> list[str]:
    """The kinds of model whose label words are `AUTO`: that of the model that is used, or else all; none if one has."""
    wordings = {name: entries["label_words"] for name in KINDS if (entries := checking.draft.entries[name])}
    if kind:
        wordings = {name: words for name, words in wordings.items() if name == kind}
    return list(wordings) if all(words == AUTO for words in wordings.values()) else []


def _find_splits(checking: Checking, data: str) -> list[tuple[str, LocalSplit]]:
    """The splits that can be looked at, training data first."""
    source = checking.draft.entries["source"] or {}
    place = data or source.get("path") or ""
    if not place or not (data or Path(place).exists()):
        return []
    if is_one_set(place) or not Path(place).expanduser().is_dir():
        try:
            return [("all", find_local(place, "train", "", None))]
        except UserError as error:
            checking.note_given(f"--data {data}: {error}")
            return []
    found = []
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    for split in splits:
        try:
            found.append((split, find_local(place, split, source.get(split) or split, source.get("config"))))
        except UserError as error:
            checking.note(("source", split), str(error))
    return found
