"""The comparison's table, its figure, its facts, and the place of the table in the README."""

import json
import os

import compare
import compare_report
import pytest
from compare_report import Layout, Result

from flaretune.errors import UserError
from tests.benchmarks.made_up_comparison import a_summary, write_plan


def a_result(row="LP-FL", split="IID", seed=1, **changes):
    values = {
        "row": row, "split": split, "seed": seed, "method": "LP-FL", "test_accuracy": 0.8, "zero_shot_accuracy": 0.5,
        "dev_accuracy": 0.9, "best_round": 2, "rounds": 5, "bytes_down_per_client_round": 1.5e6,
        "bytes_up_per_client_round": 1.4e6, "parameters": 368640, "example_forwards": 1000, "memory_mb": 900.0,
        "seconds": 60.0, "soft_label_agreement": None,
    }  # fmt: skip
    return Result(**{**values, **changes})


LAYOUT = Layout({"LP-FL": ("IID", "Skewed"), "FedBPT": ("IID",), "not run": ("IID",)}, ("IID", "Skewed"), 3)
RESULTS = [
    # mean 0.82, squared deviations 0.0004 + 0 + 0.0004, over n - 1 = 2: 0.02
    a_result(seed=1, test_accuracy=0.80, seconds=50.0, memory_mb=900.0, example_forwards=1000),
    a_result(seed=2, test_accuracy=0.82, seconds=70.0, memory_mb=1500.4, example_forwards=2000),
    a_result(seed=3, test_accuracy=0.84, seconds=60.0, memory_mb=800.0, example_forwards=3000),
    # two of three seeds: mean 0.7, deviations ±0.1, over 1: sqrt(0.02) = 0.1414
    a_result(split="Skewed", seed=1, test_accuracy=0.60, zero_shot_accuracy=0.49, seconds=80.0, example_forwards=4000),
    a_result(split="Skewed", seed=2, test_accuracy=0.80, zero_shot_accuracy=0.51, seconds=90.0, example_forwards=5000),
    a_result(
        "FedBPT", method="FedBPT", test_accuracy=0.755, parameters=100, rounds=12, bytes_down_per_client_round=2673.0,
        bytes_up_per_client_round=812.0, example_forwards=62976, memory_mb=1034.6, seconds=218.4,
    ),
]  # fmt: skip


