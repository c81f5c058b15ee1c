"""Steps to a fixed level: Kaplan and Meier by hand, levels that no arm decides, and paired differences."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chibit.core.errors import InputError
from chibit.reporting import build_report
from chibit.reporting.analysis import analyze
from chibit.reporting.read.registration import Registration, register
from chibit.reporting.read.study import read_study
from chibit.reporting.statistics.comparison import collect_scores, compare, held_out_errors
from chibit.reporting.statistics.survival import (
    Levels,
    error_arrivals,
    kaplan_meier,
    median_time,
    score_arrivals,
)
from chibit.reporting.tables.arrivals import arrivals_table

HOPPER, WALKER = "hopper-medium-v2", "walker2d-medium-v2"


class TestKaplanMeier:
    def test_weeks_of_remission_under_6_mp(self):
        """Freireich et al. (1963), the example of most textbooks; negative numbers are censored."""
        weeks = np.array([6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32])
        weeks = np.concatenate([weeks, [-34, -35]]).astype(float)
        times = np.abs(weeks)
        steps, left = kaplan_meier(times, weeks > 0)
        assert steps.tolist() == [6, 7, 10, 13, 16, 22, 23]
        assert left == pytest.approx([0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4)
        assert median_time(times, weeks > 0) == 23

    def test_four_runs_by_hand(self):
        """2 of 4 at 1,000; one of the two left ends at 2,000; the last one gets there at 3,000."""
        times, reached = np.array([1000, 1000, 2000, 3000.0]), np.array([True, True, False, True])
        steps, left = kaplan_meier(times, reached)
        assert (steps.tolist(), left.tolist()) == ([1000, 3000], [0.5, 0.0])
        assert median_time(times, reached) == 1000

    def test_none_arrives(self):
        times, reached = np.array([5000.0, 5000.0]), np.array([False, False])
        assert kaplan_meier(times, reached)[0].size == 0
        assert median_time(times, reached) is None

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=12))
    def test_without_early_ends_it_is_the_share_and_the_mean(self, runs):
        times = np.array([time if reached else 10 for time, reached in runs], dtype=float)
        reached = np.array([reached for _, reached in runs])
        steps, left = kaplan_meier(times, reached)
        assert left == pytest.approx([np.mean((times > step) | ~reached) for step in steps])
        edges = np.concatenate([[0.0], steps, [10.0]])
        area = np.sum(np.diff(edges) * np.concatenate([[1.0], left]))
        assert area == pytest.approx(times.mean()), "the mean of what tables show within a horizon"


@pytest.fixture
def study(tmp_path, runs):
    """Two arms, three seeds, four evaluations; the level of 45 is the mean of the training data."""
    curves = {
        "random": [[10, 20, 46, 50], [10, 20, 30, 40], [50, 20, 30, 46]],
        "chibit": [[10, 47, 20, 50], [10, 20, 45, 44], [46, 50, 60, 70]],
    }
    for arm, seeds in curves.items():
        for seed, scores in enumerate(seeds):
            run = runs.write_run(tmp_path, arm, HOPPER, seed, num_evaluations=4)
            rewrite(run, scores)
    return tmp_path


def rewrite(run, scores):
    """Replace a run's evaluations at its one target; result.json says the same."""
    lines = [
        {
            "step": 5000 * (place + 1),
            "seconds": 100.0 * (place + 1),
            "target_return": 3600.0,
            "episode_returns": [score * 32.54572305 - 20.272305],
            "episode_lengths": [9],
            "normalized_score": float(score),
        }
        for place, score in enumerate(scores)
    ]
    (run / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = json.loads((run / "result.json").read_text())
    rules = {"last": scores[-1], "last4": sum(scores[-4:]) / len(scores[-4:]), "best": max(scores)}
    result["scores"] = [result["scores"][0] | {name: float(value) for name, value in rules.items()}]
    (run / "result.json").write_text(json.dumps(result))


class TestScores:
    def test_first_evaluation_at_or_above_the_mean_of_the_data(self, study):
        found = score_arrivals(collect_scores(read_study(study)))
        assert found.levels == {HOPPER: 45.0}
        assert found.values["random", HOPPER] == {0: 15_000, 1: 20_000, 2: 5_000}
        assert found.reached["random", HOPPER] == {0: 1, 1: 0, 2: 1}
        assert found.values["chibit", HOPPER] == {0: 10_000, 1: 15_000, 2: 5_000}

    def test_the_difference_is_paired_by_seed(self, study):
        found = compare(score_arrivals(collect_scores(read_study(study))), "chibit", "random").overall
        assert found.value == pytest.approx(np.mean([-5000, -5000, 0]))

    def test_an_arm_that_ends_higher_does_not_have_further_to_go(self, study, runs):
        """Within 2 points of its own best, `late` needs 20,000 steps; to the level of all, 5,000."""
        rewrite(runs.write_run(study, "late", HOPPER, 0, num_evaluations=4), [46, 60, 70, 90])
        found = analyze(read_study(study))
        assert found.measured[0].measure.values["late", HOPPER] == {0: 5_000}
        convergence = found.tables["convergence"]
        place = [column.label for column in convergence.columns].index("late")
        assert convergence.rows[0].cells[place].text == "20,000"

    def test_levels_can_be_given_and_registered(self, study):
        scores = collect_scores(read_study(study))
        assert score_arrivals(scores, 60.0).values["chibit", HOPPER] == {0: 20_000, 1: 20_000, 2: 15_000}
        register(study, Registration(comparisons=(("chibit", "random"),), score_levels={HOPPER: 20.0}))
        registered = score_arrivals(collect_scores(read_study(study)))
        assert registered.levels == {HOPPER: 20.0}
        assert registered.values["random", HOPPER] == {0: 10_000, 1: 10_000, 2: 5_000}

    def test_shorter_runs_end_the_comparison_for_all(self, study, runs):
        short = {"num_evaluations": 2, "settings": {"num_steps": 20_000}}
        rewrite(runs.write_run(study, "chibit", HOPPER, 3, **short), [1, 2])
        found = score_arrivals(collect_scores(read_study(study)))
        assert found.horizons == {HOPPER: 10_000}
        assert found.values["random", HOPPER] == {0: 10_000, 1: 10_000, 2: 5_000}
        times, reached = found.times("chibit", HOPPER)
        assert times.tolist() == [10_000, 15_000, 5_000, 10_000]
        assert reached.tolist() == [True, True, True, False]

    def test_levels_that_nobody_reaches_are_named(self, study, runs):
        scores = collect_scores(read_study(study))
        assert "No run reaches" not in arrivals_table(score_arrivals(scores)).caption
        assert "shrink" not in (alone := arrivals_table(score_arrivals(scores, 90.0)).caption)
        assert f"No run reaches the level of {HOPPER}: differences in steps are zero there" in alone
        for arm in ("random", "chibit"):
            rewrite(
                runs.write_run(study, arm, WALKER, 0, num_evaluations=4, targets=(3600.0,)), [91, 92, 93, 94]
            )
        found = score_arrivals(collect_scores(read_study(study)), 90.0)
        assert f"level of {HOPPER}: differences in steps are zero there, and shrink those over all" in (
            arrivals_table(found).caption
        )

    def test_data_without_a_level_and_single_evaluations_have_no_times(self, tmp_path, runs):
        run = runs.write_run(tmp_path, "dt", HOPPER, 0, num_evaluations=3)
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps({**result, "behaviour_score": None}))
        assert score_arrivals(collect_scores(read_study(tmp_path))) is None
        runs.write_run(tmp_path / "one", "dt", HOPPER, 0, num_evaluations=1)
        assert score_arrivals(collect_scores(read_study(tmp_path / "one"))) is None
        more = {"num_evaluations": 2, "settings": {"num_steps": 5_000}}
        runs.write_run(tmp_path / "one", "dt", HOPPER, 1, **more)  # beside a run of several there are
        assert score_arrivals(collect_scores(read_study(tmp_path / "one"))).horizons == {HOPPER: 5_000}


