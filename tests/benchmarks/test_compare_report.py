"""The comparison's figure, its facts, and the place of the table in the documentation."""

import json
import os

import compare
import compare_report
import pytest
from compare_result import read_result

from flaretune.errors import UserError
from tests.benchmarks.made_up_comparison import LAYOUT, RESULTS, a_summary, write_plan


@pytest.mark.parametrize("method", ["LP-FL", "FedBPT"])
def test_numbers_are_read_from_summary_and_config(tmp_path, method):
    summary = a_summary(method=method, **({"privacy": {"epsilon": 3.5}} if method == "FedBPT" else {}))
    if method == "FedBPT":
        del summary["trained_parameters"], summary["soft_label_agreement"]
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"options": {"intrinsic_dim": 77}}', encoding="utf-8")
    found = read_result(tmp_path, "row", "split", 4)
    assert (found.row, found.split, found.seed, found.method) == ("row", "split", 4, method)
    assert found.parameters == (77 if method == "FedBPT" else 4096)
    assert found.soft_label_agreement == (None if method == "FedBPT" else 0.75)
    assert found.epsilon == (3.5 if method == "FedBPT" else None)
    assert (found.rounds, found.best_round) == (2, 2)
    assert found.bytes_in_all == 2 * (1500 + 1400)
    assert (found.test_accuracy, found.last_accuracy, found.memory_mb) == (0.8, 0.78, 900.5)
    assert (found.seconds, found.example_forwards) == (61.0, 1000)


def test_the_facts_say_where_from_and_what_was_found(main, fake_job, tmp_path):
    fake_job()
    main("--only", "LP-FL")
    facts = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert facts["versions"] == {"torch": "2.0"}
    assert f"{len(os.sched_getaffinity(0))} cores" in facts["machine"]
    assert facts["plan"]["method"] == {"lpfl": {"unlabelled": 40, "num_rounds": 2}, "fedbpt": {"intrinsic_dim": 7}}
    named = [(run["row"], run["split"], run["seed"]) for run in facts["runs"]]
    assert named == [("LP-FL", "IID", 3), ("LP-FL", "Skewed", 3), ("LP-FL", "IID", 1), ("LP-FL", "Skewed", 1)]
    assert {run["bytes_in_all"] for run in facts["runs"]} == {5800}


def test_a_shipped_plan_s_table_goes_between_its_markers_in_the_page_on_benchmarks(
    fake_job, tmp_path, monkeypatch, capsys
):
    fake_job()
    plan = write_plan(tmp_path)
    for name in ("figs", "docs"):
        (tmp_path / name).mkdir(exist_ok=True)
    page = tmp_path / "docs" / "benchmarks.md"
    page.write_bytes("# Ä\r\n<!-- plan: begin -->\nold\n<!-- plan: end -->\nrest".encode())
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    monkeypatch.setattr(compare, "SHIPPED_PLAN", plan)
    argv = ["--plan", str(plan), "--output", str(tmp_path / "out"), "--only", "LP-FL"]
    assert compare.main(argv) == 0
    text = page.read_bytes().decode()
    assert text.startswith("# Ä\r\n<!-- plan: begin -->\n|  | accuracy, IID |")
    assert text.endswith("\n<!-- plan: end -->\nrest")
    assert "old" not in text
    assert (tmp_path / "plan.json").is_file()
    assert (tmp_path / "figs" / "plan.png").is_file()
    assert "| LP-FL |" not in capsys.readouterr().out
    page.write_text("no markers", encoding="utf-8")
    assert compare.main([*argv, "--report"]) == 0
    assert page.read_text(encoding="utf-8") == "no markers"
    assert "| LP-FL |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n<!-- n: begin -->\nold\n<!-- n: end -->\nb\n", "a\n<!-- n: begin -->\nNEW\n<!-- n: end -->\nb\n"),
        ("<!-- n: begin --><!-- n: end -->", "<!-- n: begin -->\nNEW\n<!-- n: end -->"),
        ("<!-- other: begin -->\nold\n<!-- other: end -->", None),
        ("", None),
    ],
)
def test_what_stands_between_markers_is_replaced(text, expected):
    assert compare_report.between_markers(text, "n", "NEW") == expected


@pytest.mark.parametrize(
    "text",
    [
        "<!-- n: begin -->",
        "<!-- n: end -->",
        "<!-- n: end --><!-- n: begin -->",
        "<!-- n: begin --><!-- n: begin --><!-- n: end -->",
        "<!-- n: begin --><!-- n: end --><!-- n: end -->",
    ],
)
def test_markers_that_are_no_pair_are_an_error(text):
    with pytest.raises(UserError, match="the page must have <!-- n: begin --> once and, behind it, <!-- n: end -->"):
        compare_report.between_markers(text, "n", "NEW")


def test_the_figure_is_a_png(tmp_path):
    compare_report.draw(LAYOUT, RESULTS, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_figure_shows_every_seed_the_means_and_zero_shot(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_kwargs: drawn.append(figure))
    compare_report.draw(LAYOUT, RESULTS, tmp_path / "figure.png")
    lines = drawn[0].axes[0].get_lines()
    heights = [[round(float(y), 4) for y in line.get_ydata()] for line in lines]
    zero_shot = (4 * 0.5 + 0.49 + 0.51) / 6
    assert heights == [[0.8, 0.82, 0.84], [0.82], [0.6, 0.8], [0.7], [0.755], [0.755], [round(zero_shot, 4)] * 2]
    filled, hollow, fedbpt = lines[1], lines[3], lines[5]
    assert filled.get_color() == hollow.get_color() != fedbpt.get_color()
    assert filled.get_markerfacecolor() == filled.get_color()
    assert hollow.get_markerfacecolor() == "white"
    # both splits of LP-FL have 5 · 2.9 MB: side by side around it, a constant factor apart
    left, right = filled.get_xdata()[0], hollow.get_xdata()[0]
    assert left * right == pytest.approx((5 * 2.9e6) ** 2)
    assert right / left == pytest.approx(10**compare_report.DODGE)
    assert fedbpt.get_xdata()[0] == pytest.approx(12 * 3485)
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["LP-FL", "FedBPT", "IID", "Skewed", "zero-shot: 0.500"]
