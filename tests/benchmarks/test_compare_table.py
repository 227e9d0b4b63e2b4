"""The comparison's table: cells, columns, and the sentences under it."""

import compare_table
import pytest
from compare_table import Layout

from tests.benchmarks.made_up_comparison import LAYOUT, RESULTS, a_result


def cells(text: str) -> dict[str, list[str]]:
    """Cells of a Markdown table by the first one of their line."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert len({len(line) for line in lines}) == 1
    return {first: others for first, *others in lines}


def test_the_table_s_numbers():
    text = compare_table.table(LAYOUT, RESULTS, date="2026-01-02", machine="2 cores")
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
        compare_table.table(layout, found, date="2026-01-02", machine="2 cores") for found in (results, results[:1])
    )
    assert [cells(told)[row][-2] for row in ("LP-FL", "FedBPT")] == ["900", "412 *"]
    assert " Lines with * use a model server, whose process is not in the memory. Measured" in told
    assert "*" not in untold


def test_runs_with_noise_tell_their_epsilon_and_not_what_they_spent():
    columns = ("epsilon", *Layout.columns)
    layout = Layout({"plain": ("IID",), "noised": ("IID",)}, ("IID",), 2, columns)
    noised = [
        a_result("noised", seed=s, epsilon=e, example_forwards=0, memory_mb=0.0) for s, e in ((1, 21.4449), (2, 7))
    ]
    text = compare_table.table(layout, [a_result("plain"), *noised], date="2026-01-02", machine="2 cores")
    rows = cells(text)
    assert rows[""][:2] == ["accuracy, IID", "ε"]
    assert rows["noised"] == ["0.800 ± 0.000", "21.4", "368,640", "1.5 MB + 1.4 MB", "–", "–", "60"]
    assert [rows[name][1] for name in ("plain", "zero-shot (model and template alone)")] == ["–", "–"]
    assert rows["plain"][4:6] == ["1,000", "900"]
    assert "with noise the accuracy is that of the last round" in text


def test_a_plan_s_columns_and_no_others_with_one_for_each_split_where_it_is_about_accuracy():
    layout = Layout({"LP-FL": ("IID", "Skewed"), "FedBPT": ("IID",)}, ("IID", "Skewed"), 2, ("last", "agreement"))
    told = ((1, "IID", 0.7, 0.8), (2, "IID", 0.9, 0.91), (1, "Skewed", None, None))
    results = [a_result(seed=s, split=p, last_accuracy=a, soft_label_agreement=g) for s, p, a, g in told]
    text = compare_table.table(layout, [*results, a_result("FedBPT")], date="2026-01-02", machine="2 cores")
    rows = cells(text)
    # 0.7 and 0.9: mean 0.8, deviations ±0.1, over 1: sqrt(0.02); right labels: (0.8 + 0.91) / 2
    after, right = ["after the last round, IID", "after the last round, Skewed"], "correct soft labels"
    assert rows[""] == ["accuracy, IID", "accuracy, Skewed", *after, right]
    assert rows["LP-FL"][2:] == ["0.800 ± 0.141", "(0 of 2 seeds)", "86 %"]
    assert rows["FedBPT"] == ["0.800 (1 of 2 seeds)", "–", "(0 of 2 seeds)", "–", "–"]
    assert rows["zero-shot (model and template alone)"] == ["0.500", "0.500", "–", "–", "–"]
    assert "Seconds" not in text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (1000, "1 kB"), (2673, "2.67 kB"), (1_474_560, "1.47 MB"),
     (999_600, "1 MB"), (1_072_000_000, "1.07 GB"), (12_345_678_901, "12.3 GB")],
)  # fmt: skip
def test_sizes_have_three_digits(n_bytes, text):
    assert compare_table.size(n_bytes) == text
