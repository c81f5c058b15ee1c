"""One rule and one target for all arms; aggregates and differences against numbers by hand; verdicts."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.core.formatting import format_score
from chibit.reporting.analysis import analyze
from chibit.reporting.figures.forest import overall_forest, pairing
from chibit.reporting.figures.profile import profile
from chibit.reporting.figures.svg import Canvas, style
from chibit.reporting.read.registration import Registration, register
from chibit.reporting.read.study import read_study
from chibit.reporting.statistics.comparison import (
    aggregate,
    choose_baseline,
    collect_scores,
    compare,
    compare_all,
)
from chibit.reporting.statistics.intervals import Estimate
from chibit.reporting.statistics.verdict import choose_focus, format_interval

HOPPER, WALKER = "hopper-medium-v2", "walker2d-medium-v2"


def scores_of(run, target=3600.0):
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    return [line["normalized_score"] for line in lines if line["target_return"] == target]


def cautions_of(folder, **choices):
    return analyze(read_study(folder), **choices).verdict.cautions


@pytest.fixture
def study(tmp_path, runs):
    arms = {"random": 0.0, "chibit": 5.0}
    return read_study(runs.write_study(tmp_path / "s", arms, [HOPPER, WALKER], [0, 1, 2], num_evaluations=6))


class TestScores:
    def test_the_three_rules(self, study):
        run = study.cells["chibit", HOPPER][1]
        curve = scores_of(run.folder)
        for rule, expected in (("last", curve[-1]), ("last4", np.mean(curve[-4:])), ("best", max(curve))):
            assert collect_scores(study, rule).values["chibit", HOPPER][1] == pytest.approx(expected)

    def test_the_first_listed_target_by_default(self, study):
        scores = collect_scores(study)
        assert scores.target("chibit", HOPPER) == 3600.0
        assert scores.target("chibit", WALKER) == 5000.0

    def test_the_best_target_is_one_for_all_arms(self, tmp_path, runs):
        """The second target is a little better for one arm, a lot worse for the other: both get the first."""
        for arm, second in (("dt", 60.0), ("chibit", 10.0)):
            run = runs.write_run(tmp_path, arm, HOPPER, 0, num_evaluations=3)
            rewrite(run, {3600.0: [50.0] * 3, 1800.0: [second] * 3})
        scores = collect_scores(read_study(tmp_path), target="best")
        assert scores.target("dt", HOPPER) == scores.target("chibit", HOPPER) == 3600.0
        rewrite(next(tmp_path.glob("chibit*")), {3600.0: [50.0] * 3, 1800.0: [45.0] * 3})
        scores = collect_scores(read_study(tmp_path), target="best")
        assert scores.target("dt", HOPPER) == scores.target("chibit", HOPPER) == 1800.0
        assert scores.values["dt", HOPPER][0] == 60.0

    def test_arms_without_targets_keep_their_only_curve(self, tmp_path, runs):
        runs.write_run(tmp_path, "dt", HOPPER, 0, num_evaluations=3)
        runs.write_run(tmp_path, "bc", HOPPER, 0, num_evaluations=3, return_conditioned=False)
        for choice in ("first", "best"):
            scores = collect_scores(read_study(tmp_path), target=choice)
            assert scores.target("bc", HOPPER) is None
            assert scores.cell("bc", HOPPER).size == 1

    def test_an_unknown_choice_of_target_is_refused(self, study):
        with pytest.raises(InputError, match="expected first, best, a number, or ENVIRONMENT=NUMBER"):
            collect_scores(study, target="middle")

    def test_one_run_without_reference_makes_the_data_set_raw(self, tmp_path, runs):
        runs.write_run(tmp_path, "dt", HOPPER, 0, num_evaluations=3)
        runs.write_run(tmp_path, "dt", HOPPER, 1, num_evaluations=3, normalized=False)
        scores = collect_scores(read_study(tmp_path))
        assert (scores.cell("dt", HOPPER) > 200).all(), "raw returns, for both runs"


class TestAggregates:
    def test_means_by_hand(self, study):
        scores = collect_scores(study)
        found = aggregate(scores, "chibit")
        cells = [scores.cell("chibit", name) for name in (HOPPER, WALKER)]
        assert found.mean.value == pytest.approx((cells[0].mean() + cells[1].mean()) / 2)
        assert found.interquartile_mean.value == pytest.approx(np.sort(np.concatenate(cells))[1:-1].mean())
        assert found.optimality_gap.value == pytest.approx(100 - found.mean.value)
        assert found.mean.low <= found.mean.value <= found.mean.high

    def test_an_arm_that_lacks_a_data_set_has_no_mean(self, tmp_path, runs):
        runs.write_study(tmp_path, {"dt": 0}, [HOPPER, WALKER], [0, 1], num_evaluations=3)
        runs.write_study(tmp_path, {"chibit": 0}, [HOPPER], [0, 1], num_evaluations=3)
        scores = collect_scores(read_study(tmp_path))
        assert aggregate(scores, "dt") is not None
        assert aggregate(scores, "chibit") is None

    def test_raw_returns_are_not_averaged_with_scores(self, tmp_path, runs):
        runs.write_study(tmp_path, {"dt": 0}, [HOPPER], [0, 1], num_evaluations=3)
        runs.write_study(tmp_path, {"dt": 0}, ["my-robot"], [0, 1], num_evaluations=3, normalized=False)
        scores = collect_scores(read_study(tmp_path))
        assert scores.aggregated == (HOPPER,)
        assert aggregate(scores, "dt").mean.value < 200

    def test_a_single_data_set_of_raw_returns_has_a_mean_and_no_gap(self, tmp_path, runs):
        runs.write_study(tmp_path, {"dt": 0}, ["my-robot"], [0, 1], num_evaluations=3, normalized=False)
        found = aggregate(collect_scores(read_study(tmp_path)), "dt")
        assert found.mean.value > 200
        assert found.optimality_gap is None


class TestComparison:
    def test_pairs_are_runs_of_one_seed(self, tmp_path, runs):
        """Seeds 1 and 2 are in both arms; 0 and 3 are in one each and left out."""
        for seed in (0, 1, 2):
            runs.write_run(tmp_path, "random", HOPPER, seed, num_evaluations=4)
        for seed in (1, 2, 3):
            runs.write_run(tmp_path, "chibit", HOPPER, seed, num_evaluations=4)
        scores = collect_scores(read_study(tmp_path))
        found = compare(scores, "chibit", "random")
        ours, theirs = scores.values["chibit", HOPPER], scores.values["random", HOPPER]
        expected = np.mean([ours[1] - theirs[1], ours[2] - theirs[2]])
        assert found.by_dataset[HOPPER].value == pytest.approx(expected)
        assert found.overall.value == pytest.approx(expected)
        assert found.num_pairs == {HOPPER: 2}
        assert found.num_unpaired == 2

    def test_raw_returns_of_several_data_sets_are_compared_on_each(self, tmp_path, runs):
        arms = {"random": 0.0, "chibit": 5.0}
        runs.write_study(tmp_path, arms, ["robot", "plant"], range(5), num_evaluations=3, normalized=False)
        analysis = analyze(read_study(tmp_path))
        [found] = analysis.comparisons["last4"]
        assert found.overall is None and found.num_pairs == {"plant": 5, "robot": 5}
        assert "raw returns of several data sets have no common unit" in analysis.verdict.sentence
        assert "raw returns" in analysis.other_findings["last"]
        assert "5 seeds" in analysis.verdict.basis
        assert not any("Nothing can be paired" in caution for caution in analysis.verdict.cautions)

    def test_one_arm_on_data_sets_of_raw_returns_has_nobody_to_be_paired_with(self, tmp_path, runs):
        runs.write_study(tmp_path, {"bc": 0.0}, ["robot", "plant"], range(6), normalized=False)
        assert cautions_of(tmp_path) == (
            "Left out of all means, because scored in raw returns: plant, robot.",
        )

    def test_an_arm_without_a_mean_was_not_chosen_for_it(self, tmp_path, runs):
        arms = {"random": 0.0, "a": 1.0, "b": 40.0}
        runs.write_study(tmp_path, arms, ["robot", "plant"], range(5), num_evaluations=3, normalized=False)
        assert not any("for being the highest" in caution for caution in cautions_of(tmp_path))

    def test_what_is_tested_stands_in_the_row_of_the_only_set_that_counts(self, tmp_path, runs):
        """Beside a data set of raw returns the mean over all sets is that of the other one."""
        arms = {"random": 0.0, "chibit": 5.0}
        runs.write_study(tmp_path, arms, [HOPPER], range(5), num_evaluations=3)
        runs.write_study(tmp_path, arms, ["robot"], range(5), num_evaluations=3, normalized=False)
        table = analyze(read_study(tmp_path)).tables["differences"]["last4"]
        p, better = ([column.label for column in table.columns].index(name) for name in ("p", "P(better)"))
        told = {row.cells[1].text: (row.cells[p].text, row.cells[better].text) for row in table.rows}
        assert "—" not in told[HOPPER] and set(told["robot"]) == {"—"}

    def test_a_comparison_on_fewer_sets_says_on_which(self, tmp_path, runs):
        runs.write_study(tmp_path, {"random": 0.0, "dt": 9.0}, [HOPPER, WALKER], range(5), num_evaluations=3)
        runs.write_study(tmp_path, {"chibit": 40.0}, [WALKER], range(5), num_evaluations=3)
        analysis = analyze(read_study(tmp_path))
        assert f"higher than Random init on {WALKER} alone (" in analysis.verdict.sentence
        [panel] = overall_forest(analysis.scores["last4"], analysis.comparisons["last4"], "all")
        assert "(1 of 2 sets)" in panel.svg

    def test_a_mean_over_some_of_the_sets_is_not_over_all(self, tmp_path, runs):
        three = [HOPPER, WALKER, "halfcheetah-medium-v2"]
        runs.write_study(tmp_path, {"random": 0.0, "dt": 9.0}, three, range(5), num_evaluations=3)
        runs.write_study(tmp_path, {"chibit": 40.0}, three[:2], range(5), num_evaluations=3)
        rows = analyze(read_study(tmp_path)).tables["differences"]["last4"].rows
        told = {row.cells[0].text: row.cells[1].text for row in reversed(rows)}
        assert told == {"ChibiT − Random init": "2 of 3", "DT − Random init": "all 3"}

    def test_what_is_over_one_data_set_bears_its_name(self, tmp_path, runs):
        arms = {"random": 0.0, "chibit": 5.0}
        runs.write_study(tmp_path, arms, [HOPPER], range(4), num_evaluations=3)
        runs.write_study(tmp_path, arms, ["robot"], range(4), num_evaluations=3, normalized=False)
        analysis = analyze(read_study(tmp_path))
        scores = analysis.scores["last4"]
        [panel] = overall_forest(scores, analysis.comparisons["last4"], "all")
        with style():
            assert panel.title == profile(Canvas(), scores, "profile").title == HOPPER

    def test_a_set_with_a_single_pair_is_named_where_there_is_no_interval(self, tmp_path, runs):
        arms = {"random": 0.0, "chibit": 30.0}
        runs.write_study(tmp_path, arms, [HOPPER], range(6), num_evaluations=3)
        runs.write_study(tmp_path, arms, [WALKER], [0], num_evaluations=3)
        sentence = analyze(read_study(tmp_path)).verdict.sentence
        assert sentence.endswith(f"without an interval: there is only one pair on {WALKER}.")

    def test_a_page_of_some_arms_adjusts_for_all(self, tmp_path, runs):
        arms = {"random": 0.0} | {f"arm{place}": 0.4 * place for place in range(12)}
        runs.write_study(tmp_path, arms, [HOPPER], range(5), num_evaluations=2)
        analysis = analyze(read_study(tmp_path))
        fewer = analysis.fewer_arms(6, 3)
        assert 3 <= len(fewer.study.arms) <= 4
        kept = {one.treatment: one for one in analysis.comparisons["last4"]}
        assert all(one == kept[one.treatment] for one in fewer.comparisons["last4"])
        assert "adjusted for 12 comparisons" in fewer.tables["differences"]["last4"].caption

    def test_a_page_of_some_arms_shows_them_at_the_target_of_all(self, tmp_path, runs):
        """An arm that is not shown lacks the first target: none is shown at it, as in the verdict."""
        arms = {"random": 0.0} | {f"arm{place}": 0.4 * place for place in range(12)}
        runs.write_study(tmp_path, arms, [HOPPER], range(3), num_evaluations=2)
        runs.write_study(
            tmp_path, {"lowest": -20.0}, [HOPPER], range(3), num_evaluations=2, targets=(1800.0,)
        )
        analysis = analyze(read_study(tmp_path))
        fewer = analysis.fewer_arms(6, 3)
        assert "lowest" not in fewer.study.arms
        for one in (analysis, fewer):
            assert one.scores["last4"].targets(HOPPER) == {1800.0}
        assert fewer.aggregates["last4"] == {
            arm: analysis.aggregates["last4"][arm] for arm in fewer.study.arms
        }

    def test_a_difference_that_the_bootstrap_alone_sees_may_be_chance(self, tmp_path, runs):
        """0.1, 0.1, 0.1, 0.1 and 5: the bootstrap leaves zero out, Student's t has p = 0.33."""
        for seed, gap in enumerate((0.1, 0.1, 0.1, 0.1, 5.0)):
            for arm, score in (("random", 50.0), ("chibit", 50.0 + gap)):
                run = runs.write_run(tmp_path, arm, HOPPER, seed, num_evaluations=1)
                rewrite(run, {3600.0: [score]})
        verdict = analyze(read_study(tmp_path)).verdict
        assert verdict.tone == "open"
        assert verdict.sentence.endswith(", but it may be chance: p = 0.33.")

    def test_no_seed_in_common_is_no_comparison(self, tmp_path, runs):
        runs.write_run(tmp_path, "random", HOPPER, 0, num_evaluations=3)
        runs.write_run(tmp_path, "chibit", HOPPER, 1, num_evaluations=3)
        analysis = analyze(read_study(tmp_path))
        assert analysis.comparisons["last4"][0].overall is None
        assert "share no seed" in analysis.verdict.sentence
        assert "0 " not in analysis.verdict.basis + "".join(analysis.verdict.cautions)

    def test_adding_an_arm_does_not_move_the_intervals_of_others(self, tmp_path, runs, study):
        before = compare(collect_scores(study), "chibit", "random").overall
        runs.write_study(study.folder, {"dt": 1.0}, [HOPPER, WALKER], [0, 1, 2], num_evaluations=6)
        after = compare(collect_scores(read_study(study.folder)), "chibit", "random").overall
        assert before == after


