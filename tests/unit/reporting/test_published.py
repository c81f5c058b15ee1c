"""Published numbers: copied right, labeled with rule and source, found by arm and task."""

import statistics

import pytest

from chibit.reporting.published.scores import SOURCES, find_published, published_scores, task_of
from chibit.reporting.read.arms import arm_label

NINE = [
    f"{env}-{level}"
    for env in ("hopper", "halfcheetah", "walker2d")
    for level in ("medium", "medium-replay", "medium-expert")
]


def one(source, arm, task, rule):
    found = [s for s in published_scores() if (s.source, s.arm, s.task, s.rule) == (source, arm, task, rule)]
    assert len(found) == 1
    return found[0]


def test_numbers_read_off_the_tables():
    hopper = one("reid2022-table2", "chibit", "hopper-medium", "best")
    assert (hopper.mean, hopper.spread, hopper.num_seeds) == (82.1, 4.6, 3)
    assert one("reid2022-table2", "dt", "walker2d-medium-replay", "last").mean == 66.6
    assert one("reid2022-table1", "gpt2", "Breakout", "unstated").mean == 287.8
    assert one("reid2022-table3", "dt", "halfcheetah-medium-expert", "converged").mean == 3 * 60 + 23
    assert one("reid2022-table4", "chibit_context60", "medium-average", "best").mean == 67.3
    assert one("reid2022-table5", "chibit_frozen", "hopper-medium", "best").mean == 57.7
    assert one("reid2022-table6", "chibit_random_positions", "walker2d-medium", "best").spread == 1.2
    assert one("corl", "rebrac", "hopper-medium", "last").mean == 102.29
    assert one("wang2024", "markov", "hopper-medium-replay", "last4").mean == 61.84
    assert one("wang2024", "random", "walker2d-medium", "best").num_seeds == 20


@pytest.mark.parametrize(
    ("source", "arm", "rule", "printed"),
    [
        ("reid2022-table2", "dt", "last", 74.7),
        ("reid2022-table2", "td3_bc", "unstated", 75.3),
        ("reid2022-table2", "igpt", "best", 3.7),
        ("corl", "dt", "last", 73.84),
        ("corl", "dt", "best", 77.49),
        ("corl", "edac", "last", 92.92),
    ],
)
def test_printed_averages_are_those_of_the_rows(source, arm, rule, printed):
    """A wrong digit in any row of these columns would show."""
    rows = [one(source, arm, task, rule).mean for task in NINE]
    assert statistics.mean(rows) == pytest.approx(printed, abs=0.05)
    assert one(source, arm, "average", rule).mean == printed


def test_averages_that_the_paper_prints_wrongly_are_kept_as_printed():
    rows = [one("reid2022-table2", "gpt2", task, "best").mean for task in NINE]
    assert statistics.mean(rows) == pytest.approx(79.9, abs=0.05)
    assert one("reid2022-table2", "gpt2", "average", "best").mean == 80.1
    assert "79.9" in SOURCES["reid2022-table2"].note


def test_the_twenty_seed_means_over_nine_data_sets():
    """The re-aggregation's own summary: last-4 of DT 59.5, ChibiT 62.0, control 62.5, Markov 65.4."""
    for arm, mean in (("dt", 59.5), ("chibit", 62.0), ("random", 62.5), ("iid", 63.9), ("markov", 65.4)):
        rows = [one("wang2024", arm, task, "last4").mean for task in NINE]
        assert statistics.mean(rows) == pytest.approx(mean, abs=0.06)


def test_every_number_has_a_source_a_rule_and_sense():
    assert len(published_scores()) > 450
    for score in published_scores():
        assert score.source in SOURCES
        assert score.rule in {"last", "last4", "best", "converged", "unstated"}
        assert (score.unit == "minutes") == (score.rule == "converged")
        assert 0 <= score.mean < 300
    for source in SOURCES.values():
        assert source.citation
        assert source.note


