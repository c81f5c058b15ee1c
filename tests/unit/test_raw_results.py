"""Claims of docs/results.md that stood there without raw results: each has them now, or is not made."""

import csv
import re
from pathlib import Path

import pytest

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
