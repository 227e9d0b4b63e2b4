"""How much is fuzzed."""

from pathlib import Path

from tests.fuzz.guard import INPUTS


def test_loaders_are_given_ten_thousand_inputs_at_the_least():
    assert sum(INPUTS.values()) >= 10_000
    tests = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    assert [what for what in INPUTS if f'"{what}"' not in tests] == []