def test_numbers_that_later_tables_repeat_are_found_once():
    sources = [score.source for score in find_published("chibit", "hopper-medium")]
    assert sources == ["reid2022-table2", "wang2024", "wang2024", "wang2024"]
    assert find_published("chibit", "no-such-task") == []
    assert all(score.unit == "score" for score in find_published("dt", "hopper-medium-expert"))


@pytest.mark.parametrize(
    ("arm", "mean", "difference"),
    [
        ("chibit_paper", 82.1, ""),
        ("chibit", 82.1, "theirs with L_cos and L_LM"),
        ("chibit_similarity", 81.4, "theirs without L_LM, L_cos as a sum"),
        ("chibit_language", 80.9, "theirs without L_cos"),
        ("chibit_no_language", 81.4, ""),
        ("chibit_no_similarity", 80.9, ""),
    ],
)
def test_an_arm_stands_beside_the_number_of_its_own_techniques(arm, mean, difference):
    (paper,) = [s for s in find_published(arm, "hopper-medium") if s.publication == "reid2022"]
    assert (paper.mean, paper.difference) == (mean, difference)


@pytest.mark.parametrize("arm", ["chibit", "chibit_paper", "chibit_similarity", "chibit_no_language"])
def test_their_similarity_loss_is_not_ours(arm):
    """Wang et al. (2024) have the released code's; ours is none, a mean or Eq. 8's sum."""
    found = [s for s in find_published(arm, "hopper-medium") if s.publication == "wang2024"]
    assert found and all("L_cos in the released form" in score.difference for score in found)


def test_an_average_has_the_rule_of_its_rows():
    """Table 4's DT is the mean of Chen et al.'s last evaluations in Table 2."""
    rows = [
        one("reid2022-table2", "dt", f"{env}-medium", "last").mean
        for env in ("hopper", "halfcheetah", "walker2d")
    ]
    (average,) = find_published("dt", "medium-average")
    assert average.mean == pytest.approx(statistics.mean(rows), abs=0.05)
    assert average.rule == "last"
    (other,) = find_published("dt_context60", "medium-average")
    assert other.rule == "unstated"


@pytest.mark.parametrize(
    ("dataset", "task", "origin"),
    [
        ("hopper-medium-v2", "hopper-medium", "d4rl"),
        ("walker2d-medium-replay-v2", "walker2d-medium-replay", "d4rl"),
        ("hopper-medium-v0", None, "other"),
        ("chibit/hopper/medium-v0", "hopper-medium", "chibit"),
        ("mujoco/halfcheetah/expert-v0", "halfcheetah-expert", "minari"),
        ("Breakout", "Breakout", "atari"),
        ("my/hopper/medium-v0", None, "other"),
        ("hopper-medium-v2 (0a1b2c3d)", None, "other"),
        ("", None, "other"),
    ],
)
def test_task_of(dataset, task, origin):
    assert task_of(dataset) == (task, origin)


@pytest.mark.parametrize(
    ("arm", "task", "mean"),
    [
        ("dt_atari", "Breakout", 267.5),
        ("chibit_atari", "Pong", None),
        ("qr_dqn_atari", "Breakout", 17.1),
        ("cql_tuned", "hopper-medium", None),
        ("rebrac_tuned", "hopper-medium", 102.29),
        ("chibit_paper", "hopper-medium", 82.1),
    ],
)
def test_recipes_find_the_numbers_of_the_method_that_they_run(arm, task, mean):
    means = [score.mean for score in find_published(arm, task)]
    assert means and (mean is None or mean in means)


def test_every_arm_of_table1_has_published_numbers_but_the_untrained_one():
    from chibit.studies import GAMES, STUDIES

    missing = {a for a in STUDIES["table1"].arms for game in GAMES if not find_published(a, game)}
    assert missing == {"random_atari", "clip_atari", "igpt_atari"}


def test_arm_labels():
    assert arm_label("cql_tuned") == "CQL, tuned"
    assert arm_label("dt_atari") == "DT, Atari"
    assert arm_label("mine_atari") == "mine_atari"
    assert arm_label("td3_bc") == "TD3+BC"
    assert arm_label("chibit (dropout=0.1)") == "ChibiT (dropout=0.1)"
    assert arm_label("mine") == "mine"
