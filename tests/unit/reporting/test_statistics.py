"""Statistics by hand, as properties, and against rliable's golden numbers."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chibit.reporting.statistics.intervals import (
    Estimate,
    bootstrap,
    holm,
    interquartile_mean,
    mean_and_std,
    mean_band,
    mean_error,
    mean_over_tasks,
    optimality_gap,
    paired_difference,
    performance_profile,
    performance_profile_band,
    probability_of_improvement,
    student_interval,
    student_quantile,
    student_within,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "rliable_statistics.json"


def strata(*lists):
    return [np.array(values, dtype=float) for values in lists]


def rng(seed=0):
    return np.random.default_rng(seed)


class TestByHand:
    def test_mean_and_std_use_the_sample_divisor(self):
        mean, std = mean_and_std(np.array([1.0, 2.0, 6.0]))
        assert mean == 3.0
        assert std == pytest.approx(np.sqrt((4 + 1 + 9) / 2))

    def test_one_run_has_no_std(self):
        assert mean_and_std(np.array([7.0])) == (7.0, None)
        with pytest.raises(ValueError, match="at least one"):
            mean_and_std(np.array([]))

    def test_every_data_set_counts_the_same_in_the_mean(self):
        assert mean_over_tasks(strata([0, 0, 0, 0], [10])) == 5.0

    def test_every_run_counts_the_same_in_the_interquartile_mean(self):
        # sorted: 0 1 2 | 3 4 5 6 | 7 8 100 -> a quarter of 10, rounded down, is 2 at either end
        assert interquartile_mean(strata([100, 8, 7, 6, 5], [0, 1, 2, 3, 4])) == np.mean([2, 3, 4, 5, 6, 7])

    def test_interquartile_mean_of_few_runs_is_the_mean(self):
        assert interquartile_mean(strata([1, 2, 6])) == 3.0

    def test_scores_above_the_target_do_not_close_the_gap(self):
        assert optimality_gap(strata([80, 120])) == 10.0

    def test_probability_of_improvement_counts_wins_and_half_the_ties(self):
        # data set 1: (2 > 1), (2 = 2), (3 > 1), (3 > 2) = 3.5 / 4; data set 2: never
        assert probability_of_improvement(strata([2, 3], [0]), strata([1, 2], [5])) == (3.5 / 4 + 0) / 2

    def test_probability_of_improvement_wants_the_same_data_sets(self):
        with pytest.raises(ValueError, match="data sets"):
            probability_of_improvement(strata([1]), strata([1], [2]))

    def test_profile_is_the_share_strictly_above(self):
        profile = performance_profile(strata([10, 20], [30]), np.array([0.0, 10.0, 25.0, 30.0]))
        assert profile == pytest.approx([1, 2 / 3, 1 / 3, 0])

    def test_pairing_takes_out_what_a_seed_does_to_both(self):
        luck = np.array([0.0, 30.0, -30.0, 10.0])
        estimate = paired_difference([50 + luck + 1], [50 + luck], rng=rng())
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1.0, 1.0, 1.0))

    def test_unequal_seeds_cannot_be_paired(self):
        with pytest.raises(ValueError, match="same seeds"):
            paired_difference(strata([1, 2]), strata([1]), rng=rng())

    def test_one_seed_gives_no_interval_and_says_why(self):
        estimate = bootstrap(mean_over_tasks, strata([1, 2, 3], [4]), rng=rng())
        assert estimate.value == 3.0
        assert not estimate.has_interval
        assert not estimate.excludes(0)

    def test_excludes_is_about_the_interval(self):
        assert Estimate(value=1.0, low=0.5, high=2.0).excludes(0.0)
        assert not Estimate(value=1.0, low=-0.5, high=2.0).excludes(0.0)
        assert Estimate(value=-1.0, low=-2.0, high=-0.5).excludes(0.0)

    def test_two_runs_make_a_band_from_the_lower_to_the_higher(self):
        low, high = mean_band(np.array([[0.0, 5.0], [10.0, 1.0]]), rng())
        assert low == pytest.approx([0, 1])
        assert high == pytest.approx([10, 5])

    def test_the_interval_is_the_one_of_all_equally_likely_resamples(self):
        """Two runs have three resamples, with weights 1/4, 1/2, 1/4; three have 27: all can be listed."""
        estimate = bootstrap(mean_over_tasks, strata([0, 3, 9]), rng=rng(), resamples=200_000)
        every = [np.mean([a, b, c]) for a in (0, 3, 9) for b in (0, 3, 9) for c in (0, 3, 9)]
        low, high = np.percentile(np.repeat(every, 1000), [2.5, 97.5])
        assert (estimate.low, estimate.high) == pytest.approx((low, high))


class TestStudent:
    """By hand: four pairs 1, 2, 4, 5 have mean 3, variance 10/3, standard error sqrt(10/12) = 0.9129."""

    def test_one_data_set_by_hand(self):
        found = student_interval(strata([1, 2, 4, 5]))
        assert found.standard_error == pytest.approx(np.sqrt(10 / 12))
        assert found.degrees_of_freedom == pytest.approx(3)
        half = 3.182446 * np.sqrt(10 / 12)  # t of 3 degrees in any table
        assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-5)
        assert found.p_value == pytest.approx(0.046, abs=0.001)

    def test_two_data_sets_by_hand(self):
        """v = 10/12 and 2/2 = 1: error sqrt(11/6) / 2, Welch's degrees (11/6)^2 / ((10/12)^2 / 3 + 1 / 1)."""
        error, freedom = mean_error(strata([1, 2, 4, 5], [0, 2]))
        assert error == pytest.approx(np.sqrt(11 / 6) / 2)
        assert freedom == pytest.approx((11 / 6) ** 2 / ((10 / 12) ** 2 / 3 + 1))

    def test_the_pooled_error_is_what_simulated_studies_spread(self):
        groups = [4.0 * rng(1).normal(size=(20_000, 5)), rng(2).normal(size=(20_000, 3))]
        error, _ = mean_error(groups)
        assert np.sqrt(np.mean(error**2)) == pytest.approx(mean_over_tasks(groups).std(), rel=0.02)

    @pytest.mark.parametrize("seeds", [(10, 10, 10), (10, 9, 4)])
    def test_it_covers_95_percent_of_pooled_differences(self, seeds):
        """Three data sets of unequal spreads, 4,000 studies; true difference 0."""
        spreads = (1.0, 4.0, 2.0)
        sets = enumerate(zip(seeds, spreads, strict=True))
        groups = [spread * rng(i).normal(size=(4000, n)) for i, (n, spread) in sets]
        error, freedom = mean_error(groups)
        inside = student_within(np.abs(mean_over_tasks(groups)) / error, freedom) <= 0.95
        assert inside.mean() == pytest.approx(0.95, abs=0.012)

    def test_it_agrees_with_scipy(self):
        stats = pytest.importorskip("scipy.stats")
        freedoms = np.array([1, 1.4, 2, 5, 9.5, 30, 400])
        for size in (0.0, 0.3, 2.0, 8.0):
            ours = student_within(np.full(freedoms.shape, size), freedoms)
            assert ours == pytest.approx(1 - 2 * stats.t.sf(size, freedoms), abs=1e-9)
        for confidence in (0.5, 0.95, 0.99):
            ours = [student_quantile(confidence, freedom) for freedom in freedoms]
            assert ours == pytest.approx(stats.t.ppf(0.5 + confidence / 2, freedoms), rel=1e-6)
        sample = rng(3).normal(0.4, 1, size=12)
        theirs = stats.ttest_1samp(sample, 0)
        found = student_interval([sample])
        assert found.p_value == pytest.approx(theirs.pvalue)
        interval = theirs.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))

    def test_pairs_without_spread_claim_nothing(self):
        found = student_interval(strata([2, 2, 2]))
        assert (found.low, found.high, found.p_value) == (2.0, 2.0, 1.0)
        assert not found.has_spread and not found.is_apart

    def test_rounding_is_no_spread(self):
        """Both arms solve two episodes of thirty more for every seed: shares of 100 in binary numbers."""
        solved = np.array([1, 4, 2, 6, 5])
        differences = 100 * (solved + 2) / 30 - 100 * solved / 30
        assert np.ptp(differences) > 0
        assert student_interval([differences]).p_value == 1.0
        assert not student_interval([differences]).has_spread

    @pytest.mark.parametrize("confidence", [0.95, 0.99])
    @pytest.mark.parametrize("shift", [0.5, 1.0, 1.5, 2.5])
    def test_the_p_value_says_what_the_interval_says(self, shift, confidence):
        found = student_interval(strata(shift + rng(4).normal(size=8)), confidence)
        assert (found.p_value < 0.05) == (found.low > 0) == found.is_apart

    def test_a_difference_carries_both_intervals(self):
        groups = strata([1, 2, 4, 5], [0, 2, 1])
        found = paired_difference(groups, [0 * group for group in groups], rng=rng())
        assert found.student == student_interval(groups)
        assert paired_difference(strata([1]), strata([0]), rng=rng()).student is None


