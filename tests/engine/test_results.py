import json

import pytest

from flaretune.engine.results import collect_results, forget_results, read_summary, tell_results
from flaretune.errors import UserError
from tests.engine.summaries import a_summary, a_training_summary


@pytest.fixture(autouse=True)
def _pictures(request, monkeypatch):
    """Pictures take most of the time here: they are drawn where it is about what is there in the end."""
    if "layout" not in request.fixturenames or "simulate_job" not in request.getfixturevalue("layout"):
        monkeypatch.setattr("flaretune.engine.results.draw_curve", lambda _summary, path: path.touch())
        monkeypatch.setattr("flaretune.engine.report.svg", lambda _figure: b"<svg/>")


def make_job(server_folder, **changes):
    """What a job of FedBPT leaves in the server's run folder."""
    results = make_server_folder(server_folder, a_summary(**changes))
    (results / "rounds").mkdir()
    (results / "best_prompt.safetensors").write_bytes(b"prompt")
    (results / "rounds" / "round_0001.npz").write_bytes(b"round")


def make_training_job(server_folder, **changes):
    """What a job of LP-FL leaves there."""
    results = make_server_folder(server_folder, a_training_summary(**changes))
    for name in ("best_adapter", "last_adapter"):
        (results / name).mkdir()
        (results / name / "adapter_config.json").write_text("{}")
        (results / name / "adapter_model.safetensors").write_bytes(name.encode())


def make_server_folder(server_folder, summary):
    """What both leave there; returns the folder of the results."""
    results = server_folder / "flaretune"
    results.mkdir(parents=True)
    (results / "summary.json").write_text(json.dumps(summary))
    (results / "config.json").write_text('{"task": {"text_columns": ["text"]}}')
    events = server_folder / "tb_events" / "simulator_server"
    events.mkdir(parents=True)
    (events / "events.out.tfevents.1").write_bytes(b"events")
    # the job's own code lies there too, in a folder of the same name
    (server_folder / "app_server" / "custom" / "flaretune").mkdir(parents=True)
    return results


@pytest.mark.parametrize("layout", ["5b1d-job-id/workspace", "job/server/simulate_job", "."])
def test_results_are_found_wherever_nvflare_left_them(tmp_path, layout):
    """`nvflare job download` and `get_result`: <folder>/<job id>/workspace; the simulator: server/simulate_job."""
    make_job(tmp_path / "job" / layout)
    output = tmp_path / "runs" / "mine"
    assert collect_results(tmp_path / "job", output) == output
    assert sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()) == [
        "best_prompt.safetensors",
        "config.json",
        "curve.png",
        "report.html",
        "rounds/round_0001.npz",
        "summary.json",
        "tb_events/simulator_server/events.out.tfevents.1",
    ]
    summary = read_summary(output)
    assert summary["artifact"] == str(output / "best_prompt.safetensors")
    assert {**summary, "artifact": None} == {**a_summary(), "artifact": None}


def test_adapters_are_collected_with_their_folders(tmp_path):
    make_training_job(tmp_path / "job" / "server" / "simulate_job")
    output = tmp_path / "runs" / "mine"
    assert collect_results(tmp_path / "job", output) == output
    assert sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()) == [
        "best_adapter/adapter_config.json",
        "best_adapter/adapter_model.safetensors",
        "config.json",
        "curve.png",
        "last_adapter/adapter_config.json",
        "last_adapter/adapter_model.safetensors",
        "report.html",
        "summary.json",
        "tb_events/simulator_server/events.out.tfevents.1",
    ]
    assert (output / "best_adapter" / "adapter_model.safetensors").read_bytes() == b"best_adapter"
    summary = read_summary(output)
    assert summary["artifact"] == str(output / "best_adapter")
    assert {**summary, "artifact": None} == {**a_training_summary(), "artifact": None}


def test_results_may_lie_in_the_output_folder_itself(tmp_path):
    """As the simulator's workspace does: runs/NAME/workspace."""
    make_job(tmp_path / "workspace" / "server" / "simulate_job")
    assert collect_results(tmp_path / "workspace", tmp_path) == tmp_path
    assert read_summary(tmp_path)["test_accuracy"] == 0.6


