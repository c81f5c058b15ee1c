import pytest

from chibit.core.score_rules import curve_scores


def test_rules_on_a_curve_by_hand():
    scores = curve_scores([10.0, 60.0, 58.5, 40.0, 50.0, 55.0])
    assert scores.last == 55.0
    assert scores.last4 == (58.5 + 40.0 + 50.0 + 55.0) / 4
    assert scores.best == 60.0
    assert scores.best_index == 1
    assert scores.converged_index == 1


def test_convergence_is_the_first_within_two_points():
    assert curve_scores([57.9, 58.0, 60.0]).converged_index == 1


def test_short_and_empty_curves():
    assert curve_scores([1.0, 2.0]).last4 == 1.5
    with pytest.raises(ValueError, match="at least one"):
        curve_scores([])