def cells(text: str) -> dict[str, list[str]]:
    """Cells of a Markdown table by the first one of their line."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert len({len(line) for line in lines}) == 1
    return {first: others for first, *others in lines}


def test_the_table_s_numbers():
    text = compare_report.table(LAYOUT, RESULTS, date="2026-01-02", machine="2 cores")
    rows = cells(text)
    assert list(rows)[1:] == ["---", "zero-shot (model and template alone)", "LP-FL", "FedBPT", "not run"]
    assert rows[""][:2] == ["accuracy, IID", "accuracy, Skewed"]
    # forwards: 15000 / 5; memory: the most; seconds: 50 60 70 80 90
    assert rows["LP-FL"] == [
        "0.820 ± 0.020", "0.700 ± 0.141 (2 of 3 seeds)", "368,640", "1.5 MB + 1.4 MB", "3,000", "1,500", "50"
    ]  # fmt: skip
    assert rows["FedBPT"] == [
        "0.755 (1 of 3 seeds)", "–", "100 searched", "2.67 kB + 812 B", "62,976", "1,035", "218"
    ]  # fmt: skip
    assert rows["not run"] == ["(0 of 3 seeds)", *["–"] * 6]
    assert rows["zero-shot (model and template alone)"][:2] == ["0.500", "0.490 to 0.510"]
    assert "over 3 seeds" in text
    assert "Measured on 2 cores; last run 2026-01-02." in text


def test_memory_without_the_model_is_told():
    layout = Layout({"LP-FL": ("IID",), "FedBPT": ("IID",)}, ("IID",), 1)
    results = [a_result(), a_result("FedBPT", method="FedBPT", shared_model=True, memory_mb=412.0)]
    told, untold = (
        compare_report.table(layout, found, date="2026-01-02", machine="2 cores") for found in (results, results[:1])
    )
    assert [cells(told)[row][-2] for row in ("LP-FL", "FedBPT")] == ["900", "412 *"]
    assert told.endswith("Lines with * have the model once, in a process of its own, which is not in the memory.")
    assert "*" not in untold


def test_runs_with_noise_tell_their_epsilon_and_not_what_they_spent():
    layout = Layout({"plain": ("IID",), "noised": ("IID",)}, ("IID",), 2)
    noised = [
        a_result("noised", seed=s, epsilon=e, example_forwards=0, memory_mb=0.0) for s, e in ((1, 21.4449), (2, 7))
    ]
    text = compare_report.table(layout, [a_result("plain"), *noised], date="2026-01-02", machine="2 cores")
    rows = cells(text)
    assert rows[""][:2] == ["accuracy, IID", "ε"]
    assert rows["noised"] == ["0.800 ± 0.000", "21.4", "368,640", "1.5 MB + 1.4 MB", "–", "–", "60"]
    assert [rows[name][1] for name in ("plain", "zero-shot (model and template alone)")] == ["–", "–"]
    assert rows["plain"][4:6] == ["1,000", "900"]
    assert "With noise (ε) the accuracy is that of the last round" in text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (1000, "1 kB"), (2673, "2.67 kB"), (1_474_560, "1.47 MB"),
     (999_600, "1 MB"), (1_072_000_000, "1.07 GB"), (12_345_678_901, "12.3 GB")],
)  # fmt: skip
def test_sizes_have_three_digits(n_bytes, text):
    assert compare_report.size(n_bytes) == text


@pytest.mark.parametrize("method", ["LP-FL", "FedBPT"])
def test_numbers_are_read_from_summary_and_config(tmp_path, method):
    summary = a_summary(method=method, **({"privacy": {"epsilon": 3.5}} if method == "FedBPT" else {}))
    if method == "FedBPT":
        del summary["trained_parameters"], summary["soft_label_agreement"]
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"options": {"intrinsic_dim": 77}}', encoding="utf-8")
    found = compare_report.read_result(tmp_path, "row", "split", 4)
    assert (found.row, found.split, found.seed, found.method) == ("row", "split", 4, method)
    assert found.parameters == (77 if method == "FedBPT" else 4096)
    assert found.soft_label_agreement == (None if method == "FedBPT" else 0.75)
    assert found.epsilon == (3.5 if method == "FedBPT" else None)
    assert (found.rounds, found.best_round) == (2, 2)
    assert found.bytes_in_all == 2 * (1500 + 1400)
    assert (found.test_accuracy, found.memory_mb, found.seconds, found.example_forwards) == (0.8, 900.5, 61.0, 1000)


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


def test_the_shipped_plan_s_table_goes_into_the_readme(fake_job, tmp_path, monkeypatch, capsys):
    fake_job()
    plan = write_plan(tmp_path)
    (tmp_path / "figs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_bytes("# Ä\r\n<!-- plan: begin -->\nold\n<!-- plan: end -->\nrest".encode())
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    monkeypatch.setattr(compare, "SHIPPED_PLAN", plan)
    argv = ["--plan", str(plan), "--output", str(tmp_path / "out"), "--only", "LP-FL"]
    assert compare.main(argv) == 0
    text = readme.read_bytes().decode()
    assert text.startswith("# Ä\r\n<!-- plan: begin -->\n|  | accuracy, IID |")
    assert text.endswith("\n<!-- plan: end -->\nrest")
    assert "old" not in text
    assert (tmp_path / "plan.json").is_file()
    assert (tmp_path / "figs" / "plan.png").is_file()
    assert "| LP-FL |" not in capsys.readouterr().out
    readme.write_text("no markers", encoding="utf-8")
    assert compare.main([*argv, "--report"]) == 0
    assert readme.read_text(encoding="utf-8") == "no markers"
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
    with pytest.raises(UserError, match="the README must have <!-- n: begin --> once and, behind it, <!-- n: end -->"):
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
