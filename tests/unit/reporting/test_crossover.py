"""Where a difference changes its sign as the data grow: by hand, by simulation, and in a report."""

import numpy as np
import pytest

from chibit.core.formatting import percent
from chibit.reporting.analysis import analyze
from chibit.reporting.read.registration import Registration, register
from chibit.reporting.read.study import read_study
from chibit.reporting.statistics.comparison import Comparison
from chibit.reporting.statistics.crossover import Crossing, Trend, find_crossing
from chibit.reporting.statistics.intervals import Difference
from chibit.reporting.statistics.verdict import crossing_sentence, crossing_text

SHARES = (0.01, 0.1, 1.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def around(*means, spread=0.0, pairs=10, seed=0):
    draws = rng(seed).normal(size=(len(means), pairs))
    return [mean + spread * (row - row.mean()) for mean, row in zip(means, draws, strict=True)]


@pytest.mark.parametrize("sign", [1, -1])
def test_linear_in_the_logarithm_by_hand(sign):
    """From +2 at 10 % to -2 at 100 %: zero half way between the logarithms, at 31.6 %."""
    found = find_crossing(SHARES, [sign * x for x in around(4, 2, -2)], rng=rng())
    assert found.at == pytest.approx(np.sqrt(0.1))
    assert (found.low, found.high, found.replicates) == pytest.approx((found.at, found.at, 1.0))


def test_a_third_of_the_way():
    assert find_crossing((0.01, 0.1), around(1, -2), rng=rng()).at == pytest.approx(0.01 * 10 ** (1 / 3))


def test_zero_at_a_share_is_there():
    assert find_crossing(SHARES, around(3, 0, -1), rng=rng()).at == pytest.approx(0.1)


def test_zeros_before_a_change_have_no_sign():
    """No run of either arm succeeds on the smallest share: the difference is zero there, and has no sign."""
    found = find_crossing(SHARES, around(0, 2, -2), rng=rng())
    assert found.at == pytest.approx(np.sqrt(0.1))
    assert (found.low, found.high, found.replicates) == pytest.approx((found.at, found.at, 1.0))


@pytest.mark.parametrize("means", [(3, 1, 0), (3, 0, 0), (3, 0, 2), (0, 0, 1)])
def test_a_difference_that_only_vanishes_changes_no_sign(means):
    """Both arms solve everything on the largest share, say."""
    found = find_crossing(SHARES, around(*means), rng=rng())
    assert (found.at, found.low, found.high, found.replicates) == (None, None, None, 0.0)


def test_the_first_of_two_changes_counts():
    assert find_crossing(SHARES, around(2, -2, 2), rng=rng()).at == pytest.approx(np.sqrt(0.001))


@pytest.mark.parametrize("means", [(3, 2, 1), (-3, -2, -1), (0, 0, 0)])
def test_one_sign_has_none(means):
    found = find_crossing(SHARES, around(*means), rng=rng())
    assert (found.at, found.low, found.high) == (None, None, None)
    assert found.replicates == 0.0


def test_an_interval_can_reach_beyond_the_shares():
    """The last share's difference may as well be above zero: the upper end lies above all shares."""
    found = find_crossing(SHARES, around(5, 2, -0.2, spread=2.0), rng=rng())
    assert found.at is not None
    assert 0.01 < found.low < found.at
    assert found.high == np.inf
    early = find_crossing(SHARES, around(0.2, -2, -5, spread=2.0), rng=rng())
    assert early.low == 0.0
    assert early.at < early.high < 1.0


def test_single_pairs_have_no_interval():
    found = find_crossing(SHARES, [np.array([1.0]), np.array([-1.0, -2.0]), np.array([-2.0])], rng=rng())
    assert found.at is not None
    assert (found.low, found.high, found.replicates) == (None, None, None)


def test_the_interval_covers_the_true_crossing():
    """Ten pairs a share, the true zero at 10^-1.5; a bootstrap of ten covers in about 90 % of studies."""
    hits = 0
    for seed in range(200):
        draws = rng(seed).normal(size=(3, 10))
        found = find_crossing(SHARES, [3 + draws[0], 1 + draws[1], -1 + draws[2]], rng=rng(1), resamples=400)
        true = np.sqrt(0.1)
        hits += found.low is not None and found.low <= true <= found.high
    assert hits / 200 > 0.85


@pytest.fixture
def study(tmp_path, runs):
    """Pre-training helps by 20 points at 1 % and harms by 20 at 30 %; the error says the same."""
    register(tmp_path, Registration(comparisons=(("chibit", "random"),)))
    for arm in ("random", "chibit"):
        for share, gain in ((0.01, 20.0), (0.1, 0.5), (0.3, -20.0)):
            for seed in range(5):
                run = runs.write_run(
                    tmp_path,
                    arm,
                    "hopper-medium-replay",
                    seed,
                    num_evaluations=4,
                    gain=gain if arm == "chibit" else 0.0,
                    settings={"data_fraction": share},
                )
                runs.log_held_out(run, [0.5, 0.3 - (gain / 1000 if arm == "chibit" else 0.0) + 0.001 * seed])
    return tmp_path


def test_shares_are_data_sets_in_rising_order(study):
    found = read_study(study)
    assert found.datasets == tuple(f"hopper-medium-replay-{share}pct" for share in (1, 10, 30))


def test_a_study_of_shares_has_its_crossover(study):
    analysis = analyze(read_study(study))
    assert list(analysis.trends) == ["score", "held-out action error"]
    [trend] = analysis.trends["held-out action error"]
    assert trend.fractions == (0.01, 0.1, 0.3)
    # from -0.0005 at 10 % to +0.02 at 30 %, in every pair
    assert trend.crossing.at == pytest.approx(0.1 * 3 ** (0.5 / 20.5))
    assert trend.crossing.low == pytest.approx(trend.crossing.high)
    [scored] = analysis.trends["score"]
    assert 0.03 < scored.crossing.at < 0.3
    table = analysis.tables["crossovers"][1]
    assert table.rows[0].cells[3].text == percent(trend.crossing.at)
    assert "crossover" in analysis.tables["crossovers"][0].title.lower()


def test_the_verdict_says_where_the_sign_changes(study):
    verdict = analyze(read_study(study)).verdict
    [also] = verdict.also
    assert "; paired by seed, 3 shares of 1 data set, at least 5 seeds." in verdict.basis
    assert also.startswith("ChibiT − Random init on hopper-medium-replay: the sign changes at ")
    assert also.endswith(" of the episodes.")


def test_the_verdict_says_that_it_does_not(tmp_path, runs):
    register(tmp_path, Registration(comparisons=(("chibit", "random"),)))
    for arm, gain in (("random", 0.0), ("chibit", 30.0)):
        for share in (0.01, 0.3):
            name = f"{arm}-{share}"
            settings = {"data_fraction": share}
            runs.write_run(tmp_path, arm, "d", 0, num_evaluations=2, gain=gain, settings=settings, name=name)
    [also] = analyze(read_study(tmp_path)).verdict.also
    assert also == "ChibiT − Random init on d: the same sign from 1 % to 30 % of the episodes."


def sentence_of(crossing, difference=1.0):
    found = dict.fromkeys(("a", "b"), Difference(value=difference))
    pair = Comparison(
        treatment="chibit", baseline="random", by_dataset=found, num_pairs={}, dropped={}, overall=None,
        probability=None, datasets=(),
    )  # fmt: skip
    named = {"source": "d", "fractions": (0.01, 0.1), "datasets": ("a", "b")}
    return crossing_sentence(Trend(comparison=pair, crossing=crossing, **named)).partition(": ")[2]


def test_a_crossing_that_may_be_anywhere_is_not_called_one():
    """The bootstrap says how sure a sign is that stays, and an interval without ends tells no place."""
    anywhere = Crossing(at=0.02, low=0.0, high=np.inf, replicates=0.7)
    assert sentence_of(anywhere) == (
        "where the sign changes cannot be told; in the mean at 2 % (95% interval below 1 % to above 10 %) of "
        "the episodes."
    )
    kept = sentence_of(Crossing(at=None, replicates=0.42))
    assert kept == "the same sign from 1 % to 10 % of the episodes, in 58 % of the bootstrap's replicates."
    assert sentence_of(Crossing(at=0.02)) == "the sign changes at 2 % of the episodes, without an interval."
    assert sentence_of(Crossing(at=None), 0.0) == "no difference from 1 % to 10 % of the episodes."


def test_replicates_with_both_signs_change_it_in_either_order():
    """Means 0.1 and 10, the first of them from pairs of either sign: about half of the replicates change."""
    wide, sure = np.array([-9.9, -4.9, 0.1, 5.1, 10.1]), np.full(5, 10.0)
    found = find_crossing((0.1, 0.3), [wide, sure], rng=np.random.default_rng(0))
    assert found.at is None and 0.4 < found.replicates < 0.6
    falling = find_crossing((0.1, 0.3), [sure, wide], rng=np.random.default_rng(0))
    assert 0.4 < falling.replicates < 0.6


def test_one_share_has_no_trend(tmp_path, runs):
    runs.write_study(tmp_path, {"random": 0, "chibit": 1}, ["hopper-medium-v2"], range(2), num_evaluations=2)
    assert analyze(read_study(tmp_path)).trends == {}


def test_two_contents_under_one_name_are_two_trends(study, runs):
    for arm in ("random", "chibit"):
        for share in (0.01, 0.3):
            settings = {"num_evaluations": 4, "settings": {"data_fraction": share}, "data_hash": "f" * 64}
            runs.write_run(study, arm, "hopper-medium-replay", 0, name=f"{arm}-other-{share}", **settings)
    first, second = analyze(read_study(study)).trends["score"]
    assert first.fractions == (0.01, 0.1, 0.3) and second.fractions == (0.01, 0.3)
    assert first.source != second.source == "hopper-medium-replay (ffffffff)"


def test_text(study):
    [trend] = analyze(read_study(study)).trends["held-out action error"]
    assert crossing_text(trend) == "at 10.3 % (95% interval 10.3 % to 10.3 %)"
    assert percent(0.3) == "30 %"
    assert percent(0.0425) == "4.25 %"