class TestRegistered:
    """Comparisons that a study's ``study.json`` names take the place of every arm against the baseline."""

    PAIRS = (("chibit", "random"), ("chibit", "dt"))

    @pytest.fixture
    def folder(self, tmp_path, runs):
        folder = tmp_path / "s"
        register(folder, Registration(comparisons=self.PAIRS))
        arms = {"random": 0.0, "dt": 0.0, "chibit": 30.0, "bc": -10.0}
        return runs.write_study(folder, arms, [HOPPER, WALKER], range(6), num_evaluations=4)

    def test_they_are_what_is_compared(self, folder):
        analysis = analyze(read_study(folder))
        found = [(one.treatment, one.baseline) for one in analysis.comparisons["last4"]]
        assert found == list(self.PAIRS)
        assert analysis.verdict.sentence.startswith("ChibiT scores ")
        assert "than Random init" in analysis.verdict.sentence
        assert "adjusted p < 0.001" in analysis.verdict.sentence
        assert any(
            "The first of 2 comparisons registered" in caution for caution in analysis.verdict.cautions
        )
        [other] = analysis.verdict.also
        assert other.startswith("ChibiT scores ")
        assert "higher than DT" in other
        assert "Differences: mean" in analysis.tables["differences"]["last4"].title

    def test_other_rules_have_the_kind_of_interval_that_the_verdict_has(self, folder):
        """Student's; the verdict says so of all its intervals."""
        analysis = analyze(read_study(folder))
        student = analysis.comparisons["last"][0].overall.student
        low, high = (format_score(end, signed=True) for end in (student.low, student.high))
        assert analysis.other_findings["last"].endswith(f"({low} to {high}).")

    def test_what_is_left_out_is_said_of_each_of_them(self, folder):
        """The first has all its pairs, the second five of six on one data set."""
        next(folder.glob(f"dt-{HOPPER}-s2-*")).joinpath("result.json").unlink()
        verdict = analyze(read_study(folder)).verdict
        assert "Runs left out because the other arm lacks the seed: ChibiT − DT 1." in verdict.cautions
        assert verdict.basis.endswith("2 data sets, at least 5 seeds.")

    def test_a_baseline_that_is_asked_for_takes_their_place(self, folder):
        asked = analyze(read_study(folder), baseline="bc")
        assert [one.baseline for one in asked.comparisons["last4"]] == ["bc"] * 3
        first = "Comparisons registered before the first run."
        assert pairing(analyze(read_study(folder))).startswith(first)
        assert first not in pairing(asked), "what is shown is not what was registered"

    def test_registered_pairs_that_are_not_shown_have_runs_all_the_same(self, folder):
        (folder / "study.json").unlink()
        register(folder, Registration(comparisons=(("chibit", "random"), ("chibit", "dt"), ("dt", "random"))))
        for path in folder.glob("bc-*"):
            shutil.rmtree(path)
        cautions = analyze(read_study(folder), baseline="random").verdict.cautions
        assert any("of 3 comparisons registered before the first run; p-values" in one for one in cautions)

    def test_pairing_is_by_seed_within_each_data_set(self, folder):
        scores = collect_scores(read_study(folder))
        by_hand = []
        for dataset in (HOPPER, WALKER):
            ours, theirs = scores.values["chibit", dataset], scores.values["dt", dataset]
            by_hand.append(np.mean([ours[seed] - theirs[seed] for seed in range(6)]))
        found = compare(scores, "chibit", "dt").overall
        assert found.value == pytest.approx(np.mean(by_hand))
        assert found.student.low < found.value < found.student.high

    def test_holm_counts_what_has_no_runs_yet(self, folder):
        scores = collect_scores(read_study(folder))
        [one] = compare_all(scores, [("chibit", "dt")])
        assert one.adjusted_p == pytest.approx(2 * one.overall.student.p_value)
        for path in folder.glob("random-*"):
            shutil.rmtree(path)
        analysis = analyze(read_study(folder))
        assert [one.baseline for one in analysis.comparisons["last4"]] == ["dt"]
        assert any("1 of them has no runs" in caution for caution in analysis.verdict.cautions)

    def test_what_may_be_chance_is_not_called_a_difference(self, tmp_path, runs):
        """Seven comparisons: an interval that just leaves zero out settles nothing."""
        register(tmp_path, Registration(comparisons=tuple(("chibit", f"arm{i}") for i in range(7))))
        for seed, gap in enumerate([1.0, 7.0, 2.0, 8.0, 3.0, 4.0]):
            for arm, score in (("arm0", 50.0), ("chibit", 50.0 + gap)):
                rewrite(runs.write_run(tmp_path, arm, HOPPER, seed, num_evaluations=1), {3600.0: [score]})
        analysis = analyze(read_study(tmp_path))
        [one] = analysis.comparisons["last4"]
        assert one.overall.student.low > 0
        assert one.adjusted_p > 0.05
        assert analysis.verdict.tone == "open"
        assert "may be chance" in analysis.verdict.sentence

    def test_seeds_of_a_failed_arm_are_dropped_and_named(self, folder):
        for path in [*folder.glob("chibit-hopper*-s2-*"), *folder.glob("chibit-hopper*-s4-*")]:
            (path / "result.json").unlink()
        analysis = analyze(read_study(folder))
        first = analysis.comparisons["last4"][0]
        assert first.num_pairs == {HOPPER: 4, WALKER: 6}
        assert first.dropped == {HOPPER: (2, 4)}
        [note] = {
            row.cells[6].note
            for row in analysis.tables["differences"]["last4"].rows
            if row.cells[1].text == HOPPER
        }
        assert note == "2 dropped: seeds 2, 4"

    def test_intervals_are_wider_after_looking(self, folder):
        before = analyze(read_study(folder)).comparisons["last4"][0].overall
        register(folder, Registration(until_half_width=1.5))
        analysis = analyze(read_study(folder))
        after = analysis.comparisons["last4"][0].overall
        assert after.value == before.value
        assert after.low < before.low < before.high < after.high
        assert after.student.high - after.student.low > 1.2 * (before.student.high - before.student.low)
        assert after.student.p_value == pytest.approx(5 * before.student.p_value)
        assert any("within ±1.5" in caution for caution in analysis.verdict.cautions)
        assert "corrected for adding seeds" in analysis.tables["differences"]["last4"].caption

    def test_bold_scores_too_are_corrected_for_looking(self, tmp_path, runs):
        """Pairs of 1, 2, 4 and 5: Student's interval begins at 0.09 at 95%, and below zero at 99%."""
        for seed, gap in enumerate([1.0, 2.0, 4.0, 5.0]):
            for arm, score in (("random", 50.0), ("chibit", 50.0 + gap)):
                rewrite(runs.write_run(tmp_path, arm, HOPPER, seed, num_evaluations=1), {3600.0: [score]})

        def is_bold():
            return analyze(read_study(tmp_path)).tables["scores"]["last4"].rows[0].cells[-1].strong

        assert is_bold()
        register(tmp_path, Registration(until_half_width=9.0))
        assert not is_bold()

    def test_a_difference_too_small_to_matter_is_called_so(self, tmp_path, runs):
        register(tmp_path, Registration(comparisons=(("chibit", "random"),), negligible=1.5))
        for seed, gap in enumerate([0.4, 0.6, 0.5, 0.3, 0.7, 0.5]):
            for arm, score in (("random", 50.0), ("chibit", 50.0 + gap)):
                rewrite(runs.write_run(tmp_path, arm, HOPPER, seed, num_evaluations=1), {3600.0: [score]})
        found = analyze(read_study(tmp_path)).verdict
        # mean 0.5, standard error sqrt(0.02 / 6), times 2.571: 0.35 to 0.65
        assert found.sentence == (
            "No difference that matters between ChibiT and Random init: +0.5 points, "
            "95% interval +0.4 to +0.6, inside ±1.5."
        )
        assert found.tone == "open"

    def test_what_was_registered_first_stays(self, folder):
        held = register(folder, Registration(comparisons=(("dt", "bc"),), negligible=9.0))
        assert held == Registration(comparisons=self.PAIRS)
        assert read_study(folder).registration == held

    def test_levels_without_comparisons_stay_too(self, tmp_path):
        first = Registration(score_levels={HOPPER: 30.0}, negligible=1.5)
        register(tmp_path, first)
        later = Registration(score_levels={HOPPER: 99.0}, negligible=9.0, until_half_width=2.0)
        assert register(tmp_path, later) == replace(first, until_half_width=2.0)
        assert register(tmp_path, Registration()) == replace(first, until_half_width=2.0)

    def test_a_verdict_that_is_not_the_first_one_does_not_say_so(self, folder):
        """Of a study in the middle of its runs, and under a baseline that was asked for."""
        (caution,) = [one for one in cautions_of(folder, baseline="random") if "registered" in one]
        assert caution == (
            "2 comparisons registered before the first run: arms are compared with Random init as was asked."
        )
        for path in folder.glob("random-*"):
            shutil.rmtree(path)
        assert any(one.startswith("One of 2 comparisons registered") for one in cautions_of(folder))

    def test_arms_of_several_settings_are_named(self, folder, runs):
        """Then no arm has the registered name any more, and others are compared with one of the variants."""
        runs.write_run(folder, "random", HOPPER, 0, num_evaluations=4, settings={"learning_rate": 1.0})
        told = " ".join(cautions_of(folder))
        assert "stand in no registered comparison: Random init." in told
        for path in folder.glob("dt-*"):
            shutil.rmtree(path)
        told = " ".join(cautions_of(folder))
        assert "2 comparisons registered before the first run: none of them has runs of both arms." in told

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("{", "not valid JSON"),
            ("[]", "expected"),
            ('{"schema": 2}', "schema 2"),
            ('{"schema": 1, "arms": 3}', "unknown field 'arms'"),
            ('{"schema": 1, "comparisons": [["a"]]}', "expected 2 values"),
            ('{"schema": 1, "comparisons": [["a", "a"]]}', "compared with itself"),
            ('{"schema": 1, "until_half_width": -1}', "expected a positive number"),
            ('{"schema": 1, "until_half_width": 1e400}', "not valid JSON"),
            ('{"schema": 1, "until_half_width": 1' + "0" * 400 + "}", "study.json"),
        ],
    )
    def test_a_damaged_one_is_listed_and_counts_nowhere(self, tmp_path, runs, content, reason):
        runs.write_study(tmp_path, {"random": 0.0, "chibit": 0.0}, [HOPPER], [0], num_evaluations=1)
        (tmp_path / "study.json").write_text(content)
        study = read_study(tmp_path)
        assert study.registration == Registration()
        [entry] = [entry for entry in study.excluded if entry.name == "study.json"]
        assert reason in entry.reason
        assert analyze(study).comparisons["last4"]
        with pytest.raises(InputError, match="restore the file or remove it"):
            register(tmp_path, Registration(comparisons=self.PAIRS))

    def test_a_pipe_a_device_and_a_link_to_elsewhere_are_not_read(self, tmp_path, runs):
        study = runs.write_study(tmp_path / "s", {"random": 0.0}, [HOPPER], [0], num_evaluations=1)
        (tmp_path / "elsewhere.json").write_text('{"schema": 1, "until_half_width": 2.0}')
        os.mkfifo(tmp_path / "pipe")
        for target in (
            tmp_path / "elsewhere.json",
            tmp_path / "pipe",
            Path("/dev/zero"),
            tmp_path / "absent",
        ):
            (study / "study.json").unlink(missing_ok=True)
            (study / "study.json").symlink_to(target)
            found = read_study(study)
            assert found.registration == Registration()
            assert [entry.name for entry in found.excluded] == ["study.json"]