class TestHolm:
    def test_by_hand(self):
        # sorted 0.01, 0.02, 0.03, 0.6: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.6, never falling
        assert holm([0.02, 0.6, 0.01, 0.03]) == pytest.approx([0.06, 0.6, 0.04, 0.06])

    def test_one_comparison_is_left_as_it_is(self):
        assert holm([0.03]) == [0.03]
        assert holm([]) == []

    def test_it_is_never_above_one(self):
        assert holm([0.5, 0.9, 1.0]) == [1.0, 1.0, 1.0]

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
    def test_it_lies_between_the_p_value_and_bonferroni(self, p_values):
        for raw, adjusted in zip(p_values, holm(p_values), strict=True):
            assert raw <= adjusted <= 1
        smallest = min(range(len(p_values)), key=lambda i: p_values[i])
        assert holm(p_values)[smallest] == min(1.0, len(p_values) * p_values[smallest])

    def test_the_family_is_wrong_in_one_study_of_twenty(self):
        """Three true null hypotheses, 4,000 studies: any rejection in at most about 5 %."""
        draws = np.sort(rng(5).uniform(size=(4000, 3)), axis=1)
        rejected = np.mean([min(holm(row)) < 0.05 for row in draws.tolist()])
        assert 0.04 < rejected < 0.06


