"""docs/how-to/own-task.md, run as it stands there in a copy of the repository, with a tiny model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flaretune.methods.fedbpt.artifact import load_prompt
from tests.authoring.tickets import WORDS, write_tickets
from tests.jobs_for_tests import REPOSITORY, environment_in, read_summary
from tests.models_for_tests import save_tiny_model

GUIDE = REPOSITORY / "docs" / "how-to" / "own-task.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """(language, contents, the text in front) of every code block, in order."""
    text, found, end = GUIDE.read_text(encoding="utf-8"), [], 0
    for match in BLOCK.finditer(text):
        found.append((match[1], match[2], text[end : match.start()]))
        end = match.end()
    return found


def test_every_block_is_one_that_is_run_or_an_example():
    languages = [language for language, *_ in blocks()]
    assert languages.count("csv") == languages.count("python") == languages.count("toml") == 1
    assert set(languages) == {"csv", "python", "toml", "sh", "text"}


@pytest.mark.slow
def test_the_three_ways_lead_to_a_prompt(tmp_path):
    place = tmp_path / "copy"
    for folder in ("src", "jobs", "job_templates"):
        shutil.copytree(
            REPOSITORY / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__", "tasks_local")
        )
    write_tickets(place / "tickets")
    model = save_tiny_model("gpt2", tmp_path / "model", words=WORDS)
    environment = {**environment_in(tmp_path), "PYTHONPATH": str(place / "src"), "MODEL": str(model)}

    script = ["set -e"]
    for language, contents, before in blocks():
        if language == "csv":
            assert (place / "tickets" / "train.csv").read_text().splitlines()[0] == contents.splitlines()[0]
        elif language == "python":
            name = re.findall(r"`(\w+\.py)`", before)[-1]
            (place / name).write_text(contents, encoding="utf-8")
        elif language == "sh":
            script.append(contents)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=place, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "no mistakes" in done.stdout
    assert re.search(r"^tickets +Is a support ticket urgent\?", done.stdout, re.MULTILINE)

    assert re.search(r"^  label low +'.*' \(", done.stdout, re.MULTILINE)  # words of the learned verbalizer
    assert read_summary(place / "runs" / "tickets_auto")["artifact_kind"] == "verbalizer"

    inside = Path("server") / "simulate_job" / "flaretune"
    results = [place / "runs" / "tickets", place / "OUT" / inside, place / "OUT2" / inside]
    results.append(place / "runs" / "recipe" / "tickets" / inside)
    for folder, rounds in zip(results, (2, 2, 3, 2), strict=True):
        summary = read_summary(folder)
        assert [r["round"] for r in summary["rounds"]] == list(range(rounds + 1))
        assert summary["clients"] == ["site-1", "site-2"]
    prompts = [load_prompt(folder / "best_prompt.safetensors") for folder in results]
    causal = [prompt.spec.causal for prompt in prompts]
    assert causal[0].label_words == (" fine", " urgent")
    assert [wording.template for wording in causal] == [
        *["{subject} {body} . It was"] * 2, "{subject} {body} . The ticket is", "{subject} {body} . It was"
    ]  # fmt: skip
    assert [(p.options["k_shot"], p.options["loss_type"]) for p in prompts] == [
        (4, "ce"), (4, "ce"), (6, "hinge"), (4, "ce")
    ]  # fmt: skip
    # the same job by three ways gives the same prompt
    assert (prompts[0].point == prompts[1].point).all()
    assert (prompts[0].point == prompts[3].point).all()
    answers = [json.loads(line) for line in (place / "runs" / "tickets" / "predictions.jsonl").read_text().splitlines()]
    assert len(answers) == 12
    assert {answer["label"] for answer in answers} <= {"low", "high"}
