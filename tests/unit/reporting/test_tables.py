"""Tables and their three written forms; what stands in the cells of a real study."""

import json
import re

import numpy as np
import pytest

from chibit.core.formatting import format_duration
from chibit.reporting.analysis import analyze
from chibit.reporting.read.study import read_study
from chibit.reporting.tables.scores import score_cell
from chibit.reporting.tables.table import EMPTY, Cell, Column, Row, Table, csv_safe, to_latex, to_markdown

HOPPER = "hopper-medium-v2"


@pytest.fixture
def table():
    return Table(
        key="t",
        title="A & B",
        caption="50% of _it_",
        columns=(Column(label="name", numeric=False), Column(label="x|y")),
        rows=(
            Row(cells=(Cell(text="a_b"), Cell(text="1.0 ± 0.2", note="3 seeds", strong=True))),
            Row(cells=(Cell(text="mean"), Cell(text="−1.0")), summary=True),
        ),
    )


def test_markdown(table):
    lines = to_markdown([table]).splitlines()
    assert lines[0] == "## A &amp; B"
    assert lines[4:] == [
        "| name | x\\|y |",
        "|---|---:|",
        "| a\\_b | **1.0 ± 0.2 (3 seeds)** |",
        "| mean | −1.0 |",
    ]


def test_latex(table):
    text = to_latex([table])
    assert r"\caption{A \& B. 50\% of \_it\_}" in text
    assert r"a\_b & \textbf{1.0 $\pm$ 0.2 (3 seeds)} \\" in text
    assert "\\midrule\nmean & $-$1.0 \\\\" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"dt": (300, 300), "bc": (300, 300)}, ""),
        ({"dt": (20, 20), "bc": (300, 300)}, " Gradient steps differ: DT 20, BC 300."),
        (
            {"dt": (20, 1_300), "bc": (300, 300)},
            " Gradient steps differ: DT (num_steps=1300) 1,300, DT (num_steps=20) 20, BC 300.",
        ),
    ],
)
def test_the_table_of_scores_says_where_runs_took_other_numbers_of_steps(tmp_path, runs, steps, said):
    for arm, by_seed in steps.items():
        for seed, number in enumerate(by_seed):
            runs.write_run(tmp_path, arm, HOPPER, seed, settings={"num_steps": number})
    caption = analyze(read_study(tmp_path)).tables["scores"]["last4"].caption
    assert caption.partition(" Gradient")[2] == said.partition(" Gradient")[2]


def test_latex_breaks_sentences_into_lines(table):
    long = Table(
        key="t",
        title="t",
        caption="",
        columns=table.columns,
        rows=(Row(cells=(Cell(text="w " * 40), Cell(text="1"))),),
    )
    assert r"\begin{tabular}{p{.22\linewidth}r}" in to_latex([long])
    assert r"\begin{tabular}{lr}" in to_latex([table])


@pytest.mark.parametrize("value", ["=1+1", "+1+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", "\t=1", "-x"])
def test_no_cell_is_a_formula(value):
    assert csv_safe(value) == "'" + value


@pytest.mark.parametrize("value", ["+1.2", "-3.4", "+1.2 to +3.4", "a=b", "1-2", ""])
def test_harmless_cells_stay_as_they_are(value):
    assert csv_safe(value) == value


def test_hostile_text_is_text_in_every_form(table):
    hostile = "<script>`x`[a](b)|\\input{/etc/passwd}$x^2$%"
    bad = Table(
        key="t",
        title=hostile,
        caption=hostile,
        columns=table.columns[:1],
        rows=(Row(cells=(Cell(text=hostile),)),),
    )
    assert "<script>" not in to_markdown([bad])
    assert r"\[a\](b)\|" in to_markdown([bad])
    latex = to_latex([bad])
    assert r"\input" not in latex
    assert r"\textbackslash{}input\{/etc/passwd\}\$x\textasciicircum{}2\$\%" in latex


