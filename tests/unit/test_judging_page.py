"""The numbers of docs/judging.md are what the raw results give."""

import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "judging.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("judging_table")


@pytest.fixture(scope="module")
def pools(table):
    return [table.pools(seed) for seed in (0, 1)]


def test_the_page_says_what_the_raw_results_give(table):
    assert table.filled(PAGE) == PAGE
    assert table.filled(PAGE.replace(".93 / .91", ".94 / .91")) == PAGE
    assert all(f"<!-- judging: {part} -->" in PAGE for part in table.PARTS)
    with pytest.raises(SystemExit, match="its end is missing"):
        table.filled("<!-- judging: goals -->\n")


def test_every_pool_has_all_of_its_policies_and_a_wrong_one_shows(table, pools):
    assert [len(found) for found in pools] == [7, 6]
    assert {len(pool.judged) for found in pools for pool in found.values()} == {23}
    pool = pools[0]["hopper-medium"]
    found = table.measures(pool.kept, pool.judged)
    worse = [table.Judged(one.judgement, one.true_value - 200.0, -one.true_return) for one in pool.kept]
    changed = table.measures(worse, pool.judged)
    assert changed["rho_return"] == pytest.approx(-found["rho_return"])
    assert changed["bad"] > found["bad"] and changed["covered_value"] < found["covered_value"]
    assert table.told_apart(worse)[1:] == (5, 0)


def test_what_the_page_says_of_single_policies(pools):
    def of(seed, pool, name):
        (one,) = (one for one in pools[seed][pool].judged if one.judgement.name == name)
        played, steps, log = one.judgement.in_model, one.judgement.at_steps, one.judgement.log
        error = steps.error.mean / log.clone_at_steps.error.mean
        return one, played, error, steps.far

    one, played, error, far = of(0, "hopper-medium-expert-25", "bc10@300")
    assert one.kept and (round(played.value.mean), round(one.true_value)) == (246, 71)
    assert (round(error, 1), round(far, 2), round(played.clipped, 2)) == (2.6, 0.22, 0.1)
    assert round(of(1, "hopper-medium-expert-25", "bc10@300")[1].value.mean) == 227
    for pool, values in (("halfcheetah-medium-replay", (434, 53)), ("halfcheetah-medium-25", (459, 159))):
        one, played, *_ = of(0, pool, "td3bc@4000")
        assert not one.kept and (round(played.value.mean), round(one.true_value)) == values
    for found in pools:
        for name in found.keys() & {"halfcheetah-medium-replay", "halfcheetah-medium-25"}:
            kept = [one for one in found[name].kept if one.true_return > 100]
            values = np.median([one.judgement.in_model.value.mean / one.true_value for one in kept])
            returns = np.median([one.judgement.in_model.total.mean / one.true_return for one in kept])
            assert 1.05 < values < 1.15 and 1.65 < returns < 1.85  # a tenth, three quarters


def test_untrained_and_noisy_policies_are_told_by_support(table, pools):
    """On data of one behavior an untrained one has no number; elsewhere its value is about right."""
    for found in pools:
        for name, pool in found.items():
            named = {one.judgement.name: one for one in pool.judged}
            far = [
                named[f"bc@5000{noise}"].judgement.at_steps.far for noise in ("", "-noise-0.25", "-noise-0.6")
            ]
            assert far == sorted(far) and far[0] < far[2], name
            untrained = named["bc@0"]
            if name == "hopper-medium" or name.endswith("-25"):
                assert not untrained.kept, name
            elif untrained.kept:
                width = table.measures(pool.kept, pool.judged)["range"]
                error = abs(untrained.judgement.in_model.value.mean - untrained.true_value)
                assert error < table.BAD * width, name
