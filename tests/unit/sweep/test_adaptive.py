"""Seeds are added until intervals are narrow: by simulation, and over runs that a stand-in writes."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chibit.cli import main
from chibit.core.errors import InputError
from chibit.reporting.read.registration import Registration, read_registration, register
from chibit.reporting.statistics.intervals import (
    LOOK_FROM,
    LOOKED_CONFIDENCE,
    is_narrow,
    mean_error,
    mean_over_tasks,
    student_within,
)
from chibit.studies import STUDIES
from chibit.study_runs import study_configs
from chibit.sweep.adaptive import Adaptive, other_seeds
from chibit.sweep.tasks import Outcome
from chibit.training.run_config import run_path

DRAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
    "skewed": lambda rng, shape: (rng.gamma(4.0, size=shape) - 4.0) / 2.0,
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1.0,
}
"""Differences of mean 0 and standard deviation 1, of skewness 0, 0, 1 and 2."""


def simulate(differences, half_width):
    """Run the rule on many studies at once.

    Args:
        differences: (studies, comparisons, sets, most seeds), true mean 0.
        half_width: what is asked for.

    Returns:
        How often each comparison's interval covers 0, the mean number of seeds, and how many were narrow.
    """
    studies, comparisons, sets, most = differences.shape
    covers = np.zeros((studies, comparisons), dtype=bool)
    seeds = np.zeros(studies, dtype=int)
    narrow = np.zeros(studies, dtype=bool)
    for count in range(LOOK_FROM, most + 1):
        open_ = np.flatnonzero(seeds == 0)
        strata = [differences[open_, :, place, :count] for place in range(sets)]
        error, freedom = mean_error(strata)
        found = is_narrow(error, freedom, half_width).all(axis=1)
        ends = found | (count == most)
        inside = student_within(np.abs(mean_over_tasks(strata)) / error, freedom) <= LOOKED_CONFIDENCE
        covers[open_[ends]] = inside[ends]
        seeds[open_[ends]], narrow[open_[ends]] = count, found[ends]
    return covers.mean(axis=0), seeds.mean(), narrow.mean()


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(("sets", "comparisons", "spread"), [(3, 4, 4.0), (1, 1, 2.0), (2, 2, 2.5)])
def test_intervals_cover_in_2000_simulated_studies(kind, sets, comparisons, spread):
    """Deviations at which the rule stops between its first look and its last."""
    rng = np.random.default_rng([len(kind), sets])
    differences = spread * DRAWS[kind](rng, (2000, comparisons, sets, 20))
    covers, seeds, narrow = simulate(differences, half_width=1.5 if sets == 1 else 2.5)
    assert covers.min() >= 0.94
    assert LOOK_FROM < seeds < 20
    assert narrow > 0.05


def test_at_the_usual_level_the_same_rule_would_fall_short(monkeypatch):
    """What the correction is for: 95 % intervals, from five seeds on, cover less than 94 %."""
    monkeypatch.setitem(globals(), "LOOK_FROM", 5)
    monkeypatch.setitem(globals(), "LOOKED_CONFIDENCE", 0.95)
    monkeypatch.setattr("chibit.reporting.statistics.intervals.LOOKED_CONFIDENCE", 0.95)
    differences = 2.5 * np.random.default_rng(1).normal(size=(2000, 1, 1, 20))
    assert simulate(differences, half_width=1.5)[0].min() < 0.94


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_they_cover_where_seeds_do_something_alike_on_all_sets(kind):
    """Correlations of 0.3 between the data sets, which the pooled interval does not know of."""
    rng = np.random.default_rng(len(kind))
    shared, own = (DRAWS[kind](rng, (2000, 4, sets, 20)) for sets in (1, 3))
    differences = 4.0 * (np.sqrt(0.3) * shared + np.sqrt(0.7) * own)
    covers, seeds, _ = simulate(differences, half_width=2.5)
    assert covers.min() >= 0.94
    assert LOOK_FROM < seeds < 20


@pytest.fixture
def writer():
    path = Path(__file__).parents[1] / "reporting" / "synthetic_runs.py"
    spec = importlib.util.spec_from_file_location("synthetic_runs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DATA = ("hopper-medium", "walker2d-medium")


def configs(seeds, arms=("random", "chibit"), data=DATA[:1], **flags):
    return study_configs("table2", seeds=seeds, arms=arms, data=data, num_steps=20_000, **flags)


class StandIn:
    """Writes a run directory for each configuration: score 50, the arm's gain, and noise of a given size."""

    def __init__(
        self,
        writer,
        root,
        study="table2",
        gains=None,
        noise=None,
        ends=lambda config: "finished",
        normalized=True,
    ):
        self.writer, self.root, self.study, self.gains = writer, root, study, gains or {"chibit": 3.0}
        self.noise, self.ends, self.calls, self.normalized = noise or {}, ends, [], normalized

    def __call__(self, wanted, **_):
        self.calls.append(sorted({config.seed for config in wanted}))
        return [self.one(config) for config in wanted]

    def one(self, config):
        path = run_path(config, self.root, self.study)
        if (path / "result.json").exists():
            return Outcome(path, "skipped")
        end = self.ends(config)
        if end != "finished":
            return Outcome(path, end, f"said {end}")
        made = {"num_evaluations": 1, "name": path.name, "normalized": self.normalized}
        self.writer.write_run(path.parent, config.arm, config.data, config.seed, **made)
        luck = np.random.default_rng([config.seed, *f"{config.arm} {config.data}".encode()]).normal()
        score = 50.0 + self.gains.get(config.arm, 0.0) + self.noise.get(config.arm, 0.5) * luck
        lines = [json.loads(line) for line in (path / "evaluations.jsonl").read_text().splitlines()]
        for line in lines:
            line["normalized_score"] = score if self.normalized else None
            if not self.normalized:
                line["episode_returns"] = [score] * len(line["episode_returns"])
        (path / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = json.loads((path / "result.json").read_text())
        for entry in result["scores"]:
            entry.update(last=score, last4=score, best=score)
        (path / "result.json").write_text(json.dumps(result))
        return Outcome(path, "finished")


@pytest.fixture
def grow(writer, tmp_path):
    """Run the rule; the outcomes, the seeds, what was said, and the stand-in."""

    def go(half_width=1.5, max_seeds=14, seeds=(0, 1, 2), comparisons=(), chosen=None, **flags):
        run = StandIn(writer, tmp_path, **flags)
        fixed = Registration(comparisons=comparisons, until_half_width=half_width)
        rule = Adaptive(lambda seeds: configs(seeds, **(chosen or {})), seeds, fixed, max_seeds)
        register(tmp_path / "table2", fixed)
        said = []
        outcomes, done = rule.run(run, tmp_path / "table2", said.append)
        return outcomes, done, said, run

    return go


def test_it_ends_when_all_intervals_are_narrow(grow):
    chosen = {"arms": ("random", "chibit", "dt"), "data": DATA}
    outcomes, seeds, said, run = grow(half_width=1.0, chosen=chosen)
    assert seeds == list(range(10))
    assert run.calls == [list(range(10))]
    assert len(outcomes) == 10 * 3 * 2
    assert said[-1] == "all within ±1 after 10 seeds"
    assert said[0].startswith("10 seeds: ChibiT − Random init ±")
    assert "DT − Random init ±" in said[0]


def test_seeds_are_added_one_by_one_and_it_says_that_the_largest_number_did_not_do(grow):
    _, seeds, said, run = grow(half_width=0.01, max_seeds=12)
    assert run.calls == [list(range(10)), [10], [11]]
    assert seeds == list(range(12))
    assert said[-1] == "not all within ±0.01 after 12 seeds, the largest number allowed"


def test_the_same_call_again_takes_the_same_path_and_runs_nothing(grow):
    first = grow(half_width=0.5, max_seeds=20)
    assert 10 < len(first[1]) < 20, "noise of 0.5 needs a few more than ten seeds"
    second = grow(half_width=0.5, max_seeds=20)
    assert second[1:3] == first[1:3]
    assert {outcome.status for outcome in second[0]} == {"skipped"}


def test_the_half_width_is_that_of_the_report(grow, tmp_path):
    from chibit.reporting.analysis import analyze
    from chibit.reporting.read.study import read_study

    _, _, said, _ = grow(comparisons=(("chibit", "random"),), half_width=1.0)
    [one] = analyze(read_study(tmp_path / "table2")).comparisons["last4"]
    student = one.overall.student
    assert said[0] == f"10 seeds: ChibiT − Random init ±{(student.high - student.low) / 2:.3g}"


def test_only_registered_comparisons_count(grow):
    """dt is as noisy as can be; nobody asks about it."""
    chosen = {"arms": ("random", "chibit", "dt")}
    pair = (("chibit", "random"),)
    _, seeds, said, _ = grow(comparisons=pair, noise={"dt": 30.0}, half_width=1.0, chosen=chosen)
    assert "DT" not in said[0]
    assert len(seeds) == 10


def test_seeds_that_failed_are_dropped_and_others_take_their_place(grow):
    def ends(config):
        return "failed" if (config.arm, config.seed) in {("chibit", 3), ("random", 5)} else "finished"

    outcomes, seeds, said, _ = grow(half_width=1.5, ends=ends)
    assert len(seeds) == 12, "chibit and random have ten pairs only then"
    assert sum(outcome.status == "failed" for outcome in outcomes) == 2
    assert said[-1] == "all within ±1.5 after 12 seeds"


def test_an_arm_that_always_fails_ends_it(grow):
    def ends(config):
        return "failed" if (config.arm, config.data) == ("chibit", DATA[1]) else "finished"

    _, _, said, run = grow(ends=ends, chosen={"data": DATA})
    assert len(run.calls) == 1
    assert said[-1] == f"no pair of ChibiT and Random init on {DATA[1]}: more seeds are not tried"


def test_raw_returns_of_several_data_sets_end_it(grow):
    """They have no mean, and so no interval that more seeds could narrow."""
    _, _, said, run = grow(normalized=False, chosen={"data": DATA})
    assert len(run.calls) == 1
    assert said[-1] == (
        "raw returns of several data sets have no common unit and no mean: more seeds are not tried"
    )


@pytest.mark.parametrize("end", ["stopped", "busy"])
def test_it_adds_nothing_after_a_stop_or_beside_another_driver(grow, end):
    _, _, said, run = grow(ends=lambda config: end if config.seed == 4 else "finished")
    assert len(run.calls) == 1
    assert said == []


def test_seeds_of_other_calls_are_told(grow, writer, tmp_path):
    _, seeds, _, run = grow(half_width=1.0)
    run(configs([30]))
    unfinished = run_path(configs([31])[0], tmp_path, "table2")
    writer.write_run(unfinished.parent, "random", DATA[0], 31, num_evaluations=2, finished=False, name="x")
    assert other_seeds(tmp_path / "table2", seeds) == [
        "seed 30: results of earlier calls; the report counts them, the rule did not",
        "seed 31: folders without results; they count nowhere",
    ]
    assert other_seeds(tmp_path / "table2", [*seeds, 30, 31]) == []
    assert other_seeds(tmp_path / "absent", seeds) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"half_width": 0.0}, "until_half_width: got 0.0, expected a positive number"),
        ({"half_width": -1.5}, "until_half_width: got -1.5"),
        ({"half_width": float("nan")}, "until_half_width: got nan"),
        ({"half_width": float("inf")}, "until_half_width: got inf"),
        ({"max_seeds": 9}, "max_seeds: got 9, expected at least 10: --seeds names 3"),
        ({"seeds": range(12), "max_seeds": 11}, "max_seeds: got 11, expected at least 12"),
        ({"seeds": ()}, "seeds: got none"),
        ({"seeds": (2**32 - 1,)}, "seed: got 4294967296, expected 0 to"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_first_run(grow, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        grow(**flags)
    assert not list(tmp_path.iterdir())


def test_it_needs_two_arms_and_scores():
    def rule(**flags):
        return Adaptive(lambda seeds: configs(seeds, **flags), (0,), Registration(until_half_width=1.0))

    with pytest.raises(InputError, match="one arm has nothing to be compared with"):
        rule(arms=("dt",))
    with pytest.raises(InputError, match="no scores to look at"):
        rule(num_episodes=0)
    assert rule().most == 20


def test_pairs_without_a_score_are_none(grow, monkeypatch):
    """All episodes of three runs failed: ten pairs with scores are there after thirteen seeds, not ten."""
    write = StandIn.one

    def write_failed(self, config):
        outcome = write(self, config)
        if (config.arm, config.seed) in {("chibit", 1), ("chibit", 2), ("random", 3)}:
            path = outcome.path / "evaluations.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                line["failed_episodes"] = [*range(len(line["episode_returns"]))]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return outcome

    monkeypatch.setattr(StandIn, "one", write_failed)
    _, seeds, said, _ = grow(half_width=1.5)
    assert len(seeds) == 13
    assert said[-1] == "all within ±1.5 after 13 seeds"


class TestCommand:
    FLAGS = ("--data", DATA[0], "--arms", "random", "chibit")

    def study(self, monkeypatch, writer, root, *flags, **stand_in):
        run = StandIn(writer, root, **stand_in)
        monkeypatch.setattr("chibit.sweep.run_all", run)
        return main(["study", "table2", *self.FLAGS, "--root", str(root), *flags]), run

    def test_it_says_how_it_ended_and_reports(self, monkeypatch, writer, tmp_path, capsys):
        code, _ = self.study(monkeypatch, writer, tmp_path, "--until-half-width", "0.01", "--max-seeds", "11")
        assert code == 0
        output = capsys.readouterr().out
        assert "not all within ±0.01 after 11 seeds, the largest number allowed" in output
        assert (tmp_path / "table2" / "report.html").exists()
        assert read_registration(tmp_path / "table2").until_half_width == 0.01
        assert "corrected for that" in output

    def test_a_dry_run_shows_the_first_seeds(self, monkeypatch, writer, tmp_path, capsys):
        code, run = self.study(monkeypatch, writer, tmp_path, "--until-half-width", "1", "--dry-run")
        assert code == 0
        assert run.calls == []
        output = capsys.readouterr().out
        assert "20 runs: 0 finished" in output
        assert "more seeds, up to 20 in all" in output
        assert not list(tmp_path.iterdir())

    def test_what_was_registered_first_is_what_it_looks_at(self, monkeypatch, writer, tmp_path, capsys):
        first = Registration(comparisons=(("chibit", "dt"),))
        register(tmp_path / "table2", first)
        flags = ("--until-half-width", "1", "--dry-run")
        assert self.study(monkeypatch, writer, tmp_path, *flags)[0] == 0
        assert "other comparisons or levels were fixed" in capsys.readouterr().err
        assert read_registration(tmp_path / "table2") == first

    def test_nothing_is_registered_after_results(self, monkeypatch, writer, tmp_path, capsys):
        """A page would say that comparisons were registered before the first run."""
        compared = replace(STUDIES["table2"], comparisons=(("chibit", "random"),))
        assert self.study(monkeypatch, writer, tmp_path, "--seeds", "0", "1")[0] == 0
        monkeypatch.setitem(STUDIES, "table2", compared)
        capsys.readouterr()
        assert self.study(monkeypatch, writer, tmp_path, "--seeds", "0", "1", "2")[0] == 0
        assert "it has results already" in capsys.readouterr().err
        assert read_registration(tmp_path / "table2") == Registration()
        flags = ("--until-half-width", "9", "--max-seeds", "10")
        assert self.study(monkeypatch, writer, tmp_path, *flags)[0] == 0
        assert read_registration(tmp_path / "table2") == Registration(until_half_width=9.0)
        assert self.study(monkeypatch, writer, tmp_path / "new", "--seeds", "0")[0] == 0
        capsys.readouterr()
        assert self.study(monkeypatch, writer, tmp_path / "new", "--seeds", "1")[0] == 0
        assert "study.json" not in capsys.readouterr().err
        assert read_registration(tmp_path / "new" / "table2").comparisons == compared.comparisons

    def test_a_bound_without_a_width_is_refused(self, monkeypatch, writer, tmp_path, capsys):
        code, _ = self.study(monkeypatch, writer, tmp_path, "--max-seeds", "12")
        assert code == 2
        assert "max_seeds: got 12, but it acts with --until-half-width only" in capsys.readouterr().err

    def test_a_fixed_number_of_seeds_registers_nothing_that_the_study_does_not(
        self, monkeypatch, writer, tmp_path
    ):
        assert self.study(monkeypatch, writer, tmp_path)[0] == 0
        assert not (tmp_path / "table2" / "study.json").exists()
        assert STUDIES["table2"].comparisons == ()


def test_runs_without_scores_end_it(grow, monkeypatch):
    write = StandIn.one

    def write_without(self, config):
        outcome = write(self, config)
        (outcome.path / "evaluations.jsonl").write_text("")
        result = json.loads((outcome.path / "result.json").read_text())
        (outcome.path / "result.json").write_text(json.dumps({**result, "scores": []}))
        return outcome

    monkeypatch.setattr(StandIn, "one", write_without)
    _, _, said, run = grow()
    assert len(run.calls) == 1
    assert said[-1] == "no finished run has a score: more seeds are not tried"