class TestInvariants:
    scores = arrays(float, st.tuples(st.integers(2, 6)), elements=st.floats(-50, 150, allow_nan=False))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(scores, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
    def test_point_lies_inside_or_at_the_range_and_intervals_in_it(self, groups, seed):
        pooled = np.concatenate(groups)
        for statistic in (mean_over_tasks, interquartile_mean):
            estimate = bootstrap(statistic, groups, rng=rng(seed), resamples=200)
            assert pooled.min() - 1e-9 <= estimate.low <= estimate.high <= pooled.max() + 1e-9
            assert pooled.min() - 1e-9 <= estimate.value <= pooled.max() + 1e-9

    @settings(max_examples=50, deadline=None)
    @given(st.lists(scores, min_size=1, max_size=4))
    def test_probabilities_of_the_two_directions_sum_to_one(self, groups):
        other = [values[::-1] + 1 for values in groups]
        forth, back = probability_of_improvement(groups, other), probability_of_improvement(other, groups)
        assert forth + back == pytest.approx(1.0)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(scores, min_size=1, max_size=4), st.randoms(use_true_random=False))
    def test_the_order_of_runs_and_data_sets_does_not_matter(self, groups, random):
        shuffled = [np.array(random.sample(values.tolist(), values.size)) for values in groups]
        random.shuffle(shuffled)
        for statistic in (mean_over_tasks, interquartile_mean, optimality_gap):
            assert statistic(shuffled) == pytest.approx(float(statistic(groups)))

    def test_replicates_are_drawn_within_data_sets_only(self):
        """Runs of one data set are all equal: no resample moves the mean, though data sets differ by 100."""
        estimate = bootstrap(mean_over_tasks, strata([0, 0, 0], [100, 100, 100]), rng=rng())
        assert estimate.low == estimate.high == 50.0

    def test_same_generator_same_interval(self):
        groups = [rng(1).normal(size=10) for _ in range(3)]
        first = bootstrap(interquartile_mean, groups, rng=rng(5))
        assert first == bootstrap(interquartile_mean, groups, rng=rng(5))
        assert first != bootstrap(interquartile_mean, groups, rng=rng(6))

    def test_intervals_cover_as_often_as_they_say(self):
        """A percentile bootstrap of 20 normal runs covers the true mean in about 93 % of studies."""
        hits = 0
        for seed in range(400):
            groups = [rng(seed).normal(size=20)]
            estimate = bootstrap(mean_over_tasks, groups, rng=rng(seed + 1), resamples=500)
            hits += not estimate.excludes(0.0)
        assert 0.89 <= hits / 400 <= 0.97