class TestSeedsAndSets:
    """What a seed does alike on all data sets, by which these are not independent."""

    GAPS = ((1.0, 2.0, 4.0, 5.0, 6.0), (-1.0, 0.5, 3.0, 4.0, 8.0))
    """Of seeds 0 to 4 on each of two data sets: their means rise as one."""

    def study(self, tmp_path, runs, gaps=GAPS, comparisons=(("chibit", "random"),), **fixed):
        register(tmp_path, Registration(comparisons=comparisons, **fixed))
        for dataset, by_seed in zip((HOPPER, WALKER), gaps, strict=False):
            for seed, gap in enumerate(by_seed):
                for arm, score in (("random", 50.0), ("chibit", 50.0 + gap)):
                    run = runs.write_run(tmp_path, arm, dataset, seed, num_evaluations=1)
                    rewrite(run, {3600.0 if dataset == HOPPER else 5000.0: [score]})
        return analyze(read_study(tmp_path))

    def test_one_value_a_seed_by_hand(self, tmp_path, runs):
        """Means 0, 1.25, 3.5, 4.5, 7: mean 3.25, variance 7.5625, t of 4 degrees 2.7764."""
        [one] = self.study(tmp_path, runs).comparisons["last4"]
        half = 2.776445 * np.sqrt(7.5625 / 5)
        assert (one.by_seed.low, one.by_seed.high) == pytest.approx((3.25 - half, 3.25 + half), abs=1e-5)
        assert one.by_seed.degrees_of_freedom == pytest.approx(4)
        assert one.adjusted_p_by_seed == one.by_seed.p_value > 0.05 > one.adjusted_p

    def test_the_verdict_says_what_a_finding_rests_on(self, tmp_path, runs):
        verdict = self.study(tmp_path, runs).verdict
        assert verdict.tone == "higher"
        assert verdict.sentence.endswith(
            ". This takes the data sets as independent though they share their seeds; from each seed's mean "
            "over them the interval is −0.2 to +6.7, p = 0.057."
        )

    def test_it_says_nothing_where_the_finding_holds_or_there_is_one_set(self, tmp_path, runs):
        sure = self.study(tmp_path / "a", runs, ((3.0, 4.0, 5.0, 6.0, 5.0), (4.0, 3.0, 5.0, 6.0, 7.0)))
        alone = self.study(tmp_path / "b", runs, self.GAPS[:1])
        assert sure.verdict.sentence.endswith(", p < 0.001."), "one comparison is adjusted for nothing"
        assert "independent" not in sure.verdict.sentence + alone.verdict.sentence
        assert alone.comparisons["last4"][0].by_seed is None

    def test_no_difference_that_matters_rests_on_it_too(self, tmp_path, runs):
        gaps = ((-1.0, -0.5, 0.0, 0.5, 1.0),) * 2
        sentence = self.study(tmp_path, runs, gaps, negligible=0.8).verdict.sentence
        assert "inside ±0.8. This takes the data sets as independent" in sentence
        assert sentence.endswith("interval is −1.0 to +1.0.")

    def test_seeds_that_a_set_lacks_are_in_no_mean(self, tmp_path, runs):
        self.study(tmp_path, runs)
        shutil.rmtree(next(tmp_path.glob("chibit-walker*-s4-*")))
        [one] = analyze(read_study(tmp_path)).comparisons["last4"]
        assert one.by_seed.degrees_of_freedom == pytest.approx(3)
        assert (one.by_seed.low + one.by_seed.high) / 2 == pytest.approx((0 + 1.25 + 3.5 + 4.5) / 4)

    def test_arms_of_other_lengths_are_told(self, tmp_path, runs):
        self.study(tmp_path, runs)
        assert not any("gradient steps" in caution for caution in cautions_of(tmp_path))
        for run in tmp_path.glob("chibit-*"):
            description = json.loads((run / "config.json").read_text())
            description["config"]["num_steps"] = 2_500
            (run / "config.json").write_text(json.dumps(description))
        assert "ChibiT took 2,500 gradient steps, Random init took 5,000." in cautions_of(tmp_path)

    def test_three_pairs_of_one_sign_are_not_bold(self, tmp_path, runs):
        """Their bootstrap interval is their range: one time in four it leaves zero out by chance."""
        rows = self.study(tmp_path, runs, ((1.0, 5.0, 9.0),)).tables["differences"]["last4"].rows
        [row] = [row for row in rows if row.cells[1].text == HOPPER]
        assert (row.cells[3].text, row.cells[2].strong) == ("+1.0 to +9.0", False)
        assert row.cells[4].text == "−4.9 to +14.9"

    def test_few_pairs_never_show_that_nothing_matters(self, tmp_path, runs):
        """Under a baseline that was asked for the interval is the bootstrap's, too narrow of few pairs."""
        self.study(tmp_path, runs, ((0.2, 0.5, -0.3),), (("chibit", "dt"),), negligible=1.5)
        sentence = analyze(read_study(tmp_path), baseline="random").verdict.sentence
        assert sentence.startswith("No difference can be told between ChibiT and Random init: +0.1 points")

    @pytest.mark.parametrize("comparisons", [(("chibit", "random"),), ()])
    def test_pairs_that_differ_alike_have_no_interval(self, tmp_path, runs, comparisons):
        analysis = self.study(tmp_path, runs, ((2.0,) * 6, (3.0,) * 6), comparisons)
        assert analysis.verdict.sentence == (
            "ChibiT scores 2.5 points higher than Random init; all pairs of a data set differ alike, so that "
            "no interval can be given."
        )
        assert analysis.verdict.tone == "open"
        assert not any(row.cells[2].strong for row in analysis.tables["differences"]["last4"].rows)
        assert not any(cell.strong for cell in analysis.tables["scores"]["last4"].rows[0].cells)