def test_a_second_run_leaves_nothing_of_the_first(tmp_path):
    make_job(tmp_path / "first")
    make_job(tmp_path / "second", test_accuracy=0.9)
    (tmp_path / "first" / "flaretune" / "rounds" / "round_0002.npz").write_bytes(b"round")
    (tmp_path / "second" / "tb_events" / "simulator_server" / "events.out.tfevents.1").rename(
        tmp_path / "second" / "tb_events" / "simulator_server" / "events.out.tfevents.2"
    )
    output = tmp_path / "output"
    for name in ("first", "second"):
        collect_results(tmp_path / name, output)
    assert read_summary(output)["test_accuracy"] == 0.9
    assert [p.name for p in (output / "rounds").iterdir()] == ["round_0001.npz"]
    assert [p.name for p in output.rglob("events*")] == ["events.out.tfevents.2"]


def test_a_second_run_leaves_no_file_in_the_adapters_of_the_first(tmp_path):
    make_training_job(tmp_path / "first")
    make_training_job(tmp_path / "second", test_accuracy=0.9)
    for name in ("best_adapter", "last_adapter"):
        (tmp_path / "first" / "flaretune" / name / "old.safetensors").write_bytes(b"old")
    output = tmp_path / "output"
    for name in ("first", "second"):
        collect_results(tmp_path / name, output)
    assert read_summary(output)["test_accuracy"] == 0.9
    assert not list(output.rglob("old*"))
    assert len(list(output.rglob("adapter_model.safetensors"))) == 2


def test_a_job_without_events_is_collected_too(tmp_path):
    make_job(tmp_path / "job")
    (tmp_path / "job" / "tb_events").rename(tmp_path / "elsewhere")
    assert collect_results(tmp_path / "job", tmp_path / "output")
    assert not (tmp_path / "output" / "tb_events").exists()


def test_a_job_without_results_is_told_apart(tmp_path):
    (tmp_path / "job" / "app_server" / "custom" / "flaretune").mkdir(parents=True)
    assert collect_results(tmp_path / "job", tmp_path / "output") is None
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"summary\.json cannot be read \(No such file or directory\): give the folder of a finished run"),
        ("{", r"summary\.json is damaged \(.*\): give the folder of a finished run"),
        ("[]", r"summary\.json holds no JSON object: give the folder of a finished run"),
        ("{}", r"no summary of a run: it lacks zero_shot_accuracy, .*method, artifact, artifact_kind, .*rounds$"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_summary(tmp_path)


def test_the_end_of_a_job_says_where_things_are(tmp_path):
    make_job(tmp_path / "job")
    output = collect_results(tmp_path / "job", tmp_path / "output")
    lines = tell_results(output).splitlines()
    assert lines[-3:] == [
        f"curve                    {output}/curve.png",
        f"report                   {output}/report.html",
        f'try it                   python -m flaretune predict --result {output}/best_prompt.safetensors "…"',
    ]
    assert f"prompt                   {output}/best_prompt.safetensors" in lines


def test_the_end_of_a_training_job_says_how_to_try_the_adapter(tmp_path):
    make_training_job(tmp_path / "job")
    output = collect_results(tmp_path / "job", tmp_path / "output")
    lines = tell_results(output).splitlines()
    assert lines[-3:] == [
        f"curve                    {output}/curve.png",
        f"report                   {output}/report.html",
        f'try it                   python -m flaretune predict --result {output}/best_adapter "…"',
    ]
    assert f"adapter                  {output}/best_adapter" in lines


def test_texts_of_several_columns_are_tried_from_a_file(tmp_path):
    make_job(tmp_path / "job")
    (tmp_path / "job" / "flaretune" / "config.json").write_text('{"task": {"text_columns": ["title", "body"]}}')
    output = collect_results(tmp_path / "job", tmp_path / "output")
    assert tell_results(output).endswith(f" predict --result {output}/best_prompt.safetensors --file FILE")


@pytest.mark.parametrize("make", [make_job, make_training_job])
def test_results_of_an_earlier_run_are_forgotten_and_other_files_stay(tmp_path, make):
    make(tmp_path / "job")
    output = collect_results(tmp_path / "job", tmp_path / "output")
    (output / "notes.txt").write_text("mine")
    forget_results(output)
    assert [path.name for path in output.iterdir()] == ["notes.txt"]
    forget_results(tmp_path / "never")  # nothing there, nothing to do