class TestAgainstRliable:
    @pytest.fixture(scope="class")
    def golden(self):
        return json.loads(GOLDEN.read_text())

    @pytest.fixture(scope="class")
    def groups(self, golden):
        return {name: list(np.array(golden[name]).T) for name in ("treatment", "control")}

    def test_points_are_equal(self, golden, groups):
        treatment, control = groups["treatment"], groups["control"]
        points = golden["points"]
        assert mean_over_tasks(treatment) == pytest.approx(points["mean"], abs=1e-9)
        assert interquartile_mean(treatment) == pytest.approx(points["interquartile_mean"], abs=1e-9)
        assert optimality_gap(treatment) == pytest.approx(points["optimality_gap"], abs=1e-9)
        wins = probability_of_improvement(treatment, control)
        assert wins == pytest.approx(points["probability_of_improvement"], abs=1e-9)

    def test_intervals_agree_within_the_noise_of_the_bootstrap(self, golden, groups):
        treatment, control = groups["treatment"], groups["control"]
        ours = {
            "mean": bootstrap(mean_over_tasks, treatment, rng=rng()),
            "interquartile_mean": bootstrap(interquartile_mean, treatment, rng=rng()),
            "optimality_gap": bootstrap(optimality_gap, treatment, rng=rng()),
            "probability_of_improvement": bootstrap(
                probability_of_improvement, treatment, control, rng=rng()
            ),
            "paired_difference": paired_difference(treatment, control, rng=rng()),
        }
        for name, estimate in ours.items():
            low, high = golden["intervals"][name]
            assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.05 * (high - low)), name

    def test_profiles_agree(self, golden, groups):
        thresholds = np.array(golden["thresholds"])
        assert performance_profile(groups["treatment"], thresholds) == pytest.approx(golden["profile"])
        low, high = performance_profile_band(groups["treatment"], thresholds, rng())
        assert np.abs(low - golden["profile_band"][0]).max() <= 0.03
        assert np.abs(high - golden["profile_band"][1]).max() <= 0.03


def test_ten_thousand_resamples_of_a_whole_table_take_at_most_two_seconds():
    """9 data sets x 10 seeds x 7 arms: mean and interquartile mean of each arm."""
    table = [[rng(arm).normal(60, 5, size=10) for _ in range(9)] for arm in range(7)]
    started = time.process_time()
    for arm in table:
        bootstrap(mean_over_tasks, arm, rng=rng())
        bootstrap(interquartile_mean, arm, rng=rng())
    assert time.process_time() - started < 2.0