def test_score_cells():
    assert score_cell(np.array([]), normalized=True, num_seeds=3) is EMPTY
    assert score_cell(np.array([61.0]), normalized=True, num_seeds=1).text == "61.0"
    cell = score_cell(np.array([60.0, 64.0]), normalized=True, num_seeds=3)
    assert (cell.text, cell.note, cell.sort) == ("62.0 ± 2.8", "2 of 3 seeds", 62.0)
    assert score_cell(np.array([1500.4, 1500.4]), normalized=False, num_seeds=2).text == "1,500 ± 0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.41, "8.4 s"), (60, "1 min 00 s"), (750.4, "12 min 30 s"), (3900, "1 h 05 min"), (59.96, "60.0 s")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.fixture
def analysis(tmp_path, runs):
    study = tmp_path / "s"
    runs.write_study(
        study, {"random": 0, "chibit": 20}, [HOPPER, "chibit/walker2d/medium-v0"], [0, 1], num_evaluations=5
    )
    runs.write_run(study, "chibit", HOPPER, 2, num_evaluations=5)
    return analyze(read_study(study))


def row(table, *start):
    return next(row for row in table.rows if [cell.text for cell in row.cells[: len(start)]] == list(start))


def test_the_score_table_begins_with_the_highest_mean_and_says_what_is_missing(analysis):
    table = analysis.tables["scores"]["last4"]
    assert [column.label for column in table.columns] == [
        *("Arm", "Mean", "IQM", "Optimality gap", "chibit/walker2d/medium-v0", HOPPER)
    ]
    assert [row.cells[0].text for row in table.rows] == ["ChibiT", "Random init", "Data's own mean"]
    ours, random, data = (row.cells for row in table.rows)
    assert (random[5].note, ours[5].note) == ("2 of 3 seeds", "")
    assert ours[5].sort == pytest.approx(analysis.scores["last4"].cell("chibit", HOPPER).mean())
    assert re.fullmatch(r"[\d.]+ to [\d.]+", ours[1].note)
    assert table.rows[2].summary and data[1] is EMPTY and data[5].text == "45.0"


@pytest.mark.parametrize(("gain", "seeds", "is_bold"), [(40, 4, True), (0.5, 4, False), (40, 1, False)])
def test_only_what_its_interval_sets_apart_is_bold(tmp_path, runs, gain, seeds, is_bold):
    runs.write_study(tmp_path, {"random": 0, "chibit": gain}, [HOPPER], range(seeds), num_evaluations=4)
    table = analyze(read_study(tmp_path)).tables["scores"]["last4"]
    assert [row.cells[-1].strong for row in table.rows] == [is_bold, False, False]


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_few_pairs_give_no_probability(tmp_path, runs, seeds):
    runs.write_study(tmp_path, {"random": 0, "chibit": 40}, [HOPPER], range(seeds), num_evaluations=4)
    table = analyze(read_study(tmp_path)).tables["differences"]["last4"]
    place = [column.label for column in table.columns].index("P(better)")
    assert table.rows[0].cells[place] is EMPTY
    runs.write_study(tmp_path, {"random": 0, "chibit": 40}, [HOPPER], range(seeds, 5), num_evaluations=4)
    table = analyze(read_study(tmp_path)).tables["differences"]["last4"]
    assert table.rows[0].cells[place].text == "1.00"


def test_small_returns_are_not_rounded_away(tmp_path, runs):
    run = runs.write_run(
        tmp_path, "bc", "my-robot", 0, num_evaluations=1, normalized=False, return_conditioned=False
    )
    records = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    for record in records:
        record["episode_returns"] = [0.027] * 10
    runs.write_lines(run / "evaluations.jsonl", records)
    result = json.loads((run / "result.json").read_text())
    result["scores"] = [result["scores"][0] | dict.fromkeys(("last", "last4", "best"), 0.027)]
    runs.write_json(run / "result.json", result)
    tables = analyze(read_study(tmp_path)).tables
    assert tables["scores"]["last"].rows[0].cells[-1].text == "0.0270"
    assert row(tables["runs"], "my-robot").cells[3].text == "0.0270"


def test_score_references_have_significant_digits(analysis):
    assert row(analysis.tables["data"], HOPPER).cells[-1].text == "−20.3 and 3,234"


def test_the_gaps_are_stated(analysis):
    table = analysis.tables["gaps"][0]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["Random init", "all data sets", "2", "no run"],
        ["ChibiT", "chibit/walker2d/medium-v0", "2", "no run"],
    ]


