import warnings

import matplotlib.image
import pytest
from matplotlib.figure import Figure

from flaretune.engine.plot import draw_curve
from flaretune.errors import UserError
from tests.engine.summaries import a_summary, a_training_summary


def test_the_curve_is_a_png_with_something_on_it(tmp_path):
    file = tmp_path / "curve.png"
    draw_curve(a_summary(), file)
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    picture = matplotlib.image.imread(file)
    assert picture.shape == (480, 840, 4)  # 7 × 4 inches at 120 dots each
    assert len({tuple(pixel) for row in picture for pixel in row}) > 10


@pytest.fixture
def drawn(monkeypatch):
    """The axes of what `draw_curve` drew."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_kwargs: figures.append(figure))

    def draw(summary):
        draw_curve(summary, "curve.png")
        return figures[-1].axes[0]

    return draw


def test_the_curve_shows_the_rounds_and_the_choice(drawn):
    axes = drawn(a_summary())
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert lines["test"] == [[0, 0.5], [1, 0.6], [2, 0.7]]
    assert lines["validation (chooses the round)"] == [[0, 0.52], [1, 0.75], [2, 0.65]]
    assert lines["chosen: 0.600"] == [[1, 0.6]]
    assert [y for _, y in lines["zero-shot (template alone)"]] == [0.55, 0.55]
    assert axes.get_title() == "FedBPT, movie_reviews, 2 clients"
    assert drawn(a_training_summary()).get_title() == "LP-FL, movie_reviews, 2 clients"


def test_what_a_run_does_not_have_is_not_drawn(drawn):
    rounds = [{**r, "accuracy": None} for r in a_summary()["rounds"]]
    axes = drawn(a_summary(rounds=rounds, test_accuracy=None, zero_shot_accuracy=None))
    assert [line.get_label() for line in axes.get_lines()] == ["validation (chooses the round)"]
    nothing = [{**r, "validation_accuracy": None} for r in rounds]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes = drawn(a_summary(rounds=nothing, test_accuracy=None, zero_shot_accuracy=None))
    assert (list(axes.get_lines()), axes.get_legend()) == ([], None)


def test_bars_are_a_standard_error_long_to_either_side(drawn):
    test, validation = ([s.tolist() for s in bars.get_segments()] for bars in drawn(a_summary()).collections)
    assert test[1] == [[1, 0.6 - 0.0244], [1, 0.6 + 0.0244]]
    assert validation[2] == [[2, 0.65 - 0.0585], [2, 0.65 + 0.0585]]
    earlier = [{k: v for k, v in r.items() if "standard_error" not in k} for r in a_summary()["rounds"]]
    assert not drawn(a_summary(rounds=earlier)).collections  # of a run by an earlier version


@pytest.mark.parametrize("name", ["curve.xyz", "absent/curve.png"])
def test_a_picture_that_cannot_be_written_is_named(tmp_path, name):
    with pytest.raises(UserError, match=rf"the curve cannot be drawn to .*{name} \(.*\); give a \.png, \.pdf or \.svg"):
        draw_curve(a_summary(), tmp_path / name)
