import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flaretune.methods.fedbpt.objective import fitness_ratio, loss

LOGITS = np.random.default_rng(3).standard_normal((4, 7, 3)).astype(np.float32) * 5
LABELS = np.array([0, 1, 2, 2, 1, 0, 0])


def test_cross_entropy_is_that_of_torch():
    expected = [F.cross_entropy(torch.tensor(row), torch.tensor(LABELS)).item() for row in LOGITS]
    np.testing.assert_allclose(loss("ce", LOGITS, LABELS), expected, rtol=1e-5)


def test_cross_entropy_of_huge_logits_is_finite():
    logits = np.array([[[1e4, -1e4]]])
    assert loss("ce", logits, np.array([1])).tolist() == [2e4]


def test_hinge_is_that_of_torch_with_margin_two_summed_over_the_wrong_classes():
    # torch averages over the classes, hence the factor
    expected = [F.multi_margin_loss(torch.tensor(row), torch.tensor(LABELS), margin=2.0).item() * 3 for row in LOGITS]
    np.testing.assert_allclose(loss("hinge", LOGITS, LABELS), expected, rtol=1e-5)


def test_perf_is_minus_the_metric():
    accuracy = [(row.argmax(-1) == LABELS).mean() for row in LOGITS]
    np.testing.assert_allclose(loss("perf", LOGITS, LABELS), -np.array(accuracy))
    predicted, truth = LOGITS[0].argmax(-1) == 1, LABELS == 1
    f1 = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())
    assert loss("perf", LOGITS[:1], LABELS, "f1", 1)[0] == pytest.approx(-f1)


def test_perf_takes_macro_f1_and_is_zero_where_the_metric_has_no_value():
    logits = np.eye(3)[[0, 2, 1, 0, 0, 1]][None]
    labels = np.array([0, 1, 2, 0, 1, 2])
    assert loss("perf", logits, labels, "macro_f1").tolist() == pytest.approx([-0.8 / 3])
    assert loss("perf", np.eye(3)[[0, 0]][None], np.array([0, 0]), "f1", 1).tolist() == [0.0]


def test_ratio_divides_and_survives_a_perturbed_loss_of_zero():
    assert fitness_ratio(np.array([1.0, 2.0]), np.array([2.0, 0.5])).tolist() == [0.5, 4.0]
    assert np.isfinite(fitness_ratio(np.array([1.0]), np.array([0.0]))).all()


def test_unknown_loss_type_is_refused():
    with pytest.raises(ValueError, match="'mse' is unknown: use one of ce, hinge, perf"):
        loss("mse", LOGITS, LABELS)
