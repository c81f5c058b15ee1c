"""Claims of docs/results.md that stood there without raw results: each has them now, or is not made."""

import re
from pathlib import Path

import pytest

from chibit.core.run_dir import RunDir
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
    assert len(list(folder.glob("*/result.json"))) == 30
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
