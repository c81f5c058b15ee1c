"""Claims of docs/results.md that stood there without raw results: each has them now, or is not made."""

import re
from pathlib import Path

import pytest

from chibit.core.run_dir import RunDir
from chibit.reporting.read.study import read_study
from chibit.reporting.statistics.comparison import collect_scores, compare
from chibit.studies import BACKBONE_RATES, STUDIES
from chibit.sweep.rates import choose_rates

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_every_folder_of_raw_results_that_is_named_is_there():
    for name in set(re.findall(r"`results/(\w+)`", PAGE)):
        kept = ROOT / "results" / name
        assert [*kept.rglob("*.csv"), *kept.glob("*/result.json")], name


@pytest.mark.parametrize(
    "claim", ["inverse-temperature 0.3", "41.2 and 40.7", "`bc_atari` returned", "30.3 (IQL"]
)
def test_runs_without_raw_results_are_not_claimed(claim):
    assert claim not in PAGE


def test_the_rates_of_the_experiment_are_those_that_the_rule_takes_from_stage_0():
    folder = ROOT / "results" / "rates"
    assert len(list(folder.glob("*/result.json"))) == 54
    assert choose_rates(folder) == BACKBONE_RATES
    chosen = [RunDir.open(path) for path in folder.glob("random_3e-3-*")]
    errors = [
        line["held_out/action_error"]
        for run in chosen
        for line in run.read_log("metrics.jsonl")
        if line["step"] == 2_500
    ]
    assert len(errors) == 2
    for study in ("fair", "low_data"):
        level = STUDIES[study].error_levels["hopper-medium-replay"]
        assert level == pytest.approx(sum(errors) / 2, abs=5e-6)


def test_what_the_page_says_of_seeds_that_data_sets_share():
    scores = collect_scores(read_study(ROOT / "results" / "fair"))
    markov, noise = (compare(scores, arm, "random") for arm in ("markov", "random_matched_markov"))
    for one, pooled, by_seed in (
        (markov, "+0.8 to +4.0", "+0.2 to +4.6"),
        (noise, "+1.3 to +4.4", "+1.0 to +4.7"),
    ):
        told = [f"{found.low:+.1f} to {found.high:+.1f}" for found in (one.overall.student, one.by_seed)]
        assert told == [pooled, by_seed]
        assert by_seed in PAGE and pooled in PAGE
    assert f"{4 * markov.by_seed.p_value:.2f}" == "0.14", "the smallest of four, by Holm"
