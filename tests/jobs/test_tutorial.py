"""The tutorial notebook: as it is kept, and run from its first cell to its last with the demo's model."""

from __future__ import annotations

import os
import re
import shutil

import nbformat
import pytest

from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.tasks.spec import load_task
from tests.jobs_for_tests import REPOSITORY, read_summary

TUTORIAL = REPOSITORY / "jobs" / "tutorial"
NOTEBOOK = TUTORIAL / "tutorial.ipynb"


def test_the_notebook_is_valid_and_holds_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    assert not any(cell.metadata for cell in notebook.cells)


def test_the_first_cell_says_how_to_open_it():
    [first, *_] = nbformat.read(NOTEBOOK, as_version=4).cells
    assert first.cell_type == "markdown"
    assert "make .venv/ready && . .venv/bin/activate\npip install jupyterlab\n" in first.source
    assert f"jupyter lab {NOTEBOOK.relative_to(REPOSITORY)}\n" in first.source


def test_its_links_lead_somewhere():
    text = "\n".join(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((TUTORIAL / link).exists() for link in links)


@pytest.mark.slow
def test_the_notebook_goes_from_a_csv_to_a_prediction(tmp_path):
    from nbclient import NotebookClient

    path = [str(REPOSITORY / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    del environment["PYTEST_CURRENT_TEST"]  # with which a kernel shows no output of the processes that it starts
    place = shutil.copytree(
        TUTORIAL, tmp_path / "tutorial", ignore=shutil.ignore_patterns("runs", ".ipynb_checkpoints")
    )
    notebook = nbformat.read(place / NOTEBOOK.name, as_version=4)
    client = NotebookClient(notebook, timeout=1000, kernel_name="python3", resources={"metadata": {"path": str(place)}})
    client.execute(env=environment)

    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    said = {key: "".join(out.get("text", "") for out in cell.outputs) for key, cell in cells.items()}
    everything = "".join(said.values())
    assert not re.search(r"Traceback|SystemExit|\[.*[█%].*\]", everything), everything
    assert "product_reviews  " in said["fetch"]
    assert "train.csv: 2461 rows" in said["look"]
    assert said["show"] == (place / "product_reviews.toml").read_text(encoding="utf-8")
    assert "no mistakes" in said["check-it"]
    assert re.search(r"zero-shot accuracy 0\.\d{4} on 400 texts", said["check-it"])
    rounds = re.findall(r"^.{8} INFO +round +(\d)/4 +accuracy 0\.\d{3}", said["run-job"], re.MULTILINE)
    assert rounds == list("01234"), said["run-job"]
    assert any("image/png" in out.get("data", {}) for out in cells["curve"].outputs)
    answers = [out.text for out in cells["predict-it"].outputs if out.get("name") == "stdout"]
    labels = [line.split("  ")[0] for line in "".join(answers).splitlines()]
    assert len(labels) == 2
    assert set(labels) <= {"terrible (0)", "great (1)"}

    results = place / "runs" / "tutorial" / "server" / "simulate_job" / "flaretune"
    summary = read_summary(results)
    assert summary["clients"] == ["site-1", "site-2"]
    prompt = load_prompt(results / "best_prompt.safetensors")
    assert prompt.spec.causal == load_task(place / "product_reviews.toml").causal
