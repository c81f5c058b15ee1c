"""Published evidence: computed from its file, in every report that has pre-trained arms, and in the docs."""

import csv
import math

import pytest

from chibit.reporting import build_report, render_console_table
from chibit.reporting.published.evidence import NINE, TWELVE, known_difference, known_sentence
from chibit.reporting.published.scores import NUMBERS
from chibit.reporting.tables.known import differences_known, studies_known

HOPPER = "hopper-medium-v2"


@pytest.mark.parametrize(
    ("arm", "name", "rule", "value"),
    [
        ("chibit", "ChibiT_wiki_Lcos", "last4", -0.5),
        ("iid", "IID_20k", "last4", 1.4),
        ("markov", "Markov100_20k", "last4", 2.9),
        ("dt", "DT", "last4", -3.0),
        ("markov", "Markov100_20k", "best", 1.1),
    ],
)
def test_differences_by_hand(arm, name, rule, value):
    with open(NUMBERS / "wang2024_20_seeds.csv", newline="") as file:
        rows = {(row["arm"], f"{row['env']}-{row['dataset']}"): row for row in csv.DictReader(file)}
    differences, variance = [], 0.0
    for task in NINE:
        pair = [rows[name, task], rows["wrapper_1update_noLcos", task]]
        differences.append(float(pair[0][f"{rule}_mean"]) - float(pair[1][f"{rule}_mean"]))
        variance += sum((float(row[f"{rule}_sd"]) / math.sqrt(20)) ** 2 for row in pair)
    found = known_difference(arm, rule)
    assert found.value == pytest.approx(sum(differences) / 9)
    assert found.value == pytest.approx(value, abs=0.06)
    assert found.half_width == pytest.approx(1.96 * math.sqrt(variance) / 9)
    assert 1.1 < found.half_width < 1.4
    assert found.num_seeds == 20


def test_what_the_sets_that_the_paper_lacks_would_change_is_said():
    """By hand from the file: with Ant, independent tokens can no longer be told from the untrained model."""
    with open(NUMBERS / "wang2024_20_seeds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_arm = {
        arm: {(row["env"], row["dataset"]): float(row["last4_mean"]) for row in rows if row["arm"] == arm}
        for arm in ("IID_20k", "wrapper_1update_noLcos")
    }
    ours, control = by_arm.values()
    assert len(ours) == len(TWELVE) == 12
    found = known_difference("iid", "last4", TWELVE)
    assert found.value == pytest.approx(sum(ours[task] - control[task] for task in ours) / 12)
    assert found.value < found.half_width and known_difference("iid", "last4").value > 1.2
    assert f"IID tokens {found.shown}" in differences_known().caption


def test_every_study_has_its_setting_its_controls_and_its_source():
    table = studies_known()
    names = " ".join(row.cells[0].text for row in table.rows)
    for name in ("Reid", "Takagi", "Wang", "LaMo", "rerun of LaMo", "Markov heads"):
        assert name in names
    assert all(cell.text and "{" not in cell.text for row in table.rows for cell in row.cells)
    assert all("arXiv" in row.cells[-1].text or "github.com" in row.cells[-1].text for row in table.rows)


@pytest.mark.parametrize("arm", ["chibit", "markov", "gpt2_lamo", "chibit (init=a)"])
def test_a_report_with_pre_trained_arms_begins_with_what_is_known(tmp_path, runs, arm):
    runs.write_study(tmp_path / "s", {"random": 0, arm: 4}, [HOPPER], [0], num_evaluations=1)
    paths = build_report(tmp_path / "s", formats=["md", "html"])
    page, text = paths.html.read_text(), paths.markdown.read_text()
    assert text.splitlines()[2].startswith("Known from 20 seeds on nine D4RL data sets")
    assert page.index("Known from 20 seeds") < page.index('<section class="verdict')
    assert page.index('id="table-known-studies"') < page.index('<section class="verdict')
    assert render_console_table(tmp_path / "s").renderables[0].plain.strip() == known_sentence()


def test_a_report_of_other_arms_does_not(tmp_path, runs):
    runs.write_study(tmp_path / "s", {"random": 0, "bc": 4}, [HOPPER], [0], num_evaluations=1)
    paths = build_report(tmp_path / "s", formats=["md", "html"])
    assert "Known from" not in paths.html.read_text() + paths.markdown.read_text()