@pytest.fixture
def held_out(tmp_path, runs):
    """Errors of two arms on two data sets, three seeds, five measurements over 20,000 steps of 40 lines."""
    for arm, best in (("random", 0.3), ("chibit", 0.2)):
        for dataset in (HOPPER, WALKER):
            for seed in range(3):
                run = runs.write_run(tmp_path, arm, dataset, seed, num_evaluations=4)
                runs.log_held_out(run, np.array([0.9, 0.6, 0.45, 0.35, best]) + 0.01 * seed)
    return tmp_path


class TestErrors:
    def test_the_error_at_the_end(self, held_out):
        measure = held_out_errors(collect_scores(read_study(held_out)))
        assert measure.values["random", HOPPER] == pytest.approx({0: 0.30, 1: 0.31, 2: 0.32})
        found = compare(measure, "chibit", "random")
        assert {name: one.value for name, one in found.by_dataset.items()} == pytest.approx(
            {HOPPER: -0.1, WALKER: -0.1}
        )

    def test_errors_of_two_data_sets_have_no_mean_and_those_of_shares_of_one_have(self, held_out, runs):
        """Squared units of an action, or nats: what one data set's are says nothing of another's."""
        assert (
            compare(held_out_errors(collect_scores(read_study(held_out))), "chibit", "random").datasets == ()
        )
        shares = held_out / "shares"
        for arm, error in (("random", 0.3), ("chibit", 0.2)):
            for share in (0.1, 0.3):
                settings, name = {"data_fraction": share}, f"{arm}-{share}"
                run = runs.write_run(shares, arm, HOPPER, 0, num_evaluations=2, settings=settings, name=name)
                runs.log_held_out(run, [error])
        found = compare(held_out_errors(collect_scores(read_study(shares))), "chibit", "random")
        assert len(found.datasets) == 2 and found.overall.value == pytest.approx(-0.1)

    def test_runs_without_one_have_none(self, study):
        assert held_out_errors(collect_scores(read_study(study))) is None
        assert error_arrivals(collect_scores(read_study(study)), 0.1) is None

    def test_steps_to_an_error(self, held_out):
        scores = collect_scores(read_study(held_out))
        assert error_arrivals(scores) is None, "no level follows from the data"
        found = error_arrivals(scores, 0.45)
        steps = read_study(held_out).cells["random", HOPPER][0].held_out[:, 0]
        assert found.values["random", HOPPER] == {0: steps[2], 1: steps[3], 2: steps[3]}
        register(held_out, Registration(comparisons=(("chibit", "random"),), error_levels={HOPPER: 0.25}))
        registered = error_arrivals(collect_scores(read_study(held_out)))
        assert registered.levels == {HOPPER: 0.25}
        assert set(registered.reached["random", HOPPER].values()) == {0.0}
        assert registered.reached["chibit", HOPPER] == {0: 1, 1: 1, 2: 1}

    def test_each_line_of_a_long_log_counts(self, tmp_path, runs):
        """The level is met in the second line of 5,000, and in no other."""
        run = runs.write_run(tmp_path, "random", HOPPER, 0, num_evaluations=2)
        errors = [0.4 if place == 1 else 0.5 for place in range(5000)]
        lines = [{"step": place + 1, "held_out/action_error": error} for place, error in enumerate(errors)]
        runs.write_lines(run / "metrics.jsonl", lines)
        found = error_arrivals(collect_scores(read_study(tmp_path)), 0.45)
        assert found.ends["random", HOPPER] == {0: 2.0} and found.reached["random", HOPPER] == {0: 1.0}