class TestBaseline:
    def test_the_matched_control_comes_first(self):
        assert choose_baseline(["dt", "random", "chibit"]) == "random"
        assert choose_baseline(["chibit", "dt"]) == "dt"
        assert choose_baseline(["one", "two"]) == "one"
        assert choose_baseline(["chibit", "random (lr=1)", "random (lr=2)"]) == "random (lr=1)"
        assert choose_baseline([]) is None

    def test_an_unknown_one_is_refused_with_the_nearest(self):
        with pytest.raises(InputError, match="did you mean 'chibit'"):
            choose_baseline(["chibit", "dt"], "chibti")
        assert choose_baseline(["chibit", "dt"], "chibit") == "chibit"


class TestVerdict:
    def verdict(self, tmp_path, runs, seeds, gains, **settings):
        settings = {"num_evaluations": 4, **settings}
        runs.write_study(tmp_path, gains, [HOPPER], seeds, **settings)
        return analyze(read_study(tmp_path)).verdict

    def test_enough_seeds_and_a_clear_difference(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, range(8), {"random": 0.0, "chibit": 30.0})
        assert found.tone == "higher"
        assert found.sentence.startswith("ChibiT scores ")
        assert "points higher than Random init (95% interval +" in found.sentence
        assert "8 seeds" in found.basis
        assert "mean of the last 4 evaluations" in found.basis
        assert found.cautions == ()

    def test_lower_is_said_as_plainly(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, range(8), {"random": 30.0, "chibit": 0.0})
        assert found.tone == "lower"
        assert "points lower than Random init (95% interval −" in found.sentence

    def test_an_interval_across_zero_tells_nothing(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, range(6), {"random": 0.0, "chibit": 0.0})
        assert found.tone == "open"
        assert found.sentence.startswith("No difference can be told between ChibiT and Random init")

    def test_few_seeds_settle_nothing(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, range(3), {"random": 0.0, "chibit": 30.0})
        assert found.tone == "open"
        assert "but 3 seeds are too few to settle it" in found.sentence
        assert any("3 seeds" in caution for caution in found.cautions)

    def test_one_seed_has_no_interval_and_says_why(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, [0], {"random": 0.0, "chibit": 30.0})
        assert found.tone == "open"
        assert found.sentence.startswith("One seed cannot settle it")
        assert "interval +" not in found.sentence
        assert any("One seed says nothing" in caution for caution in found.cautions)

    def test_of_one_seed_with_equal_scores_no_arm_is_called_lower(self, tmp_path, runs):
        self.verdict(tmp_path, runs, [0], {"random": 0.0, "chibit": 0.0})
        one, other = (next(tmp_path.glob(f"{arm}-*")) for arm in ("random", "chibit"))
        for name in ("evaluations.jsonl", "result.json"):
            shutil.copy(one / name, other)
        found = analyze(read_study(tmp_path)).verdict
        assert "ChibiT scores what Random init does, and no interval" in found.sentence

    def test_one_arm(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, range(5), {"chibit": 0.0})
        assert found.sentence.startswith("ChibiT reaches a score of ")
        assert HOPPER in found.sentence
        assert found.sentence.endswith("The training data's own mean is 45.0.")

    def test_raw_returns_are_called_so(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, [0, 1], {"chibit": 0.0}, normalized=False)
        assert "a return of " in found.sentence

    def test_methods_without_targets_are_shown_at_none(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, range(5), {"random": 0.0, "bc": 1.0}, return_conditioned=False)
        assert found.basis.startswith("By the mean of the last 4 evaluations; paired by seed")

    def test_no_finished_run(self, tmp_path, runs):
        runs.write_run(tmp_path, "dt", HOPPER, 0, finished=False)
        found = analyze(read_study(tmp_path)).verdict
        assert found.tone == "empty"
        assert "No run has finished" in found.sentence

    def test_picking_the_best_of_many_arms_is_owned_up_to(self, tmp_path, runs):
        found = self.verdict(tmp_path, runs, range(5), {"random": 0.0, "a": 1.0, "b": 40.0, "c": 2.0})
        assert found.sentence.startswith("b scores")
        assert any("flattered by chance" in caution for caution in found.cautions)

    def test_failed_episodes_are_told(self, tmp_path, runs):
        run = runs.write_run(tmp_path, "dt", HOPPER, 0, num_evaluations=3)
        path = run / "evaluations.jsonl"
        path.write_text(path.read_text().replace('"failed_episodes": []', '"failed_episodes": [1]', 1))
        found = analyze(read_study(tmp_path)).verdict
        assert any("In 1 episode the environment failed" in caution for caution in found.cautions)

    def test_the_other_rules_speak_of_the_same_arms(self, study):
        analysis = analyze(study)
        assert set(analysis.other_findings) == {"last", "best"}
        overall = analysis.comparisons["last"][0].overall
        assert analysis.other_findings["last"].startswith(format_score(overall.value, signed=True))

    def test_the_focus_is_the_pre_trained_arm(self, tmp_path, runs):
        runs.write_study(tmp_path, {"random": 0, "gpt2": 0, "other": 50}, [HOPPER], [0, 1], num_evaluations=3)
        assert choose_focus(collect_scores(read_study(tmp_path)), "random") == "gpt2"


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        (61.24, {}, "61.2"),
        (-3.26, {}, "−3.3"),
        (3.26, {"signed": True}, "+3.3"),
        (-0.02, {"signed": True}, "0.0"),
        (0.02, {"signed": True}, "0.0"),
        (1234.5, {"normalized": False}, "1,234"),
        (-1234.6, {"normalized": False, "signed": True}, "−1,235"),
    ],
)
def test_format_score(value, options, expected):
    assert format_score(value, **options) == expected


def test_format_interval():
    assert format_interval(Estimate(value=1.0, low=-0.5, high=2.0), signed=True) == "−0.5 to +2.0"
    assert format_interval(Estimate(value=1.0)) == ""


def rewrite(run, curves):
    """Replace a run's evaluations by given scores at each target, and result.json with them."""
    lines, entries = [], []
    for target, values in curves.items():
        for i, score in enumerate(values):
            raw = score * 32.54572305 - 20.272305
            record = {"step": 5000 * (i + 1), "seconds": 1.0 * i, "target_return": target}
            lines.append(
                {**record, "episode_returns": [raw], "episode_lengths": [9], "normalized_score": score}
            )
        rules = {"last": values[-1], "last4": values[-1], "best": max(values)}
        timed = {"best_step": 5000, "mean_return_last": raw, "steps_to_converge": 5000}
        entries.append({"target_return": target, **rules, **timed, "seconds_to_converge": 0.0})
    (run / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "scores": entries}))
