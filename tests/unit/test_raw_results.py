"""Claims of docs/results.md that stood there without raw results: each has them now, or is not made."""

import csv
import re
from pathlib import Path

import pytest

from chibit.core.run_dir import RunDir
from chibit.studies import BACKBONE_RATES, STUDIES
from chibit.sweep.rates import choose_rates

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("column", "game"), [(4, "breakout"), (5, "pong")])
def test_random_play_is_that_of_its_file(column, game):
    with open(ROOT / "results" / "table1_small" / "random_play" / f"{game}.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    cells = next(line for line in PAGE.splitlines() if line.startswith("| `random_play`")).split("|")
    shown = re.fullmatch(r" (-?[\d.]+) \((-?[\d.]+)\) ", cells[column])
    assert float(shown[1]) == pytest.approx(float(row["mean_return"]), abs=0.051)
    assert float(shown[2]) == pytest.approx(float(row["score"]), abs=0.051)


def test_every_folder_of_raw_results_that_is_named_is_there():
    for name in set(re.findall(r"`results/(\w+)`", PAGE)):
        assert list((ROOT / "results" / name).rglob("*.csv")), name


@pytest.mark.parametrize(
    "claim", ["inverse-temperature 0.3", "41.2 and 40.7", "`bc_atari` returned", "30.3 (IQL"]
)
def test_runs_without_raw_results_are_not_claimed(claim):
    assert claim not in PAGE


def test_the_horizon_of_td3_bc_is_that_of_its_file():
    with open(ROOT / "results" / "baselines_horizon" / "td3_bc" / "hopper-medium.csv", newline="") as file:
        scores = [float(row["score"]) for row in csv.DictReader(file)]
    for score in scores:
        assert f"{score:.1f}" in PAGE


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