class TestReport:
    def test_every_format_has_the_measures_that_are_there(self, held_out):
        paths = build_report(held_out, levels=Levels(error=0.45))
        for path in (paths.html, paths.markdown, paths.latex):
            text = path.read_text()
            assert "Steps to a fixed held-out action error" in text
            assert "Steps to a fixed score" in text
        rows = list(csv.DictReader(io.StringIO(paths.comparisons.read_text())))
        assert {row["measure"] for row in rows} == {"score-last4", "held-out", "score-steps", "error-steps"}
        errors = {row["dataset"]: row for row in rows if row["measure"] == "held-out"}
        assert set(errors) == {HOPPER, WALKER}
        for row in errors.values():
            assert float(row["difference"]) == pytest.approx(-0.1) and row["pairs"] == "3"
            assert float(row["student_low"]) <= float(row["difference"]) <= float(row["student_high"])
        [pooled] = [row for row in rows if row["measure"] == "error-steps" and not row["dataset"]]
        assert pooled["pairs"] == "6"

    def test_errors_of_several_data_sets_are_drawn_on_each(self, held_out):
        """They have no mean; the caption speaks of a line, which is there."""
        page = build_report(held_out).html.read_text()
        section = page[page.index('id="held-out"') :].split("</section>")[0]
        for dataset in (HOPPER, WALKER):
            assert f"<figcaption>{dataset}</figcaption>" in section
        assert section.count("<figure") == 2 and "left of the line" in section

    def test_one_arm_has_no_empty_section_of_errors(self, tmp_path, runs):
        runs.log_held_out(runs.write_run(tmp_path, "chibit", HOPPER, 0, num_evaluations=4), [0.4, 0.3])
        assert 'id="held-out"' not in build_report(tmp_path).html.read_text()

    def test_shares_stand_in_their_order(self, tmp_path, runs):
        """10 % comes after 3 %, also in tables of what runs log."""
        for arm in ("random", "chibit"):
            for share in (0.1, 0.03):
                settings, name = {"data_fraction": share}, f"{arm}-{share}"
                run = runs.write_run(
                    tmp_path, arm, HOPPER, 0, num_evaluations=2, settings=settings, name=name
                )
                runs.log_held_out(run, [0.5, 0.3])
        found = error_arrivals(collect_scores(read_study(tmp_path)), 0.4)
        assert list(found.horizons) == [f"{HOPPER}-3pct", f"{HOPPER}-10pct"]

    def test_what_was_not_measured_has_no_section(self, study):
        page = build_report(study).html.read_text()
        assert 'id="score-steps"' in page
        for absent in ("held-out", "error-steps", "crossover"):
            assert f'id="{absent}"' not in page

    def test_the_table_says_who_never_arrives(self, study):
        table = analyze(read_study(study), levels=Levels(score=46.0)).tables["arrivals"]["score-steps"]
        shown = {row.cells[1].text: [cell.text for cell in row.cells[2:]] for row in table.rows}
        assert shown["Random init"] == ["46.0", "2 of 3", "15,000", "13,333"]
        assert shown["ChibiT"] == ["46.0", "2 of 3", "10,000", "11,667"]

    def test_dropped_seeds_stand_in_the_file(self, study):
        next(study.glob("chibit-*-s1-*")).joinpath("result.json").unlink()
        rows = list(csv.DictReader(io.StringIO(build_report(study).comparisons.read_text())))
        assert {row["dropped_seeds"] for row in rows} == {"1"}

    def test_a_level_that_is_no_number_is_refused(self, study):
        from chibit.cli import main

        assert main(["report", str(study), "--error-level", "-1"]) == 2
        assert main(["report", str(study), "--score-level", "nan"]) == 2
        with pytest.raises(InputError):
            Registration(score_levels={"d": float("nan")})
