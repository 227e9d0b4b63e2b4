"""Support tickets for the tests of own tasks: data, and a task file that is right."""

from __future__ import annotations

from pathlib import Path

WORDS = ("fine", "urgent")  # the task's label words, to give to a tokenizer
SUBJECTS = {"low": "a question about the plot", "high": "nothing works"}
BODIES = {"low": "a bright , lovely day and a warm night", "high": "what an awful mess , nobody cares"}

GOOD = """description = "Is a support ticket urgent?"
text_columns = ["subject", "body"]
label_column = "priority"
label_values = ["low", "high"]
metric = "accuracy"

[masked]
template = "{subject} . {body} . It is {mask} ."
label_words = [" fine", " urgent"]

[causal]
template = "{subject} . {body} It is"
label_words = [" fine", " urgent"]

[source]
path = "tickets"
train = "train"
test = "test"
"""


def write_tickets(folder: Path, n_train: int = 40, n_test: int = 12) -> Path:
    """A folder with train.csv and test.csv, every second ticket urgent."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", n_train), ("test", n_test)):
        lines = ["subject,body,priority"]
        for i in range(n):
            label = ("low", "high")[i % 2]
            lines.append(f'"{SUBJECTS[label]}","{BODIES[label]} {i}",{label}')
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_task(folder: Path, *changes: tuple[str, str]) -> Path:
    """tickets.toml with parts of ``GOOD`` replaced, beside data."""
    write_tickets(folder / "tickets")
    text = GOOD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "tickets.toml").write_text(text, encoding="utf-8")
    return folder / "tickets.toml"