def test_published_numbers_stand_beside_ours_with_their_rule_and_a_warning(analysis):
    table = analysis.tables["published"]
    cells = row(table, HOPPER, "ChibiT").cells
    paper = cells[[column.label for column in table.columns].index("Paper")]
    assert (paper.text, paper.note) == ("82.1 ± 4.6", "Table 2; best; 3 seeds; theirs with L_cos and L_LM")
    wang = cells[[column.label for column in table.columns].index("Wang et al.")]
    assert (wang.text, wang.note) == (
        "58.4 ± 3.4",
        "last 4; last 57.8; best 70.4; 20 seeds; theirs with L_cos in the released form",
    )
    assert "own collection and not D4RL's" in table.caption
    assert not [r for r in table.rows if r.cells[0].text.startswith("average")], (
        "two data sets are no average of nine"
    )


def test_the_average_of_nine_needs_all_nine(tmp_path, runs):
    runs.write_study(tmp_path, {"chibit": 0}, runs.NINE, [0], num_evaluations=2)
    table = analyze(read_study(tmp_path)).tables["published"]
    cells = row(table, "average of 9", "ChibiT").cells
    assert cells[5].text == "78.3"
    expected = np.mean([float(r.cells[2].sort) for r in table.rows if not r.summary])
    assert cells[2].sort == pytest.approx(expected)


def test_the_average_of_the_medium_sets(tmp_path, runs):
    runs.write_study(tmp_path, {"dt_context60": 0}, runs.NINE[::3], [0], num_evaluations=2)
    table = analyze(read_study(tmp_path)).tables["published"]
    cells = row(table, "average of 3", "DT, context 60").cells
    assert (cells[5].text, cells[5].note) == ("61.2", "Table 4; rule unstated")


def test_convergence_is_the_first_evaluation_within_two_points(analysis):
    curves = analysis.scores["last4"].curves["chibit", HOPPER].values()
    steps = [
        next(s for s, v in zip(c.steps, c.scores, strict=True) if v >= c.scores.max() - 2) for c in curves
    ]
    cell = row(analysis.tables["convergence"], HOPPER).cells[2]
    assert cell.sort == pytest.approx(np.mean(steps))


def test_every_target_has_its_row(analysis):
    table = analysis.tables["targets"]["last"]
    assert [row.cells[1].text for row in table.rows if row.cells[0].text == HOPPER] == ["3,600", "1,800"]


def test_raw_returns_have_no_convergence_and_no_published_numbers(tmp_path, runs):
    runs.write_study(tmp_path, {"dt": 0}, ["my-robot"], [0], num_evaluations=3, normalized=False)
    tables = analyze(read_study(tmp_path)).tables
    assert tables["convergence"] is None
    assert tables["published"] is None
    assert tables["scores"]["last"].caption.startswith("Raw returns.")


def test_settings_that_differ_between_arms_are_told_from_shared_ones(analysis):
    assert [row.cells[0].text for row in analysis.tables["settings"].rows] == ["agent.init"]
    shared = {row.cells[0].text: row.cells[1].text for row in analysis.tables["shared"].rows}
    assert shared["num_steps"] == "25000"
    assert shared["target_returns"] == "[5000.0, 2500.0] | [3600.0, 1800.0]"
    assert "seed" not in shared


def test_provenance_shows_the_command_without_the_program_s_folder(tmp_path, runs):
    import json

    run = runs.write_run(tmp_path, "dt", HOPPER, 0, num_evaluations=2)
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["argv"] = ["/home/someone/.venv/bin/chibit", "train", "--data", "hopper-medium"]
    (run / "provenance.json").write_text(json.dumps(provenance))
    rows = {r.cells[0].text: r.cells[1].text for r in analyze(read_study(tmp_path)).tables["provenance"].rows}
    assert rows["command"] == "chibit train --data hopper-medium"
    assert rows["versions.torch"] == "2.13.0"


def test_errors_of_choices_are_called_what_agents_log(tmp_path, runs):
    """`held_out/action_error` of choices is a cross-entropy, and only `action_mismatch` a share."""
    runs.unplay(runs.write_run(tmp_path, "dt", HOPPER, 0, num_evaluations=2))
    caption = analyze(read_study(tmp_path)).tables["learning"].caption
    assert "of choices the cross-entropy in nats, or the share of other ones" in caption
